"""Step *sweep*: what one run created in the cluster and no longer needs is withdrawn and discarded."""

from __future__ import annotations

from blocks.handles import open_cluster
from kube.sweep import sweep as sweep_cluster
from refloat.recovery_point import ObjectRef
from refloat.target import ClusterRef
from tasks.step import note, step


@step("sweep")
def sweep(
    cluster: ClusterRef, *, run: str | None = None, dry_run: bool = False, keep_filled: bool = False
) -> list[ObjectRef]:
    """Remove what the run left, by label; without a run, what any dead run left.

    ``keep_filled`` leaves what a recovery has filled to the next one. Returns what was removed, or with ``dry_run``
    what would be.
    """
    gone = sweep_cluster(open_cluster(cluster), run=run, dry_run=dry_run, keep_filled=keep_filled)
    note("sweep", f"{len(gone)} temporary objects {'found' if dry_run else 'removed'}")
    return gone
