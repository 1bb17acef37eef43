"""Step *plan*: point and target → the recovery plan, which is also the dry run."""

from __future__ import annotations

from blocks.handles import open_cluster, open_existing_vault
from kube.planning import make_plan
from refloat.errors import PlanBlocked
from refloat.plan import Mappings, Planned, RecoveryPlan
from refloat.policy import VaultLocation
from refloat.recovery_point import CataloguedPoint
from refloat.target import ClusterRef
from tasks.step import note, step, warn
from vault.catalogue import manifests as manifests_of


@step("plan", retries=2)
def plan(chosen: CataloguedPoint, mappings: Mappings, location: VaultLocation, cluster: ClusterRef) -> Planned:
    """Compute, without side effects, everything the recovery would do."""
    target = open_cluster(cluster)
    vault = open_existing_vault(location, target)
    try:
        manifests = manifests_of(vault, chosen)
    finally:
        vault.close()
    made = make_plan(target, chosen, manifests, mappings)
    for text in made.warnings:
        warn("plan", text)
    note("plan", f"create {made.count('create') + made.count('hydrate')}, keep {made.count('keep')}")
    return Planned(made, manifests)


def refuse_blocked(made: RecoveryPlan, approved_digest: str | None = None) -> None:
    """Stop here when the plan cannot be carried out, or is not the one that was approved.

    Raises:
        PlanBlocked: With every blocker and what to do about it.
    """
    if approved_digest is not None and approved_digest != made.digest:
        raise PlanBlocked(
            "the target changed after the plan was shown; nothing was created",
            guidance="Run again, look at the new plan and approve it.",
        )
    if made.blockers:
        lines = "".join(f"\n  {b.subject}: {b.reason}; {b.do}" for b in made.blockers)
        raise PlanBlocked(f"{len(made.blockers)} blockers, nothing was created:{lines}")
