"""The numbers that issue 4 asks for, and whether a measurement meets them. They are shown, and never asserted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Quantity = Literal["seconds", "stored", "peak"]
Verdict = Literal["met", "missed"]
PEAK = "refloat itself"


@dataclass(frozen=True)
class Goal:
    """Of ``quantity`` in one row: at least ``must`` times better than the peer, ``aim`` is hoped for.

    The ratio is the peer's median by refloat's: above 1, refloat is faster or smaller. ``peak`` is no ratio: at most
    so many bytes in the largest of all rounds.
    """

    set: str
    work: str
    peer: str
    quantity: Quantity
    must: float
    aim: float | None = None

    def judge(self, value: float) -> tuple[Verdict, Verdict | None]:
        """Whether must and aim are met by a ratio, or by a peak in bytes."""

        def verdict(bar: float) -> Verdict:
            return "met" if (value <= bar if self.quantity == "peak" else value >= bar) else "missed"

        return verdict(self.must), None if self.aim is None else verdict(self.aim)


WORKS = ("first", "incremental", "restore")
SETS = ("big", "small", "s3-big", "s3-small", "device")


def _against_restic() -> list[Goal]:
    numbers = {
        ("big", "first"): (2.0, 3.0),
        ("big", "incremental"): (3.0, 4.0),
        ("big", "restore"): (1.3, 2.0),
        ("small", "first"): (1.6, 2.0),
        ("small", "incremental"): (1.6, 2.0),
        ("small", "restore"): (1.5, 2.0),
        ("device", "first"): (2.0, 4.0),
        ("device", "restore"): (2.0, 4.0),
        **{(each, work): (1.0, 2.0) for each in ("s3-big", "s3-small") for work in WORKS},
    }
    speed = [Goal(where, work, "restic", "seconds", must, aim) for (where, work), (must, aim) in numbers.items()]
    return [
        *speed,
        Goal("big", "first", "restic", "stored", 1.0),
        Goal("big", "incremental", "restic", "stored", 2.0, 4.0),
    ]


GOALS: tuple[Goal, ...] = (
    *_against_restic(),
    *(Goal(each, work, "kopia", "seconds", 1.0, 2.0) for each in ("big", "small") for work in WORKS),
    *(Goal(each, work, PEAK, "peak", 200e6, 120e6) for each in SETS for work in WORKS),
)


def goals_of(set_name: str) -> list[Goal]:
    """Of one set of data, in the order of its rows."""
    return [goal for work in WORKS for goal in GOALS if (goal.set, goal.work) == (set_name, work)]
