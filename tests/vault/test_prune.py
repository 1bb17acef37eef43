"""Prune: what nothing refers to goes, what anything refers to stays, and stock restic agrees before and after."""

from __future__ import annotations

import json
import os
import random
from datetime import timedelta
from pathlib import Path

import pytest

from refloat.errors import IntegrityError, LeaseHeld
from refloat.recovery_point import CataloguedPoint, new_id
from refloat.registry import open_object_store
from tests.tools.restic import find, needed, restic
from tests.vault.faulty import FaultyStore
from tests.vault.given import MIB, PASSWORD, facts, protect, reopened, tree_of
from vault.blobs import BlobKind
from vault.catalogue import points
from vault.extract import extract
from vault.files import FileKind, key_of, stored
from vault.prune import Pruned, plan_prune, prune
from vault.prune_plan import Action
from vault.repository import OpenVault, open_vault
from vault.tally import Tally
from vault.verify import verify
from vault.writing import BlobWriter

NO_GRACE = timedelta(0)


class Volume:
    """A folder of small files that change from point to point."""

    def __init__(self, folder: Path, seed: int = 1) -> None:
        self.folder, self._rng = folder, random.Random(seed)
        (folder / "sub").mkdir(parents=True)
        self.change(range(24))

    def change(self, numbers: range) -> None:
        """Give these files other bytes."""
        for number in numbers:
            where = self.folder / "sub" if number % 3 else self.folder
            (where / f"file {number}").write_bytes(self._rng.randbytes(100_000))


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path / "volume")


def _pruned(place: Path, **words: float) -> Pruned:
    own = reopened(place)
    try:
        return prune(own, run=new_id(), grace=NO_GRACE, **words)
    finally:
        own.close()


def _drop(vault: OpenVault, point: CataloguedPoint) -> None:
    """As ``expire`` or ``restic forget`` do."""
    vault.store.delete(key_of(FileKind.SNAPSHOT, point.snapshot_id))


def _judge(place: Path) -> None:
    """Stock restic finds no error in any byte, and nothing that is superfluous."""
    if find() is not None:
        said = restic(str(place), PASSWORD, "check", "--read-data", "--no-lock")
        assert "no errors were found" in said
        assert "unused blob" not in said


def _is_exact(place: Path, point: CataloguedPoint, expected: dict[bytes, tuple[object, ...]], out: Path) -> None:
    out.mkdir()
    own = reopened(place)
    verify(own, point, level="full")
    extract(own, tree_of(point), out, Tally())
    assert facts(out) == expected


def test_partly_used_packs_are_repacked_and_unused_ones_removed(
    vault: OpenVault, place: Path, volume: Volume, tmp_path: Path
) -> None:
    """The first of two points goes; what only it used is freed, and the second is what it was."""
    first = protect(vault, volume.folder)
    volume.change(range(0, 24, 2))
    second, expected = protect(vault, volume.folder, parent=tree_of(first)), facts(volume.folder)
    before = sum(found.size_bytes for _, found in stored(vault.store, FileKind.PACK))
    _drop(vault, first)
    plan = plan_prune(reopened(place), run=new_id(), max_unused=0)
    assert plan.count(Action.REPACK) >= 1
    assert plan.count(Action.REMOVE) >= 1
    done = _pruned(place, max_unused=0)
    after = sum(found.size_bytes for _, found in stored(vault.store, FileKind.PACK))
    assert before - after == done.freed_bytes >= plan.freed_bytes - 1000 > 1_000_000
    assert 12 <= done.blobs_moved <= 40
    assert points(reopened(place)) == [second]
    _is_exact(place, second, expected, tmp_path / "out")
    _judge(place)
    assert plan_prune(reopened(place), run=new_id(), max_unused=0).is_empty
    assert _pruned(place, max_unused=0) == Pruned(0, 0, 0, 0, 0, 0)


def test_nothing_changes_where_everything_is_used(vault: OpenVault, place: Path, volume: Volume) -> None:
    """No store call but the lock's writes anything."""
    protect(vault, volume.folder)
    names = sorted(path.name for path in place.rglob("*") if path.is_file())
    assert plan_prune(reopened(place), run=new_id()).is_empty
    assert _pruned(place) == Pruned(0, 0, 0, 0, 0, 0)
    assert sorted(path.name for path in place.rglob("*") if path.is_file()) == names


