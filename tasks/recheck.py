"""Step *recheck*: members once more after the cut: what came or went meanwhile lowers its label."""

from __future__ import annotations

from dataclasses import dataclass

from blocks.handles import open_cluster
from kube.discovery import discover
from refloat.application import Application
from refloat.inventory import Inventory
from refloat.target import ClusterRef
from tasks.step import step, warn


@dataclass(frozen=True)
class Rechecked:
    """What is said in the point: warnings for people, and the changes that lower its label."""

    warnings: list[str]
    changes: list[str]


@step("recheck", retries=2)
def recheck(application: Application, before: Inventory, cluster: ClusterRef) -> Rechecked:
    """Claims and pods that differ from those discovered before the cut."""
    after = discover(open_cluster(cluster), application)
    changes, others = differences(before, after)
    for text in (*changes, *others):
        warn("recheck", text)
    return Rechecked([*before.warnings, *changes, *others], changes)


def differences(before: Inventory, after: Inventory) -> tuple[list[str], list[str]]:
    """What came or went, one sentence each: claims and pods that mount one, then the other pods that went.

    A pod that came with a volume may have written while all that were known were held.
    """
    old, new = {v.uid: v.name for v in before.volumes}, {v.uid: v.name for v in after.volumes}
    changes = [f"claim {new[uid]} came while the point was cut: it is not in it" for uid in sorted(new.keys() - old)]
    changes += [f"claim {old[uid]} went while the point was cut" for uid in sorted(old.keys() - new)]
    claims = {*old.values(), *new.values()}
    was, now = ({pod.uid: pod for pod in each.pods} for each in (before, after))
    others: list[str] = []
    for pods, others_pods, verb in ((now, was, "came"), (was, now, "went")):
        for pod in (pods[uid] for uid in sorted(pods.keys() - others_pods)):
            text = f"pod {pod.namespace}/{pod.name} {verb} while the point was cut"
            if any(f"{pod.namespace}/{claim}" in claims for claim in pod.claims):
                changes.append(text)
            elif verb == "went":
                others.append(text)
    return changes, others
