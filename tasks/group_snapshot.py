"""Step *group snapshot*: volumes → volume snapshots that are cut; they become ready later, outside the hold."""

from __future__ import annotations

from datetime import timedelta

from blocks.handles import open_cluster
from kube.snapshots import wait_cut
from providers.snapshotters.csi import open_snapshotter
from refloat.application import APPLICATION_LABEL
from refloat.inventory import Inventory
from refloat.ports.volume_snapshotter import VolumeSnapshot
from refloat.target import ClusterRef
from tasks.step import note, step

CUT_LIMIT = timedelta(seconds=60)
"""How long the cut may take; the external-snapshotter gives a driver one minute per call by default."""


@step("group snapshot")
def group_snapshot(inventory: Inventory, cluster: ClusterRef, *, run: str, group: bool) -> tuple[VolumeSnapshot, ...]:
    """Cut every volume: at one instant as a group, else in parallel with each cut time kept.

    Raises:
        SnapshotFailed: A volume was not cut within a minute; the driver's text is in the message.
    """
    if not inventory.volumes:
        return ()
    snapshotter = open_snapshotter(open_cluster(cluster))
    labels = {APPLICATION_LABEL: inventory.application}
    ticket = snapshotter.begin(inventory.volumes, run=run, labels=labels, group=group)
    snapshots = wait_cut(snapshotter, ticket, timeout=CUT_LIMIT)
    times = [snapshot.cut_at for snapshot in snapshots if snapshot.cut_at]
    skew = (max(times) - min(times)) / timedelta(milliseconds=1)
    note("group snapshot", f"cut {len(snapshots)} volumes by {ticket.method}, skew {skew:.0f} ms")
    return snapshots
