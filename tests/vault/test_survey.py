"""The survey: every point looked at, each damage with exactly whom it hits, never stopping at the first."""

from __future__ import annotations

import random
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import orjson
import pytest

from refloat.errors import IntegrityError, LeaseHeld, NoEligibleRecoveryPoint, Unavailable
from refloat.folder_facts import FolderFacts
from refloat.recovery_point import CataloguedPoint
from tests.torture.in_memory import MemoryStore, seen_anew
from tests.vault.faulty import FaultyStore
from tests.vault.given import MANIFEST, PASSWORD, point_over, protect, reopened, tree_of
from vault.archive import Archived, archive
from vault.blobs import BlobKind, PackedBlob
from vault.catalogue import seal
from vault.extract import extract
from vault.files import FileKind, key_of, write_named
from vault.index import encode_index
from vault.nodes import DIR, FILE, Node, encode_node, encode_tree
from vault.packs import PackBuilder, encode_header, read_header
from vault.repository import OpenVault, init, open_vault
from vault.snapshots import encode_record
from vault.survey import survey
from vault.surveyed import Level, Survey
from vault.tally import Tally
from vault.verify import verify
from vault.writing import BlobWriter

LEVELS = list(Level)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file that all points share, and one that changes."""
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "shared").write_bytes(random.Random(3).randbytes(30_000))
    return folder


@pytest.fixture
def sealed(vault: OpenVault, source: Path) -> list[CataloguedPoint]:
    """Three points, an hour apart; each has a file of its own."""
    made = []
    for hour in range(3):
        (source / "own").write_bytes(random.Random(hour).randbytes(20_000))
        made.append(protect(vault, source, after=timedelta(hours=hour)))
    return made


def looked_at(place: Path, level: Level = Level.FULL, **asked: object) -> Survey:
    """A survey as another process makes it."""
    opened = reopened(place)
    try:
        return survey(opened, level=level, **asked)  # type: ignore[arg-type]
    finally:
        opened.close()


def hit(found: Survey, key: str) -> list[str | None]:
    """Ids of the points that one damaged object affects."""
    (damage,) = (each for each in found.damages if each.object == key)
    return [each.id for each in damage.points]


def pack_of(place: Path, vault: OpenVault, body: bytes) -> Path:
    """The pack that holds a small file's bytes."""
    for path in place.glob("data/*/*"):
        if any(blob.id == sha256(body).digest() for blob in read_header(path.read_bytes(), vault.files.codec.sealer)):
            return path
    raise AssertionError("no pack holds it")


def flip(path: Path, place: int) -> None:
    """One bit."""
    body = bytearray(path.read_bytes())
    body[place] ^= 1
    path.write_bytes(body)


@pytest.mark.parametrize("level", LEVELS)
def test_an_intact_vault_is_said_to_be_so(place: Path, sealed: list[CataloguedPoint], level: Level) -> None:
    """Oldest first, with what was read; nothing to remark."""
    found = looked_at(place, level, expected=sealed)
    assert found.is_intact
    assert [each.id for each in found.points] == [each.point.id for each in sealed]
    assert all(each.is_intact for each in found.points)
    assert found.remarks == ()
    assert found.counts.files == 4 + 2 * len(sealed)  # the shared folder once; own, manifest, descriptor
    read = {Level.STRUCTURE: (0, 0), Level.SAMPLE: (8, 0), Level.FULL: (8, found.counts.packs)}
    assert (found.counts.blobs_read, found.counts.packs_read) == read[level]


def test_shared_data_is_read_once(place: Path, sealed: list[CataloguedPoint]) -> None:
    """Every pack once, whoever needs it."""
    store = FaultyStore(reopened(place).store)
    found = survey(open_vault(store, PASSWORD), level=Level.FULL)
    assert found.is_intact
    assert found.counts.bytes_read == sum(path.stat().st_size for path in place.glob("data/*/*"))


