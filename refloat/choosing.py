"""From an objective to one recovery point: the newest that meets it, or an error; never nothing."""

from __future__ import annotations

from collections.abc import Sequence

from refloat.errors import NoEligibleRecoveryPoint
from refloat.plan import Objective
from refloat.recovery_point import CataloguedPoint


def select(known: Sequence[CataloguedPoint], application: str, objective: Objective) -> CataloguedPoint:
    """The newest point not later than asked, or the one whose id begins as asked.

    Raises:
        NoEligibleRecoveryPoint: There is none, or several begin so.
    """
    if not known:
        raise NoEligibleRecoveryPoint(f"the vault holds no recovery point of application {application}")
    found = sorted(known, key=lambda each: each.point.cut_at)
    if objective.point:
        found = [each for each in found if each.point.id.startswith(objective.point)]
        if len(found) > 1:
            raise NoEligibleRecoveryPoint(f"{len(found)} points begin with {objective.point}; give more digits")
    if objective.at:
        found = [each for each in found if each.point.cut_at <= objective.at]
    if not found:
        wanted = objective.point or f"cut at or before {objective.at}"
        raise NoEligibleRecoveryPoint(f"none of the {len(known)} points of {application} is {wanted}")
    return found[-1]