def test_a_little_waste_is_tolerated(vault: OpenVault, place: Path, volume: Volume) -> None:
    """As restic's --max-unused: what is unused below the share stays in its pack; trees never do."""
    first = protect(vault, volume.folder)
    volume.change(range(1))
    protect(vault, volume.folder, parent=tree_of(first))
    _drop(vault, first)
    strict = plan_prune(reopened(place), run=new_id(), max_unused=0)
    lax = plan_prune(reopened(place), run=new_id(), max_unused=0.3)
    assert any("data is unused" in fate.reason for fate in strict.fates())
    assert not any("data is unused" in fate.reason for fate in lax.fates())
    assert strict.freed_bytes > lax.freed_bytes + 90_000


def test_foreign_snapshots_are_references_too(vault: OpenVault, place: Path, volume: Volume, tmp_path: Path) -> None:
    """What only restic's own snapshot uses is kept."""
    needed()
    restic(str(place), PASSWORD, "backup", "--host", "k8up", ".", cwd=volume.folder)
    expected = facts(volume.folder)
    volume.change(range(24))
    ours = protect(vault, volume.folder)
    _drop(vault, ours)
    _pruned(place, max_unused=0)
    _judge(place)
    restic(str(place), PASSWORD, "restore", "latest", "--target", str(tmp_path / "out"))
    assert facts(tmp_path / "out") == expected


def test_stock_restic_prunes_after_us_and_we_after_it(
    vault: OpenVault, place: Path, volume: Volume, tmp_path: Path
) -> None:
    """Neither finds anything left to do, and points survive both."""
    needed()
    kept, expected = [], []
    last = protect(vault, volume.folder)
    for hours in range(1, 4):
        volume.change(range(0, 24, hours + 1))
        kept.append(protect(vault, volume.folder, parent=tree_of(last), after=timedelta(hours=hours)))
        expected.append(facts(volume.folder))
        _drop(vault, last)
        last = kept[-1]
        if hours < 3:
            kept.pop(), expected.pop()
        if hours % 2:
            _pruned(place, max_unused=0)
        else:
            restic(str(place), PASSWORD, "prune", "--max-unused", "0")
    said = restic(str(place), PASSWORD, "prune", "--dry-run", "--max-unused", "0")
    assert "to delete:             0 blobs" in said, said
    restic(str(place), PASSWORD, "prune", "--max-unused", "0")
    assert plan_prune(reopened(place), run=new_id(), max_unused=0).is_empty
    _is_exact(place, kept[0], expected[0], tmp_path / "out")
    _judge(place)


