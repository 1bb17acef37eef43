"""The vault lock: restic's non-exclusive lock file, held by one run from before its first mover until after its seal.

It keeps pruning away from blobs that no recovery point refers to yet. It is courtesy, not mutual exclusion: no step
of the protocol is atomic. Restic's design document, "Locks"; periods as in restic's ``internal/restic/lock.go``.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import orjson

from refloat.clock import monotonic_seconds, now, pause
from refloat.errors import IntegrityError, LeaseHeld, NotFound, RefloatError
from refloat.ports.object_store import StoredObject
from vault.files import FileKind, SealedFiles, key_of, stored
from vault.instants import format_instant, parse_instant, to_datetime, to_nanoseconds

REFRESH = timedelta(minutes=5)
STALE = timedelta(minutes=30)
RETRY = timedelta(seconds=20)
"""Pause after a refresh that failed."""
SETTLE = timedelta(milliseconds=200)
"""Between writing the lock and looking again: time for a lock written at the same moment to appear in the listing."""


@contextmanager
def hold(
    files: SealedFiles, run: str, *, refresh: timedelta = REFRESH, lapses_after: timedelta = STALE
) -> Iterator[None]:
    """Hold a non-exclusive lock while the block runs, refreshed by a thread; it is removed also when the block fails.

    Raises:
        LeaseHeld: Somebody holds an exclusive lock, or an unreadable one lies there; or, at the end, the own lock could
            not be refreshed in time, so that pruning may have run meanwhile.
    """
    refuse_conflicts(files)
    lock = _HeldLock(files, run, refresh)
    try:
        pause(SETTLE)
        refuse_conflicts(files)
        lock.start()
        yield
    except BaseException as failure:
        try:
            lock.release()
        except RefloatError as also:
            failure.add_note(f"the vault lock of run {run} could not be removed: {also}")
        raise
    lock.release()
    lock.raise_if_lapsed(lapses_after)


def refuse_conflicts(files: SealedFiles) -> None:
    """Look for a live exclusive lock.

    restic's other rule for stale locks, same hostname and no such process, is not applied: pods on the host network
    share the node's hostname and have process numbers of their own.

    Raises:
        LeaseHeld: There is one, or a lock that cannot be read.
    """
    for name, found in stored(files.store, FileKind.LOCK):
        try:
            lock: dict[str, Any] = orjson.loads(files.read(FileKind.LOCK, name))
            at = to_datetime(parse_instant(lock["time"]))
            who = f"{lock.get('username')}@{lock.get('hostname')}, process {lock.get('pid')}"
            is_exclusive = bool(lock["exclusive"])
        except NotFound:
            continue  # released since it was listed
        except (IntegrityError, ValueError, KeyError, TypeError) as unreadable:
            if _is_live(found, found.modified_at):
                raise LeaseHeld(f"{key_of(FileKind.LOCK, name)} of {files.store.url} cannot be read") from unreadable
            continue
        if is_exclusive and _is_live(found, at):
            raise LeaseHeld(
                f"{files.store.url} is locked exclusively by {who} since {at:%Y-%m-%d %H:%M:%S}Z", lock=name
            )


def _is_live(found: StoredObject, at: datetime) -> bool:
    """By the later of its own time and the store's: a clock that runs behind must not make a live lock look stale."""
    return now() - max(at, found.modified_at) < STALE


class _HeldLock:
    """One lock file after the other, each written before the last is removed."""

    def __init__(self, files: SealedFiles, run: str, refresh: timedelta) -> None:
        self._files, self._run, self._refresh = files, run, refresh
        self._ended = threading.Event()
        self._longest_gap = 0.0
        self._failure: RefloatError | None = None
        self._thread = threading.Thread(target=self._keep, name=f"vault lock of run {run}", daemon=True)
        self._written_at = monotonic_seconds()
        self._name = self._write()

    def start(self) -> None:
        self._thread.start()

    def release(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._note_gap()
        self._files.store.delete(key_of(FileKind.LOCK, self._name))

    def raise_if_lapsed(self, limit: timedelta) -> None:
        if self._longest_gap >= limit.total_seconds():
            raise LeaseHeld(
                f"the vault lock of run {self._run} could not be refreshed for {self._longest_gap:.0f} s: "
                "others may have held the vault as theirs meanwhile",
                guidance="Verify the newest recovery point in full; if that fails, protect again.",
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
        old = self._name
        self._name = self._write()
        self._note_gap()
        self._written_at = monotonic_seconds()
        self._files.store.delete(key_of(FileKind.LOCK, old))

    def _note_gap(self) -> None:
        self._longest_gap = max(self._longest_gap, monotonic_seconds() - self._written_at)

    def _write(self) -> str:
        lock = {
            "time": format_instant(to_nanoseconds(now())),
            "exclusive": False,
            "hostname": socket.gethostname(),
            "username": f"refloat-{self._run}",  # a janitor that knows the run can judge its lock
            "pid": os.getpid(),
            "uid": os.getuid(),
            "gid": os.getgid(),
        }
        return self._files.write(FileKind.LOCK, orjson.dumps(lock))
