"""Flow *sweep*: what dead runs left in a cluster is removed."""

from __future__ import annotations

from prefect import flow

from flows.story import telling_prefect
from refloat.target import ClusterRef
from tasks.sweep import sweep as sweep_step


@flow(name="sweep", persist_result=False)
def sweep(cluster: ClusterRef = ClusterRef(), run: str | None = None, dry_run: bool = False) -> list[str]:
    """Remove temporary objects of one run, or of every run that is over; returns their names."""
    with telling_prefect():
        return [str(ref) for ref in sweep_step(cluster, run=run, dry_run=dry_run)]
