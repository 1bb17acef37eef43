"""Step *recheck*: members once more after the cut: what came or went meanwhile is said in the point."""

from __future__ import annotations

from blocks.handles import open_cluster
from kube.discovery import discover
from refloat.application import Application
from refloat.inventory import Inventory
from refloat.target import ClusterRef
from tasks.step import step, warn


@step("recheck", retries=2)
def recheck(application: Application, before: Inventory, cluster: ClusterRef) -> list[str]:
    """Warnings for claims and pods that differ from those discovered before the cut."""
    after = discover(open_cluster(cluster), application)
    warnings = list(before.warnings) + differences(before, after)
    for text in warnings[len(before.warnings) :]:
        warn("recheck", text)
    return warnings


def differences(before: Inventory, after: Inventory) -> list[str]:
    """What changed among claims and running pods, one sentence each."""
    texts: list[str] = []
    old, new = {v.uid: v.name for v in before.volumes}, {v.uid: v.name for v in after.volumes}
    texts += [f"claim {new[uid]} came while the point was cut: it is not in it" for uid in sorted(new.keys() - old)]
    texts += [f"claim {old[uid]} went while the point was cut" for uid in sorted(old.keys() - new)]
    was, now = ({p.uid: f"{p.namespace}/{p.name}" for p in each.pods} for each in (before, after))
    texts += [f"pod {was[uid]} went while the point was cut" for uid in sorted(was.keys() - now)]
    return texts
