"""The only caller of the system clock: now, deadlines and pauses, so that tests can own time."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

CLOCK_ALLOWANCE = timedelta(minutes=10)
"""Clocks that differ by more are not believed, and nothing is deleted on their word."""


def now() -> datetime:
    """The present instant, aware, in UTC."""
    return datetime.now(UTC)


def monotonic_seconds() -> float:
    """Seconds on a clock that never goes back, for measuring durations."""
    return time.monotonic()


def pause(duration: timedelta, *, until: threading.Event | None = None) -> bool:
    """Wait ``duration``, or less when ``until`` is set meanwhile; returns whether it was set."""
    return (until or threading.Event()).wait(max(0.0, duration.total_seconds()))


@dataclass(frozen=True)
class Deadline:
    """A point on the monotonic clock after which waiting is over."""

    ends_at_seconds: float

    @classmethod
    def after(cls, duration: timedelta) -> Deadline:
        """A deadline ``duration`` from now."""
        return cls(monotonic_seconds() + duration.total_seconds())

    @property
    def is_over(self) -> bool:
        """Whether no time is left."""
        return self.remaining <= timedelta(0)

    @property
    def remaining(self) -> timedelta:
        """Time left; negative once it is over."""
        return timedelta(seconds=self.ends_at_seconds - monotonic_seconds())
