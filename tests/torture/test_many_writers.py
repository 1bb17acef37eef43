"""Bar 14: four writers, expiry, prune, verify and copy on one vault, in a random mix of processes, against a model."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from refloat.clock import Deadline, pause
from refloat.errors import LeaseHeld
from refloat.policy import Retention
from refloat.recovery_point import CataloguedPoint, new_id
from refloat.registry import open_object_store
from tests.tools.restic import find, restic
from tests.vault.given import MANIFEST, PASSWORD, facts, point_over, reopened, tree_of
from vault.archive import archive
from vault.catalogue import points, seal
from vault.copying import copy, open_far_end
from vault.expiry import expire, plan_expiry
from vault.extract import extract
from vault.prune import prune
from vault.repository import OpenVault, init
from vault.tally import Tally
from vault.verify import verify

WRITERS = 4
FILES, POOL, FILE_BYTES = 12, 40, 20_000
"""Files of a volume, and how many contents there are for them all: what was pruned comes back."""
RULES = Retention(hourly=3)
FIRST = timedelta(hours=-50_000)
"""The first point's time: the later ones follow by the hour and never reach the present."""
REST_SECONDS, RETRY_SECONDS = 2.0, 0.1
"""At most, between two acts, and after a refusal: who wants the vault alone waits for a moment when nobody is at it."""
NO_GRACE = timedelta(0)


class Actor:
    """One process with a journal: one JSON line for whatever it did, ``violation`` for what must never happen."""

    def __init__(self, name: str, place: Path, folder: Path, rng: random.Random) -> None:
        self.name, self.place, self.folder, self.rng = name, place, folder / name, rng
        self.journal = folder / f"{name}.journal"
        self.folder.mkdir()

    def run(self, deadline: Deadline) -> None:
        """Act until the deadline, and at least once."""
        number = 0
        while not deadline.is_over or not number:
            rest = REST_SECONDS
            try:
                with self.opened() as vault:
                    self.act(vault, number)
                number += 1
            except LeaseHeld as held:
                self.note("refused", by=str(held))
                rest = RETRY_SECONDS
            except Exception:  # noqa: BLE001 - whatever it is, it must not happen
                self.note("violation", trace=traceback.format_exc())
                return
            pause(timedelta(seconds=self.rng.uniform(0, rest)))

    def act(self, vault: OpenVault, number: int) -> None:
        raise NotImplementedError

    @contextmanager
    def opened(self) -> Iterator[OpenVault]:
        vault = reopened(self.place)
        try:
            yield vault
        finally:
            vault.close()

    def note(self, what: str, **facts: Any) -> None:
        with self.journal.open("a") as file:
            file.write(json.dumps({"what": what, **facts}) + "\n")

    def notes(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.journal.read_text().splitlines()] if self.journal.exists() else []


class Writer(Actor):
    def act(self, vault: OpenVault, number: int) -> None:
        source = self.folder / "source"
        source.mkdir(exist_ok=True)
        for each in self.rng.sample(range(FILES), 4):
            (source / f"file {each}").write_bytes(random.Random(self.rng.randrange(POOL)).randbytes(FILE_BYTES))
        with vault.lock(new_id()):
            known = points(vault, self.name)
            parent = tree_of(known[-1]) if known and self.rng.random() < 0.8 else None
            done = archive(vault, source, Tally(), parent=parent)
            after = FIRST + timedelta(hours=number)
            point = seal(vault, point_over(("data", done), application=self.name, after=after), {MANIFEST: b"{}"})
        self.note("sealed", id=point.point.id, digest=_digest(source))


class Keeper(Actor):
    def act(self, vault: OpenVault, number: int) -> None:
        names = sorted({each.point.application for each in points(vault)})
        if names:
            name = self.rng.choice(names)
            gone = expire(vault, plan_expiry(vault, name, RULES), RULES, run=new_id())
            self.note("expired", ids=[point.id for point in gone])


class Pruner(Actor):
    def act(self, vault: OpenVault, number: int) -> None:
        done = prune(vault, run=new_id(), max_unused=self.rng.choice((0, 0.05, 0.3)), grace=NO_GRACE)
        self.note("pruned", packs=done.packs_removed, moved=done.blobs_moved)


