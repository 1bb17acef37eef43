"""Retention: which recovery points of an application are kept, which expire, and the reason for each decision.

Pure: points and times in, decisions out. The rules are those of ``restic forget --keep-hourly …`` (restic's
``internal/data/snapshot_policy.go``), over cut times in UTC: the newest point of each hour, day, ISO week, month and
year, as many as the rule says; while a rule has room left, the oldest point too. No rule counts from today, so a wrong
clock of this machine cannot expire anything; a wrong clock of whoever made a point is met by two precautions: a newest
point whose times cannot be true is refused, and a point that the store received at another time than it says is judged
by both times and expires only if both say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from refloat.clock import CLOCK_ALLOWANCE
from refloat.errors import ClocksDisagree
from refloat.policy import Retention
from refloat.recovery_point import RecoveryPoint

NO_RULE = "no rule keeps it"
KEEP_ALL = "no rules: every point is kept"
LAST_GOOD = "the last good point"
BY_STORE = "by the store's clock"

_TimeOf = Callable[[RecoveryPoint], datetime]
_BUCKETS: dict[str, Callable[[datetime], str]] = {
    "hourly": lambda at: f"{at:%Y-%m-%d %H}h",
    "daily": lambda at: f"{at:%Y-%m-%d}",
    "weekly": lambda at: "{}-W{:02}".format(*at.isocalendar()[:2]),
    "monthly": lambda at: f"{at:%Y-%m}",
    "yearly": lambda at: f"{at:%Y}",
}


@dataclass(frozen=True)
class Decision:
    """What becomes of one point, and why."""

    point: RecoveryPoint
    is_kept: bool
    reasons: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "point": self.point.id,
            "application": self.point.application,
            "cut_at": self.point.cut_at.isoformat(),
            "consistency": self.point.consistency.value,
            "decision": "keep" if self.is_kept else "expire",
            "reasons": list(self.reasons),
        }


def decide(
    points: Iterable[RecoveryPoint],
    retention: Retention,
    at: datetime,
    *,
    received: Mapping[str, datetime] | None = None,
    is_verified: Callable[[RecoveryPoint], bool] | None = None,
) -> list[Decision]:
    """Keep or expire, for every application apart; applications by name, points oldest first.

    Args:
        points: All sealed points, each once.
        retention: How many to keep of each age; all zero keeps every point.
        at: Now, by this machine's clock.
        received: When the store received each point's record, by the point's id and the store's clock.
        is_verified: Whether a point is known to read back, where that is known; others are not "good" then.

    Raises:
        ClocksDisagree: The newest point, or the store, is of the future: a clock is to be set before anything expires.
    """
    known = received or {}
    decisions = []
    by_application = sorted(points, key=lambda point: point.application)
    for _, group in groupby(by_application, key=lambda point: point.application):
        mine = sorted(group, key=lambda point: (point.cut_at, point.sealed_at, point.id))
        _refuse_future(mine, at, known)
        decisions += _decide(mine, retention, known, is_verified)
    return decisions


def last_good(
    points: Iterable[RecoveryPoint],
    time_of: _TimeOf = lambda point: point.cut_at,
    is_verified: Callable[[RecoveryPoint], bool] | None = None,
) -> RecoveryPoint:
    """The newest of those that are best: verified where any is, complete where any is, of the highest label there is.

    A newer point of a lower label, or an unverified or incomplete one, does not take its place.

    Raises:
        ValueError: There is no point.
    """

    def rank(point: RecoveryPoint) -> tuple[bool, bool, Any, datetime, datetime, str]:
        is_complete = not any(volume.unreadable for volume in point.volumes)
        verified = is_verified is None or is_verified(point)
        return verified, is_complete, point.consistency, time_of(point), point.sealed_at, point.id

    return max(points, key=rank)


def _refuse_future(points: list[RecoveryPoint], at: datetime, received: Mapping[str, datetime]) -> None:
    newest = points[-1]
    for what, later, earlier in (
        ("the newest point was cut", newest.cut_at, at),
        ("the newest point was sealed", max(point.sealed_at for point in points), at),
        ("the store received a point", max((received.get(point.id, at) for point in points), default=at), at),
        ("the newest point was cut after it was sealed, it says", newest.cut_at, newest.sealed_at),
        ("the newest point was sealed", newest.sealed_at, received.get(newest.id, newest.sealed_at)),
    ):
        if later - earlier > CLOCK_ALLOWANCE:
            against = "when it was " + f"{earlier:%Y-%m-%d %H:%M:%S}Z"
            raise ClocksDisagree(
                f"{newest.application}: {what} at {later:%Y-%m-%d %H:%M:%S}Z, {against}; nothing is expired",
                guidance="Set the clock that is wrong. Remove a point with a wrong time by restic forget, if need be.",
                point=newest.id,
            )


def _decide(
    points: list[RecoveryPoint],
    retention: Retention,
    received: Mapping[str, datetime],
    is_verified: Callable[[RecoveryPoint], bool] | None,
) -> list[Decision]:
    """For one application's points, oldest first."""
    if not any(getattr(retention, name) for name in _BUCKETS):
        return [Decision(point, is_kept=True, reasons=(KEEP_ALL,)) for point in points]

    def second(point: RecoveryPoint) -> datetime:
        return received.get(point.id, point.sealed_at) if _is_doubtful(point, received) else point.cut_at

    kept = _kept(points, retention, lambda point: point.cut_at)
    kept.setdefault(last_good(points, is_verified=is_verified).id, []).append(LAST_GOOD)
    if any(_is_doubtful(point, received) for point in points):
        for point_id, reasons in _kept(points, retention, second).items():
            kept.setdefault(point_id, [f"{reason} {BY_STORE}" for reason in reasons])
        kept.setdefault(last_good(points, second, is_verified).id, [f"{LAST_GOOD} {BY_STORE}"])
    return [Decision(point, point.id in kept, tuple(kept.get(point.id, (NO_RULE,)))) for point in points]


def _is_doubtful(point: RecoveryPoint, received: Mapping[str, datetime]) -> bool:
    """Whether its times cannot all be true, or were not witnessed: by a wrong clock, or because it is a copy."""
    lag = received.get(point.id, point.sealed_at) - point.sealed_at
    is_ordered = point.started_at - CLOCK_ALLOWANCE <= point.cut_at <= point.sealed_at + CLOCK_ALLOWANCE
    return abs(lag) > CLOCK_ALLOWANCE or not is_ordered


def _kept(points: list[RecoveryPoint], retention: Retention, time_of: _TimeOf) -> dict[str, list[str]]:
    """What the rules keep, and why, by id."""
    newest_first = sorted(points, key=lambda point: (time_of(point), point.sealed_at, point.id), reverse=True)
    kept: dict[str, list[str]] = {}
    for rule, bucket_of in _BUCKETS.items():
        left, last = getattr(retention, rule), None
        for point in newest_first:
            bucket = bucket_of(time_of(point))
            is_oldest = bucket == last
            if left and (bucket != last or point is newest_first[-1]):
                kept.setdefault(point.id, []).append(f"{rule} {bucket}" + (", the oldest" if is_oldest else ""))
                last, left = bucket, left - 1
    return kept
