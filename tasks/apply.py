"""Step *apply*: the plan's objects created by dependency level, exactly as shown, nothing overwritten."""

from __future__ import annotations

from blocks.handles import open_cluster
from kube.apply import apply_plan
from kube.apply import create_namespaces as create_in
from refloat.plan import Planned
from refloat.target import ClusterRef
from tasks.step import note, step


@step("create namespaces", retries=2)
def create_namespaces(planned: Planned, cluster: ClusterRef, *, run: str) -> None:
    """Create the plan's namespaces that are missing; claims and objects go into them."""
    create_in(open_cluster(cluster), planned.plan, planned.manifests, run=run)


@step("apply")
def apply(planned: Planned, cluster: ClusterRef, *, run: str) -> int:
    """Create what the plan creates, level by level; returns how many objects were created.

    Run again after a break, it creates what is missing and keeps what this recovery made.

    Raises:
        ObjectExists: Something appeared that the plan did not show; it is left alone.
        Rejected: The API server refused an object.
    """
    created = apply_plan(
        open_cluster(cluster), planned.plan, planned.manifests, run=run, on_done=lambda text: note("apply", text)
    )
    note("apply", f"{created} objects created")
    return created