@pytest.mark.parametrize("level", LEVELS)
def test_damage_hits_exactly_the_points_that_need_it(
    vault: OpenVault, place: Path, sealed: list[CataloguedPoint], tmp_path: Path, level: Level
) -> None:
    """A pack that only the second point needs is gone, and one that all need: told apart; the others still restore."""
    own = pack_of(place, vault, random.Random(1).randbytes(20_000))
    whole = own.read_bytes()
    own.unlink()
    found = looked_at(place, level)
    assert hit(found, f"data/{own.name[:2]}/{own.name}") == [sealed[1].point.id]
    assert [each.is_intact for each in found.points] == [True, False, True]
    assert "1 of 3 recovery points are affected, the others are intact" in str(found.error("file:///v"))
    assert found.damages[0].points[0].path == "volumes/shop/data/own"
    out = tmp_path / "out"
    out.mkdir()
    for each in (sealed[0], sealed[2]):
        extract(reopened(place), tree_of(each), out, Tally())
        assert verify(reopened(place), each, level="full").blobs_read
    own.write_bytes(whole)
    shared = pack_of(place, vault, random.Random(3).randbytes(30_000))
    shared.write_bytes(shared.read_bytes()[:-1])
    found = looked_at(place, level)
    assert hit(found, f"data/{shared.name[:2]}/{shared.name}") == [each.point.id for each in sealed[:3]]


def test_every_damage_is_told_not_only_the_first(vault: OpenVault, place: Path, sealed: list[CataloguedPoint]) -> None:
    """A flipped blob, a record that is gone, an index file and a key slot beside: each by its name."""
    (gone,) = (path for path in (place / "snapshots").iterdir() if path.name == sealed[0].snapshot_id)
    gone.unlink()
    own = pack_of(place, vault, random.Random(2).randbytes(20_000))
    flip(own, 100)
    (place / "keys" / ("0" * 64)).write_bytes(b"{}")
    found = looked_at(place, expected=sealed)
    assert {each.object.partition("/")[0] for each in found.damages} == {"snapshots", "data", "keys"}
    assert hit(found, f"snapshots/{gone.name}") == [sealed[0].point.id]
    assert hit(found, f"data/{own.name[:2]}/{own.name}") == [sealed[2].point.id]
    assert hit(found, f"keys/{'0' * 64}") == []
    assert [each.is_intact for each in found.points] == [True, False, False]


def test_one_flipped_blob_leaves_its_neighbours_whole(vault: OpenVault, place: Path, tmp_path: Path) -> None:
    """Two points' data in one pack; a bit of one blob affects one point, a bit of the header both."""
    folders = [tmp_path / name for name in ("a", "b")]
    for number, folder in enumerate(folders):
        folder.mkdir()
        (folder / "file").write_bytes(random.Random(number + 50).randbytes(10_000))
    both = tmp_path / "both"
    both.mkdir()
    for folder in folders:
        (both / folder.name).write_bytes((folder / "file").read_bytes())
    archive(vault, both, Tally())
    points = [protect(vault, folder) for folder in folders]
    pack = pack_of(place, vault, (folders[0] / "file").read_bytes())
    blobs = read_header(pack.read_bytes(), vault.files.codec.sealer)
    key = f"data/{pack.name[:2]}/{pack.name}"
    for point, folder in zip(points, folders, strict=True):
        wanted = sha256((folder / "file").read_bytes()).digest()
        (blob,) = (blob for blob in blobs if blob.id == wanted)
        flip(pack, blob.offset + 20)
        assert hit(looked_at(place), key) == [point.point.id]
        flip(pack, blob.offset + 20)
    flip(pack, pack.stat().st_size - 10)
    assert sorted(map(str, hit(looked_at(place), key))) == sorted(each.point.id for each in points)


