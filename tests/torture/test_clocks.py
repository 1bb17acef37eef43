"""Bar 13: one clock is wrong by an hour, a day or a year, be it the writer's, the store's or that of who expires and
prunes: nothing goes before its time, and where it shows, the refusal says so.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import product
from pathlib import Path

import pytest

from refloat.clock import now
from refloat.errors import ClocksDisagree, LeaseHeld
from refloat.policy import Retention
from refloat.recovery_point import RecoveryPoint, new_id
from refloat.registry import open_object_store
from refloat.retention import decide
from tests.vault.clocked import ClockedStore
from tests.vault.given import MANIFEST, PASSWORD, point_over
from vault.catalogue import points, seal
from vault.expiry import expire, plan_expiry
from vault.files import FileKind, stored
from vault.prune import prune
from vault.repository import OpenVault, init, open_vault

ACTORS = ("writer", "store", "keeper")
OFF = [sign * off for off in (timedelta(hours=1), timedelta(hours=24), timedelta(days=365)) for sign in (1, -1)]
RULES = Retention(hourly=4, daily=2)
COUNT = 7


@dataclass
class World:
    """One wrong clock. This machine's clock is the keeper's: when it is the wrong one, all others are moved instead."""

    actor: str
    off: timedelta
    place: Path

    def __post_init__(self) -> None:
        self.truth = now() - (self.off if self.actor == "keeper" else timedelta(0))
        init(open_object_store(f"file://{self.place}", {}), PASSWORD).close()
        self.store = ClockedStore(open_object_store(f"file://{self.place}", {}))
        self.store.off = {"store": self.off, "keeper": -self.off, "writer": timedelta(0)}[self.actor]
        self.vault = open_vault(self.store, PASSWORD)
        self.points = [self.seal(self.vault, hours) for hours in range(COUNT, 0, -1)]
        self.newest = self.seal(self.vault, 0, self.off if self.actor == "writer" else timedelta(0))

    def seal(self, vault: OpenVault, hours_ago: int, off: timedelta = timedelta(0)) -> RecoveryPoint:
        """A point that was really made so long ago, by a writer whose clock is off."""
        at = self.truth - timedelta(hours=hours_ago)
        point = point_over().model_copy(update={"started_at": at + off, "cut_at": at + off, "sealed_at": at + off})
        done = seal(vault, point, {MANIFEST: b"{}"})
        self.received(self.place / "snapshots" / done.snapshot_id, at)
        return done.point

    def received(self, path: Path, at: datetime) -> None:
        """The store had a file at an instant of true time, and says so unless its own clock is the wrong one."""
        seconds = (at - self.store.off if self.actor == "keeper" else at).timestamp()
        os.utime(path, (seconds, seconds))

    def lock_exclusively(self) -> None:
        """Another program's lock, taken a moment ago in true time."""
        at = self.truth + (self.off if self.actor == "writer" else timedelta(0))
        text = {"time": at.isoformat(), "exclusive": True, "hostname": "elsewhere", "username": "eve", "pid": 7}
        name = self.vault.files.write(FileKind.LOCK, json.dumps(text).encode())
        self.received(self.place / "locks" / name, self.truth)

    def right(self) -> set[str]:
        """The points that would be kept if every clock were right."""
        made = [*self.points, self.newest.model_copy(update=dict.fromkeys(("cut_at", "sealed_at"), self.truth))]
        return {each.point.id for each in decide(made, RULES, self.truth) if each.is_kept}


@pytest.mark.timeout(1800)
def test_no_wrong_clock_makes_anything_go_early(ram: Path, rounds: Callable[[int, int], int], seed: int) -> None:
    """Every actor, every error: the points that right clocks keep are there afterwards, with all their data."""
    cases = list(product(ACTORS, OFF))
    rng = random.Random(seed)
    refused = refusable = 0
    for number, (actor, off) in enumerate(rng.sample(cases, rounds(4, len(cases)))):
        world = World(actor, off, ram / f"vault {number}")
        refused += _torture(world)
        assert not list(stored(world.vault.store, FileKind.LOCK))
        world.vault.close()
        refusable += actor != "writer"
    print(f"{refused} refusals")
    assert refused >= 2 * refusable


def _torture(world: World) -> int:
    """Expire and prune; how often that was refused by name."""
    refused, is_seen = 0, world.actor != "writer"
    try:
        expire(world.vault, plan_expiry(world.vault, "shop", RULES), RULES, run=new_id())
    except ClocksDisagree as disagreement:
        assert "differ" in str(disagreement) or "when it was" in str(disagreement)
        refused += 1
    assert refused or not (is_seen or world.off > timedelta(0)), "nobody noticed"
    left = {each.point.id for each in points(world.vault)}
    assert left >= world.right()
    assert world.newest.id in left
    if refused:
        assert len(left) == COUNT + 1
    else:
        assert len(left) < COUNT + 1, "nothing expired at all"
    packs = {name for name, _ in stored(world.vault.store, FileKind.PACK)}
    try:
        prune(world.vault, run=new_id(), max_unused=0)
    except ClocksDisagree:
        refused += 1
        assert {name for name, _ in stored(world.vault.store, FileKind.PACK)} == packs
    assert refused == (2 if is_seen else refused)
    assert {each.point.id for each in points(world.vault)} == left
    return refused


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("actor", ACTORS)
def test_no_wrong_clock_makes_a_live_lock_stale(
    ram: Path, rounds: Callable[[int, int], int], seed: int, actor: str
) -> None:
    """Who prunes holds the vault: no writer passes over that lock, whosever clock is wrong, nor does another pruner."""
    for number, off in enumerate(random.Random(seed).sample(OFF, rounds(1, len(OFF)))):
        world = World(actor, off, ram / f"vault {number}")
        world.lock_exclusively()
        for is_exclusive in (False, True):
            with pytest.raises((LeaseHeld, ClocksDisagree)), world.vault.lock(new_id(), is_exclusive=is_exclusive):
                pytest.fail("must not be entered")
        assert world.store.faults or actor == "writer"
        world.vault.close()
