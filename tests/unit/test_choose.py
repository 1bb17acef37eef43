"""Choosing a recovery point: the right one or a named error, never nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from refloat.choosing import select
from refloat.errors import NoEligibleRecoveryPoint
from refloat.plan import Objective
from refloat.recovery_point import CataloguedPoint, RecoveryPoint
from refloat.values import Consistency

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def point(number: int) -> CataloguedPoint:
    """The point cut ``number`` minutes after noon."""
    at = NOON + timedelta(minutes=number)
    made = RecoveryPoint(
        id=f"{number:02x}" * 8, application="shop", cluster="a", run="0" * 16, started_at=at, cut_at=at,
        sealed_at=at + timedelta(minutes=30), consistency=Consistency.CRASH, cut_method="none", objects=(), volumes=(),
        refloat_version="0",
    )  # fmt: skip
    return CataloguedPoint(point=made, snapshot_id="a" * 64, tree="b" * 64)


KNOWN = [point(3), point(1), point(2)]


def test_latest_is_by_cut_not_by_order_or_seal() -> None:
    """What counts is how old the data is."""
    assert select(KNOWN, "shop", Objective()).point.id == "03" * 8


def test_a_time_takes_the_newest_point_not_after_it() -> None:
    """A point cut after the time asked for may hold the damage already."""
    chosen = select(KNOWN, "shop", Objective(at=NOON + timedelta(minutes=2, seconds=59)))
    assert chosen.point.id == "02" * 8


def test_a_point_is_found_by_its_first_digits() -> None:
    """As git does it."""
    assert select(KNOWN, "shop", Objective(point="0101")).point.id == "01" * 8


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (Objective(point="ff"), "ff"),
        (Objective(point="0"), "more digits"),
        (Objective(at=NOON), "cut at or before"),
    ],
)
def test_what_nothing_meets_is_an_error(objective: Objective, words: str) -> None:
    """Absence and doubt are errors that say what was asked."""
    with pytest.raises(NoEligibleRecoveryPoint, match=words):
        select(KNOWN, "shop", objective)


def test_an_empty_catalogue_is_an_error() -> None:
    """No points at all is never a success."""
    with pytest.raises(NoEligibleRecoveryPoint, match="no recovery point"):
        select([], "shop", Objective())
