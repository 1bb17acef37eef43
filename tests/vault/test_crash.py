"""Crashes: whenever the store or the process dies, nothing sealed changes, nothing half-done is offered, and the next
run succeeds, using what was stored before.
"""

from __future__ import annotations

import os
import random
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from refloat.errors import RefloatError
from refloat.registry import open_object_store
from tests.tools.restic import find, restic
from tests.vault.faulty import FaultyStore
from tests.vault.given import MANIFEST, MIB, PASSWORD, facts, point_over, protect, put_oddities, reopened, tree_of
from vault.archive import archive
from vault.blobs import BlobKind
from vault.catalogue import points, seal
from vault.extract import extract
from vault.packs import TARGET_BYTES
from vault.repository import OpenVault, open_vault
from vault.tally import Tally
from vault.verify import verify
from vault.writing import BlobWriter


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder full of oddities."""
    folder = tmp_path / "source"
    folder.mkdir()
    put_oddities(folder)
    return folder


def _judge(place: Path) -> None:
    """Stock restic's word, where there is one; ours is given by verify."""
    if find() is not None:
        assert "no errors were found" in restic(str(place), PASSWORD, "check", "--read-data", "--no-lock")


def test_a_store_that_dies_at_any_write_costs_nothing_sealed(
    vault: OpenVault, place: Path, source: Path, tmp_path: Path
) -> None:
    """Run after run dies one write later, until one gets through."""
    first = protect(vault, source)
    died = 0
    for puts in range(100):
        (source / "text").write_text(f"run {puts}\n" * 5000)
        dying = FaultyStore(open_object_store(f"file://{place}", {}), dies_at_put=puts)
        try:
            run = open_vault(dying, PASSWORD)
            with run.lock("run"):
                sealed = protect(run, source, parent=tree_of(first), after=timedelta(hours=1))
        except RefloatError as error:
            assert "injected" in str(error)
            assert dying.faults
            died += 1
            assert points(reopened(place)) == [first]
        else:
            break
    assert died >= 7, "lock, packs of data and of trees, index: twice, and the snapshot record"
    assert points(reopened(place)) == [first, sealed]
    again = reopened(place)
    for point in (first, sealed):
        verify(again, point, level="full")
    out = tmp_path / "out"
    out.mkdir()
    extract(again, tree_of(sealed), out, Tally())
    assert facts(out) == facts(source)
    for lock in (place / "locks").iterdir():  # the dead cannot remove theirs
        lock.unlink()
    _judge(place)


def test_what_a_dead_run_stored_is_reused(vault: OpenVault, place: Path, tmp_path: Path) -> None:
    """It died when it sealed: the next one stores none of the data again."""
    folder = tmp_path / "db"
    folder.mkdir()
    (folder / "heap").write_bytes(random.Random(1).randbytes(8 * MIB))
    dead = archive(vault, folder, Tally())
    assert dead.added_bytes > 8 * MIB
    again = reopened(place)
    os.utime(folder / "heap")
    done = archive(again, folder, Tally())
    assert done.added_bytes < 4096
    assert points(again) == []


def test_index_files_are_written_while_the_work_goes_on(vault: OpenVault, place: Path) -> None:
    """A writer that never finishes leaves what its early index files name, usable by the next."""
    rng, indexed = random.Random(2), threading.Event()
    watching = FaultyStore(open_object_store(f"file://{place}", {}))
    watching.on_put = lambda key: indexed.set() if key.startswith("index/") else None
    killed = open_vault(watching, PASSWORD)
    writer = BlobWriter(killed.files, killed.index(), index_blobs=1)
    ids = [writer.save(BlobKind.DATA, rng.randbytes(MIB)) for _ in range(2 * TARGET_BYTES // MIB)]
    assert indexed.wait(timeout=30)
    writer.close()
    index = reopened(place).index()
    found = [blob_id for blob_id in ids if index.has(BlobKind.DATA, blob_id)]
    assert len(found) >= TARGET_BYTES // MIB - 1
    _judge(place)


def test_two_writers_at_once(vault: OpenVault, place: Path, tmp_path: Path) -> None:
    """Two movers on one vault, sharing half of their data, each sealing: both points are whole."""
    folders = []
    for number in range(2):
        folder = tmp_path / f"volume {number}"
        folder.mkdir()
        (folder / "shared").write_bytes(random.Random(0).randbytes(20 * MIB))
        (folder / "own").write_bytes(random.Random(number + 1).randbytes(5 * MIB))
        folders.append(folder)
    start = threading.Barrier(2)

    def run(folder: Path) -> None:
        own = reopened(place)
        start.wait(timeout=30)
        done = archive(own, folder, Tally())
        seal(own, point_over(("data", done)), {MANIFEST: b"{}"})
        own.close()

    runs = [threading.Thread(target=run, args=(folder,)) for folder in folders]
    for each in runs:
        each.start()
    for each in runs:
        each.join()
    again = reopened(place)
    found = points(again)
    assert len(found) == 2
    assert {verify(again, point, level="full").file_bytes > 25 * MIB for point in found} == {True}
    assert {tree_of(point) for point in found} == {archive(again, folder, Tally()).tree for folder in folders}
    _judge(place)


def test_a_lost_answer_is_no_failure(place: Path, vault: OpenVault, source: Path) -> None:
    """The store repeats requests by itself and then says the object exists: it does, and it is ours."""
    losing = FaultyStore(open_object_store(f"file://{place}", {}))
    losing.loses_answers = lambda key: True
    run = open_vault(losing, PASSWORD)
    with run.lock("run"):
        sealed = protect(run, source)
    assert losing.faults >= 6
    assert points(reopened(place)) == [sealed]
    verify(reopened(place), sealed, level="full")