@pytest.mark.parametrize("what", ["snapshots", "index", "data"])
def test_what_cannot_be_read_stops_everything(vault: OpenVault, place: Path, volume: Volume, what: str) -> None:
    """A damaged record, index file or tree: named, and nothing is removed."""
    first = protect(vault, volume.folder)
    volume.change(range(12))
    second = protect(vault, volume.folder, parent=tree_of(first))
    _drop(vault, first)
    name = second.snapshot_id
    if what == "index":
        name = next(name for name, _ in stored(vault.store, FileKind.INDEX))
    elif what == "data":
        found = vault.index(is_fresh=True).find(BlobKind.TREE, bytes.fromhex(second.tree))
        assert found is not None
        name = found[0].hex()
    (path,) = place.glob(f"{what}/**/{name}")
    body = bytearray(path.read_bytes())
    body[len(body) // 2 if what != "data" else found[1].offset + 20] ^= 1
    path.write_bytes(body)
    before = sorted(path.name for path in place.rglob("*") if path.is_file())
    with pytest.raises(IntegrityError):
        _pruned(place, max_unused=0)
    assert sorted(path.name for path in place.rglob("*") if path.is_file()) == before


@pytest.mark.parametrize("kind", [FileKind.INDEX, FileKind.PACK])
def test_what_is_missing_stops_everything(vault: OpenVault, place: Path, volume: Volume, kind: FileKind) -> None:
    """An index file or a used pack is gone: absence is an error, not a reason to remove more."""
    protect(vault, volume.folder)
    (place / key_of(kind, next(name for name, _ in stored(vault.store, kind)))).unlink()
    before = sorted(path.name for path in place.rglob("*") if path.is_file())
    with pytest.raises(IntegrityError, match="no index" if kind is FileKind.INDEX else "is gone"):
        _pruned(place)
    assert sorted(path.name for path in place.rglob("*") if path.is_file()) == before


def test_writers_hold_it_off_and_it_holds_off_writers(vault: OpenVault, place: Path, volume: Volume) -> None:
    """A shared lock stops it; while it runs nobody else gets a lock."""
    protect(vault, volume.folder)
    with reopened(place).lock("writer"), pytest.raises(LeaseHeld, match="in use by refloat-writer"):
        _pruned(place)
    tried = []

    def write(_: object) -> None:
        with pytest.raises(LeaseHeld, match="exclusively by refloat-pruner"), reopened(place).lock("writer"):
            pytest.fail("must not be entered")
        tried.append(1)

    prune(reopened(place), run="pruner", show=write)
    assert tried
    assert not list(stored(vault.store, FileKind.LOCK))


def test_packs_of_a_writer_that_lost_its_lock_are_left_alone_for_a_while(vault: OpenVault, place: Path) -> None:
    """In no index yet: within the grace they stay, after it they go."""
    own = reopened(place)
    writer = BlobWriter(own.files, own.index())
    writer.save(BlobKind.DATA, random.Random(3).randbytes(MIB))
    writer.flush()
    writer.close()
    plan = plan_prune(reopened(place), run=new_id())
    assert (plan.young, plan.is_empty) == (1, True)
    assert prune(reopened(place), run=new_id()).packs_removed == 0
    for path in place.glob("data/*/*"):
        os.utime(path, (0, 0))
    assert prune(reopened(place), run=new_id()).packs_removed == 1
    assert not list(stored(vault.store, FileKind.PACK))


def test_who_writes_in_spite_of_the_lock_stops_it(vault: OpenVault, place: Path, volume: Volume) -> None:
    """A point sealed while prune was at work, by somebody who takes no lock: nothing is removed."""
    first = protect(vault, volume.folder)
    _drop(vault, first)
    volume.change(range(4))
    sealed = []
    with pytest.raises(LeaseHeld, match="in spite of the exclusive lock"):
        prune(
            reopened(place), run=new_id(), grace=NO_GRACE,
            show=lambda _: sealed.append(protect(reopened(place), volume.folder)),
        )  # fmt: skip
    verify(reopened(place), sealed[0], level="full")
    _pruned(place, max_unused=0)
    verify(reopened(place), sealed[0], level="full")
    _judge(place)


def test_who_waits_with_an_old_index_does_not_count_on_what_was_pruned(
    vault: OpenVault, place: Path, volume: Volume
) -> None:
    """It knew the blobs, they were pruned, it stores them again: the lock makes it look anew."""
    first = protect(vault, volume.folder)
    assert vault.index(is_fresh=True).has(BlobKind.TREE, bytes.fromhex(tree_of(first)))
    _drop(vault, first)
    assert _pruned(place).packs_removed
    with vault.lock("writer"):
        again = protect(vault, volume.folder)
    verify(reopened(place), again, level="full")
    _judge(place)


def test_a_lock_that_is_lost_stops_the_removal(vault: OpenVault, place: Path, volume: Volume) -> None:
    """Somebody removed it while new packs were written: the old ones stay."""
    first = protect(vault, volume.folder)
    volume.change(range(12))
    second = protect(vault, volume.folder, parent=tree_of(first))
    _drop(vault, first)
    packs = {name for name, _ in stored(vault.store, FileKind.PACK)}
    watching = FaultyStore(open_object_store(f"file://{place}", {}))

    def steal(key: str) -> None:
        if key.startswith("index/"):
            watching.faults += 1
            for name, _ in stored(vault.store, FileKind.LOCK):
                vault.store.delete(key_of(FileKind.LOCK, name))

    watching.on_put = steal
    with pytest.raises(LeaseHeld, match="removed the vault lock"):
        prune(open_vault(watching, PASSWORD), run=new_id(), grace=NO_GRACE, max_unused=0)
    assert watching.faults
    assert packs <= {name for name, _ in stored(vault.store, FileKind.PACK)}
    verify(reopened(place), second, level="full")


def test_the_plan_as_scripts_read_it(vault: OpenVault, place: Path, volume: Volume) -> None:
    """Counts, bytes, and a reason for every pack that does not stay."""
    _drop(vault, protect(vault, volume.folder))
    plan = json.loads(json.dumps(plan_prune(reopened(place), run=new_id()).as_json()))
    assert plan["packs"]["keep"] == plan["packs"]["repack"] == plan["used_bytes"] == plan["snapshots"] == 0
    assert {change["reason"] for change in plan["changes"]} == {"nothing in it is used"}
    assert plan["freed_bytes"] == plan["bytes"] > 2_000_000