def test_a_lost_index_file_is_named_and_its_packs_are_known_again(
    vault: OpenVault, place: Path, sealed: list[CataloguedPoint]
) -> None:
    """Damaged: by its name. Gone: nothing tells its name, but packs that no index names hold what is missed."""
    for path in sorted((place / "index").iterdir()):
        body = path.read_bytes()
        named = {pack["id"] for pack in orjson.loads(vault.files.read(FileKind.INDEX, path.name))["packs"]}
        flip(path, 40)
        damaged = looked_at(place, Level.STRUCTURE)
        path.unlink()
        gone = looked_at(place)
        assert hit(damaged, f"index/{path.name}") == hit(gone, "index") != []
        assert any(pack in text for pack in named for text in gone.remarks)
        assert any("do not prune" in text for text in gone.remarks)
        path.write_bytes(body)
    assert looked_at(place).is_intact


def test_a_damaged_record_is_told_by_the_point_that_was_expected(place: Path, sealed: list[CataloguedPoint]) -> None:
    """Without that nobody can say which point it was, but that there is damage is said."""
    flip(place / "snapshots" / sealed[1].snapshot_id, 30)
    key = f"snapshots/{sealed[1].snapshot_id}"
    assert hit(looked_at(place, Level.STRUCTURE), key) == []
    found = looked_at(place, Level.STRUCTURE, expected=sealed)
    assert hit(found, key) == [sealed[1].point.id]
    assert len(found.damages) == 1


def test_a_damaged_descriptor_still_tells_which_point_it_was(
    vault: OpenVault, place: Path, sealed: list[CataloguedPoint]
) -> None:
    """The record knows id, application and cut."""
    text = sealed[2].point.model_dump_json(indent=2).encode()
    pack = pack_of(place, vault, text)
    (blob,) = (
        blob for blob in read_header(pack.read_bytes(), vault.files.codec.sealer) if blob.id == sha256(text).digest()
    )
    flip(pack, blob.offset + 20)
    for level in LEVELS:
        found = looked_at(place, level)
        (affected,) = found.damages[0].points
        assert (affected.id, affected.application, affected.path) == (
            sealed[2].point.id, "shop", "recovery-point.json",
        )  # fmt: skip
        assert affected.cut_at == sealed[2].point.cut_at


def test_what_is_expected_and_not_there_is_damage(place: Path, sealed: list[CataloguedPoint]) -> None:
    """Removed by somebody, or hidden by a delete marker: the listing alone cannot tell."""
    (place / "snapshots" / sealed[1].snapshot_id).unlink()
    assert looked_at(place).is_intact
    found = looked_at(place, Level.STRUCTURE, expected=sealed)
    assert hit(found, f"snapshots/{sealed[1].snapshot_id}") == [sealed[1].point.id]
    other = sealed[0].model_copy(update={"tree": sealed[2].tree})
    found = looked_at(place, Level.STRUCTURE, expected=[other])
    assert "something else than is expected" in found.damages[0].reasons[0]


def test_only_what_is_asked_for_is_judged(vault: OpenVault, place: Path, source: Path, tmp_path: Path) -> None:
    """One application, one point by how its id begins; damage elsewhere is not theirs."""
    shop = protect(vault, source)
    (tmp_path / "wiki").mkdir()
    (tmp_path / "wiki" / "page").write_bytes(b"page" * 999)
    done = archive(vault, tmp_path / "wiki", Tally())
    wiki = seal(vault, point_over(("data", done), application="wiki"), {MANIFEST: b"{}"})
    flip(pack_of(place, vault, b"page" * 999), 20)
    assert looked_at(place, application="shop").is_intact
    assert looked_at(place, point=shop.point.id[:6]).is_intact
    assert not looked_at(place, application="wiki").is_intact
    assert [each.id for each in looked_at(place).points if not each.is_intact] == [wiki.point.id]
    for asked in ({"application": "mail"}, {"point": "0" * 16}, {"application": "wiki", "point": shop.point.id}):
        with pytest.raises(NoEligibleRecoveryPoint):
            looked_at(place, **asked)
    assert looked_at(place, application="shop").counts.packs_read < looked_at(place).counts.packs_read


def test_an_empty_vault_is_no_success(vault: OpenVault, place: Path) -> None:
    """Nothing that reads back is no proof; and a vault whose records are all gone looks like that."""
    with pytest.raises(NoEligibleRecoveryPoint, match="holds no recovery point"):
        looked_at(place)


