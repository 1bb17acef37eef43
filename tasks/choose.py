"""Step *choose*: objective → one sealed recovery point, or an error; never nothing."""

from __future__ import annotations

from collections.abc import Sequence

from blocks.handles import open_cluster, open_existing_vault
from vault.catalogue import points

from refloat.errors import NoEligibleRecoveryPoint
from refloat.plan import Objective
from refloat.policy import VaultLocation
from refloat.recovery_point import CataloguedPoint
from refloat.target import ClusterRef
from tasks.step import note, step


@step("choose", retries=2)
def choose(application: str, objective: Objective, location: VaultLocation, cluster: ClusterRef) -> CataloguedPoint:
    """The point of the application that meets the objective.

    Raises:
        NoEligibleRecoveryPoint: None does.
    """
    vault = open_existing_vault(location, open_cluster(cluster))
    try:
        chosen = select(points(vault, application), application, objective)
    finally:
        vault.close()
    note("choose", f"{chosen.point.id} of {chosen.point.cut_at:%Y-%m-%d %H:%M:%S}Z, {chosen.point.consistency.value}")
    return chosen


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
