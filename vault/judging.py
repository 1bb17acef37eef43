"""Judging vault locks: who holds each, since when, and whether its holder lives; judged with a reason, never guessed.

A lock is stale when it is older than 30 minutes by its own time and by the store's: the period of restic's
``internal/repository``; its holder gives it up before. It is dead when its holder is known to have ended.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

import orjson

from refloat.clock import CLOCK_ALLOWANCE, now
from refloat.errors import IntegrityError, NotFound, RefloatError
from refloat.ports.object_store import ObjectStore, StoredObject
from vault.files import FileKind, SealedFiles, key_of, require_small, stored
from vault.instants import parse_instant, to_datetime
from vault.processes import is_gone

STALE = timedelta(minutes=30)
RUN = "refloat-"
"""What the user name in a lock of ours begins with; the run's id follows."""

KnownDead = Callable[[str], bool]
"""Whether the run of that id is known to have ended."""


class Verdict(Enum):
    """What a lock is."""

    LIVE = "live"
    STALE = "stale"
    DEAD = "dead"
    UNREADABLE = "unreadable"
    CLOCKS = "clocks disagree"


@dataclass(frozen=True)
class JudgedLock:
    """One vault lock. Unreadable ones have no holder, time or kind. ``stored_at`` is by the store's clock."""

    name: str
    verdict: Verdict
    reason: str
    who: str
    stored_at: datetime
    taken_at: datetime | None = None
    is_exclusive: bool | None = None

    @property
    def is_left_behind(self) -> bool:
        """Whether it may be removed without asking anybody."""
        return self.verdict in (Verdict.STALE, Verdict.DEAD)

    def as_json(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "name": self.name,
            "verdict": self.verdict.value,
            "reason": self.reason,
            "who": self.who,
            "is_exclusive": self.is_exclusive,
            "taken_at": self.taken_at.isoformat() if self.taken_at else None,
            "stored_at": self.stored_at.isoformat(),
        }


def nobody_is_known_dead(run: str) -> bool:
    """What is known of runs where nobody keeps a list: nothing."""
    del run
    return False


def judge(
    files: SealedFiles, *, store_at: datetime | None = None, is_dead: KnownDead = nobody_is_known_dead
) -> list[JudgedLock]:
    """Every lock of a vault, oldest first. ``store_at``: what the store's clock says now, when that is known.

    Raises:
        ProviderError: The store does not answer.
    """
    court = _Court(files, now(), store_at, is_dead)
    found = [judged for name, facts in stored(files.store, FileKind.LOCK) if (judged := court.judge(name, facts))]
    return sorted(found, key=lambda lock: (lock.stored_at, lock.name))


def read_store_clock(store: ObjectStore) -> datetime:
    """What the store's clock says now: one small object is written beside the vault, looked at, and removed.

    Raises:
        ProviderError: The store refuses that.
    """
    key = f"refloat/probe/{secrets.token_hex(8)}"
    store.put(key, b"", if_absent=True)
    try:
        return store.stat(key).modified_at
    finally:
        with suppress(RefloatError):
            store.delete(key)


class _Court:
    """Judges the locks of one vault at one instant."""

    def __init__(self, files: SealedFiles, at: datetime, store_at: datetime | None, is_dead: KnownDead) -> None:
        self._files, self._at, self._store_at, self._is_dead = files, at, store_at or at, is_dead

    def judge(self, name: str, found: StoredObject) -> JudgedLock | None:
        """None for a lock that was released since it was listed."""
        try:
            require_small(FileKind.LOCK, name, found.size_bytes)
            lock: dict[str, Any] = orjson.loads(self._files.read(FileKind.LOCK, name))
            taken_at = to_datetime(parse_instant(lock["time"]))
            user = str(lock.get("username"))
            who = f"{user}@{lock.get('hostname')}, process {lock.get('pid')}"
            is_exclusive = bool(lock.get("exclusive", False))
        except NotFound:
            return None
        except (IntegrityError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
            reason = f"{key_of(FileKind.LOCK, name)} cannot be read: whose it is, nobody knows"
            return JudgedLock(name, Verdict.UNREADABLE, reason, "unknown", found.modified_at)
        if lock.get("hostname") == socket.gethostname() and is_gone(lock.get("pid"), lock.get("refloat")):
            verdict, reason = Verdict.DEAD, "its process has ended on this machine"
        elif user.startswith(RUN) and self._is_dead(user.removeprefix(RUN)):
            verdict, reason = Verdict.DEAD, f"run {user.removeprefix(RUN)} is known to have ended"
        else:
            verdict, reason = self._by_time(taken_at, found.modified_at)
        return JudgedLock(name, verdict, reason, who, found.modified_at, taken_at, is_exclusive)

    def _by_time(self, taken_at: datetime, stored_at: datetime) -> tuple[Verdict, str]:
        by_own, by_store = self._at - taken_at, self._store_at - stored_at
        skew = self._at - self._store_at
        if abs(skew) > CLOCK_ALLOWANCE:
            return Verdict.CLOCKS, f"this machine's clock and the store's differ by {_span(skew)}"
        if min(by_own, by_store) < -CLOCK_ALLOWANCE:
            return Verdict.CLOCKS, f"it is of the future, by {_span(min(by_own, by_store))}"
        if (by_own > STALE) != (by_store > STALE):
            return Verdict.CLOCKS, f"it is {_span(by_own)} old by its own time, {_span(by_store)} by the store's"
        if by_own > STALE:
            return Verdict.STALE, f"not refreshed for {_span(min(by_own, by_store))}"
        return Verdict.LIVE, f"refreshed {_span(max(by_own, by_store))} ago"


def _span(value: timedelta) -> str:
    """A length of time in whole minutes, or seconds below two of them."""
    seconds = abs(round(value.total_seconds()))
    return f"{seconds} s" if seconds < 120 else str(timedelta(minutes=round(seconds / 60)))[:-3] + " h"