def _tree_of_nodes(vault: OpenVault, *nodes: Node, data: bytes = b"evil") -> str:
    writer = BlobWriter(vault.files, vault.index())
    writer.save(BlobKind.DATA, data)
    tree = writer.save(BlobKind.TREE, encode_tree(map(encode_node, nodes)))
    writer.finish()
    return tree.hex()


def _seal_over(vault: OpenVault, tree: str) -> CataloguedPoint:
    facts = FolderFacts(mode=0o755, uid=0, gid=0, mtime_ns=0)
    done = Archived(
        tree, facts, files=1, data_bytes=4, added_bytes=0, chunk_bytes=1 << 18, unreadable=(), unreadable_count=0
    )
    return seal(vault, point_over(("data", done)), {MANIFEST: b"{}"})


def test_a_file_of_another_size_than_its_blobs_is_noticed(vault: OpenVault, place: Path) -> None:
    """Stock restic does not."""
    file = Node(b"short", FILE, 0o600, uid=0, gid=0, mtime=0, ctime=0, size=5, content=sha256(b"evil").digest())
    wrong = _seal_over(vault, _tree_of_nodes(vault, file))
    for level in LEVELS:
        found = looked_at(place, level)
        assert "volumes/shop/data/short has 5 bytes, its blobs together 4" in found.damages[0].reasons[0]
        assert [each.id for each in found.damages[0].points] == [wrong.point.id]


def test_a_tree_of_the_same_bytes_as_a_file_is_missed_when_only_the_file_is_there(
    vault: OpenVault, place: Path
) -> None:
    """Blobs are known by kind and id."""
    empty = encode_tree([])
    folder = Node(b"d", DIR, 0o700, uid=0, gid=0, mtime=0, ctime=0, subtree=sha256(empty).digest())
    point = _seal_over(vault, _tree_of_nodes(vault, folder, data=empty))
    found = looked_at(place, Level.STRUCTURE)
    assert hit(found, "index") == [point.point.id]
    assert found.damages[0].reasons == (f"tree blob {sha256(empty).hexdigest()} is in no index",)


def test_an_index_that_lies_about_a_pack_is_noticed(
    vault: OpenVault, place: Path, sealed: list[CataloguedPoint]
) -> None:
    """Two blobs' names exchanged: sizes and seals fit; by the hash, and by the pack's own header."""
    packs = {
        bytes.fromhex(path.name): read_header(path.read_bytes(), vault.files.codec.sealer)
        for path in place.glob("data/*/*")
    }
    for path in (place / "index").iterdir():
        path.unlink()
    pack, (one, two) = next((pack, blobs[:2]) for pack, blobs in packs.items() if len(blobs) > 1)
    packs[pack] = [one._replace(id=two.id), two._replace(id=one.id), *packs[pack][2:]]
    vault.files.write(FileKind.INDEX, encode_index(packs.items()))
    found = looked_at(place)
    assert any("its own header does not" in text for each in found.damages for text in each.reasons)
    assert hit(found, key_of(FileKind.PACK, pack.hex())) != []


def test_mixed_packs_twice_named_packs_and_orphans_are_remarks(
    vault: OpenVault, place: Path, sealed: list[CataloguedPoint]
) -> None:
    """Legal, wasteful, or left by a killed run: told, and no damage."""
    codec = vault.files.codec
    sealed_blobs, blobs, end = b"", [], 0
    for kind, body in ((BlobKind.DATA, b"data"), (BlobKind.TREE, encode_tree([]))):
        part = codec.sealer.seal(body)
        blobs.append(PackedBlob(kind, sha256(body).digest(), end, len(part), 0))
        sealed_blobs, end = sealed_blobs + part, end + len(part)
    header = codec.sealer.seal(encode_header(blobs))
    mixed = sealed_blobs + header + len(header).to_bytes(4, "little")
    write_named(vault.store, FileKind.PACK, sha256(mixed).hexdigest(), mixed)
    vault.files.write(FileKind.INDEX, encode_index([(sha256(mixed).digest(), blobs)]))
    vault.files.write(FileKind.INDEX, encode_index([(sha256(mixed).digest(), blobs)]) + b" ")
    builder = PackBuilder(BlobKind.DATA, 1 << 20)
    builder.add(sha256(b"orphan").digest(), b"orphan", codec)
    orphan = builder.close(codec)
    write_named(vault.store, FileKind.PACK, orphan.id.hex(), orphan.body)
    found = looked_at(place)
    assert found.is_intact
    for what in ("1 pack holds both", "1 pack is in no index", "1 pack is in more than one index file"):
        assert any(text.startswith(what) for text in found.remarks), found.remarks