class Verifier(Actor):
    def act(self, vault: OpenVault, number: int) -> None:
        with vault.lock(new_id()):
            for point in points(vault)[-3:]:
                verify(vault, point, level=self.rng.choice(("sample", "full")))  # type: ignore[arg-type]
                self.note("verified", id=point.point.id)


class Copier(Actor):
    def act(self, vault: OpenVault, number: int) -> None:
        far = open_far_end(vault, open_object_store(f"file://{self.folder}/far", {}), lambda: (PASSWORD, None))
        try:
            done = copy(vault, far)
            done.raise_if_damaged()
        finally:
            far.vault.close()
        self.note("copied", points=len(done.points))


@pytest.mark.timeout(3 * 60 * 60)
def test_a_mix_of_writers_never_breaks_the_vault(ram: Path, rounds: Callable[[int, int], int], seed: int) -> None:
    """What the journals say was sealed and not expired is there, byte for byte; nobody ever met damage."""
    place, rng = ram / "vault", random.Random(seed)
    init(open_object_store(f"file://{place}", {}), PASSWORD).close()
    kinds = [*[Writer] * WRITERS, Keeper, Pruner, Verifier, Copier]
    actors = [
        kind(f"{kind.__name__.lower()}-{number}", place, ram, random.Random(rng.randrange(1 << 32)))
        for number, kind in enumerate(kinds)
    ]
    seconds = int(os.environ.get("REFLOAT_SECONDS") or rounds(5, 2 * 60 * 60))
    deadline = Deadline.after(timedelta(seconds=seconds))
    processes = [multiprocessing.get_context("fork").Process(target=actor.run, args=(deadline,)) for actor in actors]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    notes = [note for actor in actors for note in actor.notes()]
    told = Counter(note["what"] for note in notes)
    removed = sum(note["packs"] for note in notes if note["what"] == "pruned")
    print(f"{dict(told)}; packs removed {removed}")
    assert not [note["trace"] for note in notes if note["what"] == "violation"]
    assert {process.exitcode for process in processes} == {0}
    _settle(actors, place)
    notes = [note for actor in actors for note in actor.notes()]
    sealed = {note["id"]: note["digest"] for note in notes if note["what"] == "sealed"}
    expired = {each for note in notes if note["what"] == "expired" for each in note["ids"]}
    _compare(place, {point_id: sealed[point_id] for point_id in sealed.keys() - expired}, ram / "out")
    _compare(actors[-1].folder / "far", sealed, ram / "out", is_all=False)
    assert told["sealed"] >= WRITERS
    assert told["refused"], "nobody ever met a lock: this was no mix"
    assert told["pruned"]
    assert removed or told["sealed"] < 100


def _settle(actors: list[Actor], place: Path) -> None:
    """Once everybody is still: one more expiry of each kind, prune and copy, which nobody holds off any more."""
    vault = reopened(place)
    for actor in actors:
        if isinstance(actor, Writer):
            gone = expire(vault, plan_expiry(vault, actor.name, RULES), RULES, run=new_id())
            actor.note("expired", ids=[point.id for point in gone])
    prune(vault, run=new_id(), max_unused=0, grace=NO_GRACE)
    actors[-1].act(vault, 0)
    vault.close()


def _compare(place: Path, expected: dict[str, str], out: Path, *, is_all: bool = True) -> None:
    """The vault's points are those of the model (or some of them), whole and byte for byte; restic agrees."""
    vault = reopened(place)
    found: list[CataloguedPoint] = points(vault)
    ids = {point.point.id for point in found}
    assert ids == expected.keys() if is_all else ids <= expected.keys()
    assert found
    for point in found[-40:]:
        verify(vault, point, level="full")
        out.mkdir()
        extract(vault, tree_of(point), out, Tally())
        assert _digest(out) == expected[point.point.id]
        for path in out.iterdir():
            path.unlink()
        out.rmdir()
    vault.close()
    if find() is not None:
        assert "no errors were found" in restic(str(place), PASSWORD, "check", "--read-data", "--no-lock")


def _digest(folder: Path) -> str:
    return sha256(repr(sorted(facts(folder).items())).encode()).hexdigest()
