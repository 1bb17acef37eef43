"""Step *isolate*: the drill's namespaces are closed before anything is put into them."""

from __future__ import annotations

from blocks.handles import open_cluster
from kube.isolation import fence
from refloat.plan import Planned
from refloat.target import ClusterRef
from tasks.step import note, step


@step("isolate", retries=2)
def isolate(planned: Planned, cluster: ClusterRef, *, run: str) -> None:
    """Put the default-deny policy into every namespace of the plan."""
    fence(open_cluster(cluster), planned.plan.namespaces, run)
    note("isolate", f"{', '.join(planned.plan.namespaces)} closed")
