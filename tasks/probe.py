"""Step *probe*: evidence that what was recovered is ready, or the name of what is not and why."""

from __future__ import annotations

from datetime import timedelta

from blocks.handles import open_cluster
from kube.apply import resume_schedules
from kube.readiness import targets_of, wait_ready
from refloat.plan import Planned
from refloat.target import ClusterRef
from tasks.step import note, step


@step("probe")
def probe(planned: Planned, cluster: ClusterRef, *, timeout: timedelta) -> list[str]:
    """Wait until every workload of the plan is ready, then let schedules run again; returns one line each.

    Raises:
        ProbeFailed: Something is not ready in time; the message names it and the reason found on its pods.
    """
    target = open_cluster(cluster)
    evidence = wait_ready(
        target, targets_of(planned.plan), timeout=timeout, on_progress=lambda text: note("probe", text)
    )
    resume_schedules(target, planned.plan)
    return evidence
