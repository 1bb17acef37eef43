"""The vault lock: restic's lock file, held by a run so that nobody prunes meanwhile, or exclusively by who removes.

It is courtesy, not mutual exclusion: no step of the protocol is atomic. Restic's design document, "Locks"; periods as
in restic's ``internal/repository/lock.go``.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import orjson

from refloat.clock import CLOCK_ALLOWANCE, monotonic_seconds, now, pause
from refloat.errors import ClocksDisagree, LeaseHeld, NotFound, RefloatError
from vault.files import FileKind, SealedFiles, key_of
from vault.instants import format_instant, to_nanoseconds
from vault.judging import RUN, STALE, JudgedLock, KnownDead, Verdict, judge, nobody_is_known_dead
from vault.processes import mark_of

REFRESH = timedelta(minutes=5)
LOST = timedelta(minutes=22, seconds=30)
"""Without a refresh for so long, the lock is no longer believed to be ours."""
RETRY = timedelta(seconds=20)
"""Pause after a refresh that failed."""
SETTLE = timedelta(milliseconds=200)
"""Between writing the lock and looking again: time for a lock written at the same moment to appear in the listing."""


@contextmanager
def hold(
    files: SealedFiles,
    run: str,
    *,
    is_exclusive: bool = False,
    refresh: timedelta = REFRESH,
    lapses_after: timedelta = LOST,
    is_dead: KnownDead = nobody_is_known_dead,
) -> Iterator[HeldLock]:
    """Hold a lock while the block runs, refreshed by a thread; it is removed also when the block fails.

    Who holds it exclusively and is about to delete asks ``HeldLock.require`` before every deletion.

    Raises:
        LeaseHeld: Somebody holds a conflicting lock, or an unreadable one lies there; or, at the end, the own lock
            could not be refreshed in time, or somebody removed it, so that pruning may have run meanwhile.
        ClocksDisagree: An exclusive lock is wanted, and this machine's clock and the store's differ.
    """
    refuse_conflicts(files, is_exclusive=is_exclusive, is_dead=is_dead)
    lock = HeldLock(files, run, refresh, lapses_after, is_exclusive=is_exclusive)
    try:
        lock.compare_clocks()
        pause(SETTLE)
        refuse_conflicts(files, but=lock.name, is_exclusive=is_exclusive, is_dead=is_dead, store_at=now() + lock.skew)
        lock.start()
        yield lock
    except BaseException as failure:
        try:
            lock.release()
        except RefloatError as also:
            failure.add_note(f"the vault lock of run {run} could not be removed: {also}")
        raise
    lock.release()
    lock.raise_if_lapsed()


def refuse_conflicts(
    files: SealedFiles,
    *,
    but: str = "",
    is_exclusive: bool = False,
    is_dead: KnownDead = nobody_is_known_dead,
    store_at: datetime | None = None,
) -> None:
    """Look for locks that conflict with one of ours. ``but``: the own lock's name.

    Who shares the vault passes over stale locks. Who removes from it does not: a lock that only looks old by clocks is
    for a person to judge; it passes over those whose holders are known to have ended.

    Raises:
        LeaseHeld: There is one.
    """
    for lock in judge(files, store_at=store_at, is_dead=is_dead):
        if lock.name == but or lock.verdict is Verdict.DEAD:
            continue
        if is_exclusive or _excludes_others(lock):
            raise _refusal(files, lock)


def _excludes_others(lock: JudgedLock) -> bool:
    if lock.verdict is Verdict.UNREADABLE:
        return now() - lock.stored_at < STALE
    return bool(lock.is_exclusive) and lock.verdict is not Verdict.STALE


def _refusal(files: SealedFiles, lock: JudgedLock) -> LeaseHeld:
    if lock.verdict is Verdict.UNREADABLE:
        return LeaseHeld(f"{files.store.url}: {lock.reason}", lock=lock.name)
    since = f"{lock.taken_at:%Y-%m-%d %H:%M:%S}Z" if lock.taken_at else "?"
    how = "locked exclusively" if lock.is_exclusive else "in use"
    return LeaseHeld(
        f"{files.store.url} is {how} by {lock.who} since {since} ({lock.verdict.value}: {lock.reason})", lock=lock.name
    )


def remove_locks(files: SealedFiles, locks: Iterable[JudgedLock]) -> None:
    """Remove locks; one that is gone already is fine.

    Raises:
        ProviderError: The store refuses.
    """
    for lock in locks:
        files.store.delete(key_of(FileKind.LOCK, lock.name))


class HeldLock:
    """One lock file after the other, each written before the last is removed."""

    def __init__(
        self, files: SealedFiles, run: str, refresh: timedelta, lapses_after: timedelta, *, is_exclusive: bool
    ) -> None:
        self._files, self._run, self._refresh, self._limit = files, run, refresh, lapses_after
        self._is_exclusive = is_exclusive
        self._ended = threading.Event()
        self._longest_gap = 0.0
        self._failure: RefloatError | None = None
        self._was_removed = False
        self._thread = threading.Thread(target=self._keep, name=f"vault lock of run {run}", daemon=True)
        self.skew = timedelta(0)
        """The store's clock minus ours, when the lock was taken."""
        self._written_at, self._written_wall = monotonic_seconds(), now()
        self.name = self._write()

    def compare_clocks(self) -> None:
        """Ask the store when it received the lock.

        Raises:
            ClocksDisagree: It is an exclusive one, and the clocks differ.
            LeaseHeld: It is gone already.
        """
        try:
            received_at = self._files.store.stat(key_of(FileKind.LOCK, self.name)).modified_at
        except NotFound as gone:
            raise LeaseHeld(f"the vault lock of run {self._run} was removed as soon as it was written") from gone
        self.skew = received_at - self._written_wall
        if self._is_exclusive and abs(self.skew) > CLOCK_ALLOWANCE:
            raise ClocksDisagree(
                f"the clock of {self._files.store.url} and this machine's differ by {abs(self.skew)}; "
                "nothing was deleted"
            )

    def start(self) -> None:
        """Begin to refresh."""
        self._thread.start()

    def require(self) -> None:
        """Go on only while the lock is ours; asked before every deletion.

        The wall clock counts too: a machine that slept did not see its other clock move.

        Raises:
            LeaseHeld: It could not be refreshed in time, or somebody removed it.
        """
        self._note_gap(slept=now() - self._written_wall)
        self.raise_if_lapsed()

    def confirm(self) -> None:
        """Like ``require``, and look whether the lock is still there: asked once before a row of deletions.

        Raises:
            LeaseHeld: It could not be refreshed in time, or somebody removed it.
        """
        self.require()
        name = self.name
        try:
            self._files.store.stat(key_of(FileKind.LOCK, name))
        except NotFound:
            self._was_removed = self._was_removed or name == self.name  # else it was refreshed at this moment
        self.raise_if_lapsed()

    def release(self) -> None:
        """Stop refreshing and remove the lock.

        Raises:
            ProviderError: The store refuses.
        """
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._note_gap()
        self._files.store.delete(key_of(FileKind.LOCK, self.name))

    def raise_if_lapsed(self) -> None:
        """Whether others may have held the vault as theirs while this lock was thought to be held.

        Raises:
            LeaseHeld: They may.
        """
        guidance = "Verify the newest recovery point in full; if that fails, protect again."
        if self._is_exclusive:
            guidance = "Run again: what was begun is finished then."
        if self._was_removed:
            raise LeaseHeld(f"somebody removed the vault lock of run {self._run} while it was held", guidance=guidance)
        if self._longest_gap >= self._limit.total_seconds():
            raise LeaseHeld(
                f"the vault lock of run {self._run} could not be refreshed for {self._longest_gap:.0f} s: "
                "others may have held the vault as theirs meanwhile",
                guidance=guidance,
            ) from self._failure

    def _keep(self) -> None:
        rest = self._refresh
        while not pause(rest, until=self._ended):
            try:
                self._renew()
                rest = self._refresh
            except RefloatError as failure:
                self._failure = failure
                rest = min(RETRY, self._refresh)

    def _renew(self) -> None:
        old = key_of(FileKind.LOCK, self.name)
        try:
            self._files.store.stat(old)
        except NotFound:
            self._was_removed = True
        at, wall = monotonic_seconds(), now()
        self.name = self._write()
        self._note_gap()
        self._written_at, self._written_wall = at, wall
        self._files.store.delete(old)

    def _note_gap(self, *, slept: timedelta = timedelta(0)) -> None:
        self._longest_gap = max(self._longest_gap, monotonic_seconds() - self._written_at, slept.total_seconds())

    def _write(self) -> str:
        lock = {
            "time": format_instant(to_nanoseconds(now())),
            "exclusive": self._is_exclusive,
            "hostname": socket.gethostname(),
            "username": RUN + self._run,  # a janitor that knows the run can judge its lock
            "pid": os.getpid(),
            "uid": os.getuid(),
            "gid": os.getgid(),
            "refloat": mark_of(os.getpid()),  # restic passes over what it does not know
        }
        return self._files.write(FileKind.LOCK, orjson.dumps(lock))
