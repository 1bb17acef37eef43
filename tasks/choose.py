"""Step *choose*: objective → one sealed recovery point, or an error; never nothing."""

from __future__ import annotations

from blocks.handles import open_cluster, open_existing_vault
from refloat.choosing import select
from refloat.plan import Objective
from refloat.policy import VaultLocation
from refloat.recovery_point import CataloguedPoint
from refloat.target import ClusterRef
from tasks.step import note, step
from vault.catalogue import points


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
