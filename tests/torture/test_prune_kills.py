"""Bar 2: SIGKILL in a prune, at every call of the store and at any moment: nothing that is referred to is lost, and the
next prune completes.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from refloat.clock import monotonic_seconds
from refloat.recovery_point import CataloguedPoint, new_id
from refloat.registry import open_object_store
from tests.tools.restic import find, restic
from tests.torture.killing import KillingStore, run_child
from tests.vault.given import PASSWORD, facts, protect, reopened, tree_of
from vault.catalogue import points
from vault.extract import extract
from vault.files import FileKind, key_of, stored
from vault.prune import plan_prune, prune
from vault.repository import init, open_vault
from vault.tally import Tally
from vault.verify import verify

NO_GRACE = timedelta(0)
Facts = dict[bytes, tuple[object, ...]]


class Wasteful:
    """A vault of three points that are kept, and packs that are used in part, or no longer."""

    def __init__(self, place: Path, source: Path, rng: random.Random) -> None:
        self.place = place
        self.kept: list[tuple[CataloguedPoint, Facts]] = []
        vault = init(open_object_store(f"file://{place}", {}), PASSWORD)
        (source / "sub").mkdir(parents=True)
        last, gone = None, []
        for hours in range(6):
            for number in range(0, 16, hours % 3 + 1):
                (source / ("sub" if number % 2 else "") / f"file {number}").write_bytes(rng.randbytes(30_000))
            last = protect(vault, source, parent=tree_of(last) if last else None, after=timedelta(hours=hours))
            if hours % 2:
                self.kept.append((last, facts(source)))
            else:
                gone.append(last)
        for point in gone:
            vault.store.delete(key_of(FileKind.SNAPSHOT, point.snapshot_id))
        vault.close()

    def copied(self, place: Path) -> Path:
        """A copy to be tortured."""
        return Path(shutil.copytree(self.place, place))


@pytest.fixture(scope="module")
def wasteful(tmp_path_factory: pytest.TempPathFactory) -> Wasteful:
    folder = tmp_path_factory.mktemp("wasteful")
    return Wasteful(folder / "vault", folder / "source", random.Random(2))


def _prune(place: Path, **words: object) -> int:
    """One prune through a store that counts, or kills; how many calls it made."""
    store = KillingStore(open_object_store(f"file://{place}", {}), **words)  # type: ignore[arg-type]
    vault = open_vault(store, PASSWORD)
    prune(vault, run=new_id(), max_unused=0, grace=NO_GRACE)
    vault.close()
    return store.calls


def _judge(place: Path, kept: list[tuple[CataloguedPoint, Facts]], out: Path, *, is_last: bool = True) -> None:
    """Every kept point is there, whole and byte for byte what it was; stock restic finds no error in any byte."""
    vault = reopened(place)
    assert {point.point.id for point in points(vault)} == {point.point.id for point, _ in kept}
    for point, expected in kept:
        verify(vault, point, level="full")
        out.mkdir()
        extract(vault, tree_of(point), out, Tally())
        assert facts(out) == expected
        shutil.rmtree(out)
    vault.close()
    if is_last and find() is not None:
        assert "no errors were found" in restic(str(place), PASSWORD, "check", "--read-data", "--no-lock")


@pytest.mark.timeout(3600)
def test_a_prune_that_is_killed_anywhere_loses_nothing(
    wasteful: Wasteful, ram: Path, rounds: Callable[[int, int], int], seed: int
) -> None:
    """At calls of the store all the way, before and after them, then at any moment; after each a prune completes."""
    rng, count, killed = random.Random(seed), rounds(4, 100), 0
    calm = wasteful.copied(ram / "calm")
    began = monotonic_seconds()
    calls = _prune(calm)
    lasted = monotonic_seconds() - began
    by_call = min(count * 4 // 5, 2 * calls)
    for number in range(count):
        place = wasteful.copied(ram / "vault")
        words, moment = {}, None
        if number < by_call:
            half = int(
                2 * calls * (number + rng.random()) / by_call
            )  # each call has two halves: before it and after it
            words = {"dies_at": half // 2 + 1, "is_after": bool(half % 2)}
        else:
            moment = rng.uniform(0.05, lasted)
        killed += run_child(partial(_prune, place, **words), killed_after_seconds=moment)
        _judge(place, wasteful.kept, ram / "out")
        _prune(place)
        _is_done(place)
        _judge(place, wasteful.kept, ram / "out", is_last=number == count - 1)
        shutil.rmtree(place)
    print(f"{killed} of {count} prunes were killed; a calm one makes {calls} calls of the store in {lasted:.2f} s")
    assert killed >= by_call * 3 // 4


def _is_done(place: Path) -> None:
    """Nothing is left to do: every pack is named, and every named pack is there."""
    vault = reopened(place)
    assert plan_prune(vault, run=new_id(), max_unused=0, grace=NO_GRACE).is_empty
    assert {name for name, _ in stored(vault.store, FileKind.PACK)} == {pack.hex() for pack in vault.index().packs()}
    vault.close()
