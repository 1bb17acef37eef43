"""Bad input, as a table: truncated, foreign, future, half-deleted vaults, and stores that answer late, twice or never.

Whoever opens, lists, verifies or restores gets a named error or the right answer, and nothing in the vault is changed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import orjson
import pytest

from refloat.errors import (
    IntegrityError,
    NoEligibleRecoveryPoint,
    NotAVault,
    RefloatError,
    TimedOut,
    UnsupportedFormat,
    VaultMissing,
)
from refloat.recovery_point import DESCRIPTOR, CataloguedPoint
from refloat.registry import open_object_store
from tests.vault.faulty import FaultyStore
from tests.vault.given import PASSWORD, facts, protect, reopened, tree_of
from vault.blobs import BlobKind
from vault.catalogue import manifests, points
from vault.extract import extract
from vault.files import CONFIG, FileKind
from vault.nodes import FILE, Node, encode_node, encode_tree
from vault.repository import OpenVault, init, open_vault
from vault.survey import survey
from vault.surveyed import Level
from vault.tally import Tally
from vault.verify import verify
from vault.writing import BlobWriter


@pytest.fixture
def sealed(vault: OpenVault, tmp_path: Path) -> CataloguedPoint:
    """A point over a small folder."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(random.Random(1).randbytes(20_000))
    (source / "text").write_text("text\n" * 999)
    return protect(vault, source)


def _all_of(place: Path, kind: str) -> list[Path]:
    return sorted(path for path in (place / kind).rglob("*") if path.is_file())


def _cut(kind: str) -> Callable[[Path], None]:
    def spoil(place: Path) -> None:
        for path in [place / kind] if kind == CONFIG else _all_of(place, kind):
            path.chmod(0o600)
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return spoil


def _remove(*kinds: str) -> Callable[[Path], None]:
    def spoil(place: Path) -> None:
        for kind in kinds:
            for path in [place / kind] if kind == CONFIG else _all_of(place, kind):
                path.unlink()

    return spoil


def _replace_all(place: Path) -> None:
    _remove(CONFIG, "keys", "snapshots", "index", "data")(place)
    (place / "holiday.jpg").write_bytes(b"jpeg")


def _another_configuration(place: Path) -> None:
    other = place.parent / "other"
    init(open_object_store(f"file://{other}", {}), PASSWORD).close()
    (place / CONFIG).chmod(0o600)
    (place / CONFIG).write_bytes((other / CONFIG).read_bytes())


def _another_record(place: Path) -> None:
    other = init(open_object_store(f"file://{place.parent / 'other'}", {}), PASSWORD)
    name = other.files.write(FileKind.SNAPSHOT, b"{}")
    other.close()
    (place / "snapshots" / name).write_bytes((place.parent / "other" / "snapshots" / name).read_bytes())


def _future_format(place: Path) -> None:
    opened = reopened(place)
    config = {"version": 3, "id": opened.id, "chunker_polynomial": "3da3358b4dc173"}
    (place / CONFIG).chmod(0o600)
    (place / CONFIG).write_bytes(opened.files.codec.sealer.seal(orjson.dumps(config)))
    opened.close()


def _future_descriptor(place: Path) -> None:
    opened = reopened(place)
    (point,) = points(opened)
    text = orjson.dumps({"version": 2, "id": point.point.id, "layers": []})
    writer = BlobWriter(opened.files, opened.index())
    blob = writer.save(BlobKind.DATA, text)
    file = Node(DESCRIPTOR.encode(), FILE, 0o600, uid=0, gid=0, mtime=0, ctime=0, size=len(text), content=blob)
    tree = writer.save(BlobKind.TREE, encode_tree([encode_node(file)]))
    writer.finish()
    record = orjson.loads(opened.files.read(FileKind.SNAPSHOT, point.snapshot_id))
    opened.files.write(FileKind.SNAPSHOT, orjson.dumps({**record, "tree": tree.hex(), "program_version": "later"}))
    (place / "snapshots" / point.snapshot_id).unlink()
    opened.close()


@dataclass(frozen=True)
class Bad:
    """A way of being bad, and what opening, listing, a survey and restoring say. None: they succeed."""

    name: str
    spoil: Callable[[Path], None]
    opening: type[RefloatError] | None = None
    listing: type[RefloatError] | None = None
    surveying: type[RefloatError] | None = None
    restoring: type[RefloatError] | None = None


TABLE = [
    Bad("cut configuration", _cut(CONFIG), IntegrityError),
    Bad("cut key file", _cut("keys"), IntegrityError),
    Bad("cut record", _cut("snapshots"), None, IntegrityError, IntegrityError, None),
    Bad("cut index file", _cut("index"), None, None, IntegrityError, IntegrityError),
    Bad("cut packs", _cut("data"), None, IntegrityError, IntegrityError, IntegrityError),
    Bad("nothing at all", _remove(CONFIG, "keys", "snapshots", "index", "data"), VaultMissing),
    Bad("no configuration and nothing but keys", _remove(CONFIG, "snapshots", "index", "data"), VaultMissing),
    Bad("no configuration", _remove(CONFIG), NotAVault),
    Bad("no keys", _remove("keys"), NotAVault),
    Bad("no index", _remove("index"), None, None, IntegrityError, IntegrityError),
    Bad("no records", _remove("snapshots"), None, None, NoEligibleRecoveryPoint, None),
    Bad("no packs", _remove("data"), None, IntegrityError, IntegrityError, IntegrityError),
    Bad("neither index nor packs", _remove("index", "data"), None, IntegrityError, IntegrityError, IntegrityError),
    Bad("somebody's files", _replace_all, NotAVault),
    Bad("another vault's configuration", _another_configuration, IntegrityError),
    Bad("another vault's record", _another_record, None, IntegrityError, IntegrityError, None),
    Bad("a later format", _future_format, UnsupportedFormat),
    Bad("a later descriptor", _future_descriptor, None, UnsupportedFormat, IntegrityError, None),
]


