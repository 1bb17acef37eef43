"""Prune: what no snapshot record leads to is removed, in an order that may break off anywhere without losing anything.

New packs, then the index files that name them, then the superseded index files go, then the packs that nobody names
(restic's design document asks for that order). Broken off, the next prune removes what was left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from refloat.clock import now
from refloat.errors import IntegrityError, LeaseHeld
from refloat.progress import Event, emit
from vault.bits import Bits
from vault.files import FileKind, key_of, stored
from vault.index_files import IndexWriter, packs_named
from vault.judging import KnownDead, nobody_is_known_dead
from vault.locks import HeldLock
from vault.prune_plan import GRACE, MAX_UNUSED, Action, PrunePlan, make_plan
from vault.reading import BlobReader
from vault.repacking import Repacker
from vault.repository import REQUESTS, OpenVault

STEP = "prune"
TOLD_EVERY = 64
"""Index files between two notes."""


@dataclass(frozen=True)
class Pruned:
    """What a prune did."""

    packs_removed: int
    packs_written: int
    blobs_moved: int
    index_files_removed: int
    index_files_written: int
    freed_bytes: int

    def as_json(self) -> dict[str, Any]:
        """For scripts."""
        return dict(vars(self))


def plan_prune(vault: OpenVault, *, run: str, max_unused: float = MAX_UNUSED, grace: timedelta = GRACE) -> PrunePlan:
    """What a prune would do now, made while others may write; nothing is changed.

    Raises:
        LeaseHeld: Somebody removes from the vault right now.
        IntegrityError: Something that is used, or could be, is missing or damaged.
    """
    with vault.lock(run) as lock:
        emit(Event(STEP, "note", "marking what snapshot records lead to"))
        return make_plan(vault, store_at=now() + lock.skew, max_unused=max_unused, grace=grace)


def prune(
    vault: OpenVault,
    *,
    run: str,
    max_unused: float = MAX_UNUSED,
    grace: timedelta = GRACE,
    is_dead: KnownDead = nobody_is_known_dead,
    show: Callable[[PrunePlan], None] = lambda _: None,
) -> Pruned:
    """Plan under an exclusive lock, show the plan, and carry it out.

    Raises:
        LeaseHeld: Somebody uses the vault, wrote to it in spite of the lock, or the lock was lost: nothing is removed
            from then on.
        ClocksDisagree: This machine's clock and the store's differ.
        IntegrityError: Something that is used, or could be, is missing or damaged; nothing was removed.
    """
    with vault.lock(run, is_exclusive=True, is_dead=is_dead) as lock:
        emit(Event(STEP, "note", "marking what snapshot records lead to"))
        plan = make_plan(vault, store_at=now() + lock.skew, max_unused=max_unused, grace=grace)
        show(plan)
        try:
            return _Prune(vault, plan, lock).run()
        finally:
            vault.forget_index()


class _Prune:
    """One plan being carried out."""

    def __init__(self, vault: OpenVault, plan: PrunePlan, lock: HeldLock) -> None:
        self._vault, self._plan, self._lock = vault, plan, lock
        self._index = IndexWriter(vault.files)
        self._repacker = Repacker(vault.files, BlobReader(vault.files, plan.index), self._index)
        self._named = Bits(len(plan.packs))
        """Packs that were dealt with: an index file that stays, or a new one, names what is used of them."""
        self._index_files = {name: found.size_bytes for name, found in stored(vault.store, FileKind.INDEX)}
        self._superseded: list[str] = []

    def run(self) -> Pruned:
        plan = self._plan
        emit(Event(STEP, "note", f"repacking {plan.count(Action.REPACK)}, removing {plan.count(Action.REMOVE)} packs"))
        self._write()
        self._refuse_company()
        self._remove(FileKind.INDEX, iter(self._superseded))
        self._remove(FileKind.PACK, (fate.pack.hex() for fate in self._plan.fates() if fate.size_bytes))
        return Pruned(
            packs_removed=sum(1 for fate in self._plan.fates() if fate.size_bytes),
            packs_written=self._repacker.packs,
            blobs_moved=self._repacker.blobs,
            index_files_removed=len(self._superseded),
            index_files_written=len(self._index.written),
            freed_bytes=sum(fate.size_bytes for fate in self._plan.fates()) - self._repacker.bytes,
        )

    def _write(self) -> None:
        """Everything that is used is in packs that stay, and named by index files that stay.

        Raises:
            IntegrityError: It is not; nothing was removed.
        """
        used = 0
        sizes = self._index_files
        for done, (name, text) in enumerate(self._vault.read_many(FileKind.INDEX, list(sizes), sizes), 1):
            if text is None:
                raise IntegrityError(f"index/{name} of {self._vault.url} vanished under the exclusive lock")
            used += self._rewrite(name, packs_named(text))
            if done % TOLD_EVERY == 0:
                emit(Event(STEP, "note", f"{done} of {len(sizes)} index files, {self._repacker.blobs} blobs repacked"))
        self._repacker.finish()
        self._index.flush()
        if used != len(self._plan.marks):
            raise IntegrityError(
                f"only {used} of {len(self._plan.marks)} used blobs would be left in {self._vault.url}; "
                "nothing was removed"
            )

    def _rewrite(self, name: str, packs: list[bytes]) -> int:
        """Deal with what one index file names; how many used blobs that saved.

        Raises:
            LeaseHeld: It was written after the plan was made.
        """
        numbers = [self._plan.packs.number(pack) for pack in packs]
        if None in numbers:
            raise self._company(FileKind.INDEX, name)
        stays = all(self._plan.action(pack) is Action.KEEP for pack in packs)
        if not stays:
            self._superseded.append(name)
        used = 0
        for pack, number in zip(packs, numbers, strict=True):
            if number is None or number in self._named:
                continue
            self._named.add(number)
            mine = self._plan.used_of(pack)
            used += len(mine)
            if self._plan.action(pack) is Action.REPACK:
                self._repacker.move(pack, mine)
            elif self._plan.action(pack) is Action.KEEP and not stays:
                self._index.add(pack, self._plan.index.blobs_of(pack))
        return used

    def _refuse_company(self) -> None:
        """Whoever wrote in spite of the lock may refer to what is about to be removed.

        Raises:
            LeaseHeld: There is a snapshot record or an index file that was not there before.
        """
        known = {
            FileKind.SNAPSHOT: self._plan.snapshots,
            FileKind.INDEX: {*self._index_files, *self._index.written},
        }
        for kind, names in known.items():
            for name, _ in stored(self._vault.store, kind):
                if name not in names:
                    raise self._company(kind, name)

    def _company(self, kind: FileKind, name: str) -> LeaseHeld:
        return LeaseHeld(
            f"{key_of(kind, name)} of {self._vault.url} was written in spite of the exclusive lock; "
            "nothing was removed",
            guidance="Find out who writes without a lock, then prune again.",
        )

    def _remove(self, kind: FileKind, names: Iterator[str]) -> None:
        self._lock.confirm()
        with ThreadPoolExecutor(REQUESTS, thread_name_prefix=f"remove {kind.value}") as pool:
            for _ in pool.map(lambda name: self._delete(key_of(kind, name)), names):
                pass

    def _delete(self, key: str) -> None:
        self._lock.require()
        self._vault.store.delete(key)
