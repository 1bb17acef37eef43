"""Waiting in tests until something is so, by looking."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from refloat.clock import Deadline, pause

WITHIN = timedelta(seconds=40)
LOOK = timedelta(milliseconds=20)


def until(is_so: Callable[[], object], what: str, within: timedelta = WITHIN, every: timedelta = LOOK) -> None:
    """Look until it is so; fails when it is not ``within`` that time."""
    deadline = Deadline.after(within)
    while not is_so():
        assert not deadline.is_over, f"not within {within}: {what}"
        pause(every)