def _says(expected: type[RefloatError] | None, work: Callable[[], object], name: str) -> None:
    if expected is None:
        work()
        return
    with pytest.raises(expected) as told:
        work()
    assert type(told.value) is expected, name
    assert len(str(told.value)) > 10


def _judge(opened: OpenVault) -> None:
    found = survey(opened, level=Level.FULL)
    if not found.is_intact:
        raise found.error(opened.url)


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.name)
def test_a_bad_vault_is_named_for_what_it_is(bad: Bad, place: Path, sealed: CataloguedPoint, tmp_path: Path) -> None:
    """Whoever comes meets the same error; what lies there is not touched."""
    bad.spoil(place)
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    out = tmp_path / "out"
    out.mkdir()
    if bad.opening is not None:
        _says(bad.opening, lambda: reopened(place), bad.name)
    else:
        _says(bad.listing, lambda: points(reopened(place)), bad.name)
        _says(bad.surveying, lambda: _judge(reopened(place)), bad.name)
        _says(bad.restoring, lambda: extract(reopened(place), tree_of(sealed), out, Tally()), bad.name)
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


def test_a_vault_is_never_made_over_a_bad_one(place: Path, sealed: CataloguedPoint) -> None:
    """Whatever is missing, a second master key would hide what is left."""
    for kinds in ((CONFIG,), ("keys",), (CONFIG, "keys"), ("keys", "index")):
        spoilt = {path: path.read_bytes() for kind in kinds for path in [place / kind, *_all_of(place, kind)]
                  if path.is_file()}  # fmt: skip
        _remove(*kinds)(place)
        with pytest.raises(NotAVault):
            init(open_object_store(f"file://{place}", {}), PASSWORD)
        for path, body in spoilt.items():
            path.write_bytes(body)
    assert points(reopened(place)) == [sealed]


class Odd(FaultyStore):
    """Answers late, or to some keys not at all."""

    late_seconds = 0.0
    is_mute: Callable[[str], bool] = staticmethod(lambda _: False)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        if self.is_mute(key):
            self.faults += 1
            raise TimedOut(f"injected: no answer ({key})")
        if self.late_seconds:
            self.faults += 1
            time.sleep(self.late_seconds)
        return super().get(key, start=start, length=length)


def test_late_answers_are_waited_for(place: Path, sealed: CataloguedPoint, tmp_path: Path) -> None:
    """Everything comes out right."""
    store = Odd(open_object_store(f"file://{place}", {}))
    store.late_seconds = 0.02
    vault = open_vault(store, PASSWORD)
    out = tmp_path / "out"
    out.mkdir()
    assert points(vault) == [sealed]
    assert survey(vault, level=Level.FULL, expected=[sealed]).is_intact
    extract(vault, tree_of(sealed), out, Tally())
    assert facts(out) == facts(tmp_path / "source")
    assert store.faults > 10


@pytest.mark.parametrize("kind", [CONFIG, "keys", "snapshots", "index", "data"])
def test_no_answer_is_its_own_error_and_never_damage(
    place: Path, sealed: CataloguedPoint, tmp_path: Path, kind: str
) -> None:
    """Whatever does not come: a time-out stays one, so that waiting is known to help."""
    store = Odd(open_object_store(f"file://{place}", {}))
    store.is_mute = lambda key: key.partition("/")[0] == kind  # type: ignore[method-assign]
    out = tmp_path / "out"
    out.mkdir()
    told = 0
    works: list[Callable[[OpenVault], object]] = [
        points, _judge, lambda vault: manifests(vault, sealed), lambda vault: verify(vault, sealed, level="full"),
        lambda vault: extract(vault, tree_of(sealed), out, Tally()),
    ]  # fmt: skip
    for work in works:
        try:
            work(open_vault(store, PASSWORD))
        except TimedOut:
            told += 1
    needing = {"snapshots": 3, "index": 4}.get(kind, len(works))
    assert told == needing
    assert store.faults >= told


def test_a_put_that_is_answered_twice_is_one_object(place: Path, tmp_path: Path) -> None:
    """The repeated request meets its own object; the vault is whole, and stock names are their hashes."""
    store = FaultyStore(open_object_store(f"file://{place}", {}))
    store.loses_answers = lambda key: key.startswith(("data/", "index/", "snapshots/", "keys/"))
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(random.Random(1).randbytes(20_000))
    point = protect(init(store, PASSWORD), source)
    assert store.faults >= 5
    assert points(reopened(place)) == [point]
    assert survey(reopened(place), level=Level.FULL, expected=[point]).is_intact
    for path in place.rglob("*"):
        if path.is_file() and path.name != CONFIG:
            assert sha256(path.read_bytes()).hexdigest() == path.name