def test_two_records_of_one_point_are_both_looked_at(
    vault: OpenVault, place: Path, sealed: list[CataloguedPoint]
) -> None:
    """A damaged twin of an intact record is not hidden behind it, whichever is listed first."""
    place_of_text = (bytes(32), PackedBlob(BlobKind.DATA, bytes(32), 0, 40, 0))
    record = encode_record(sealed[0].point, bytes(range(32)), place_of_text, files=1, data_bytes=1)
    vault.files.write(FileKind.SNAPSHOT, record)
    found = looked_at(place, Level.STRUCTURE)
    assert hit(found, "index") == [sealed[0].point.id]
    assert [each.is_intact for each in found.points if each.id == sealed[0].point.id].count(False) == 1


def test_a_store_that_does_not_answer_is_no_damage(place: Path, sealed: list[CataloguedPoint]) -> None:
    """Its own error, and no verdict."""

    class Mute(FaultyStore):
        def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
            if key.startswith("data/"):
                self.faults += 1
                raise Unavailable(f"injected: no answer ({key})")
            return super().get(key, start=start, length=length)

    store = Mute(reopened(place).store)
    for level in LEVELS:
        with pytest.raises(Unavailable):
            survey(open_vault(store, PASSWORD), level=level)
    assert store.faults >= len(LEVELS)


def test_pruning_meanwhile_is_told_from_damage(tmp_path: Path, source: Path) -> None:
    """An index file that was there at the beginning and is not at the end: what was found means nothing."""
    store = MemoryStore()
    vault = init(store, PASSWORD)
    protect(vault, source)

    class Pruned(FaultyStore):
        def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
            if key.startswith("data/") and not self.faults:
                self.faults += 1
                for name in [name for name in store.objects if name.startswith(("data/", "index/"))]:
                    store.delete(name)
            return super().get(key, start=start, length=length)

    pruned = Pruned(store)
    with pytest.raises(LeaseHeld, match="pruned while it was verified"):
        survey(open_vault(pruned, PASSWORD), level=Level.FULL)
    assert pruned.faults == 1


def test_progress_is_told(vault: OpenVault, sealed: list[CataloguedPoint]) -> None:
    """It only grows, and ends where the result is."""
    heard: list[int] = []
    found = survey(vault, level=Level.FULL, moved=lambda counts: heard.append(counts.bytes_read))
    assert heard == sorted(heard)
    assert heard[-1] == found.counts.bytes_read > 0


def test_verify_of_one_point_agrees_with_the_survey(
    vault: OpenVault, place: Path, sealed: list[CataloguedPoint]
) -> None:
    """What flows call after sealing, and what the command tells, never contradict each other."""
    rng = random.Random(9)
    paths = [path for path in sorted(place.rglob("*")) if path.parts[-2] == "snapshots" or "data" in path.parts]
    told = 0
    for path in (path for path in paths if path.is_file()):
        place_of_bit = rng.randrange(path.stat().st_size)
        flip(path, place_of_bit)
        found = survey(seen_anew(vault), level=Level.FULL, expected=sealed)
        verdicts = {each.id: each.is_intact for each in found.points}
        for each in sealed:
            try:
                verify(seen_anew(vault), each, level="full")
                is_intact = True
            except IntegrityError:
                is_intact = False
            assert is_intact == verdicts[each.point.id], (path, each.point.id)
            told += not is_intact
        flip(path, place_of_bit)
    assert told >= len(sealed)
