"""Step *group snapshot*: volumes → volume snapshots that are cut; they become ready later, outside the hold."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from blocks.handles import open_cluster
from kube.snapshots import wait_cut
from providers.snapshotters.csi import open_snapshotter
from refloat.application import APPLICATION_LABEL
from refloat.clock import now
from refloat.errors import SnapshotFailed
from refloat.inventory import Inventory, Volume
from refloat.ports.volume_snapshotter import Cut, Ticket, VolumeSnapshot
from refloat.target import ClusterRef
from tasks.step import note, step, warn

CUT_LIMIT = timedelta(seconds=60)
"""How long the cut may take; the external-snapshotter gives a driver one minute per call by default."""


@step("group snapshot")
def group_snapshot(
    inventory: Inventory,
    cluster: ClusterRef,
    *,
    run: str,
    group: bool,
    within: timedelta = CUT_LIMIT,
    instant: Callable[[], datetime] = now,
    last: Collection[str] = (),
    between: Callable[[], None] | None = None,
) -> Cut:
    """Cut every volume: at one instant as a group, else in parallel with each cut time kept.

    ``within`` is all the time there is while the application stands still; ``instant`` is the hold's clock. Volumes
    named in ``last`` are cut when all others are, and ``between`` has been called.

    Raises:
        SnapshotFailed: A volume could not be cut; the driver's text is in the message.
        QuiesceFailed: What must happen between the cuts failed.
    """
    asked = instant()
    if not inventory.volumes:
        return Cut(asked, instant(), None)
    if within <= timedelta(0):
        warn("group snapshot", "freezing used up the time for the cut: the application is let go first")
        return Cut(asked, None, None)
    snapshotter = open_snapshotter(open_cluster(cluster))
    ticket: Ticket | None = None
    snapshots: tuple[VolumeSnapshot, ...] = ()
    for volumes in rounds_of(inventory.volumes, last):
        if ticket is not None and between is not None:
            between()
        ticket = joined(ticket, snapshotter.begin(volumes, run=run, labels=labels_of(inventory), group=group))
        left = max(timedelta(0), within - (instant() - asked))
        try:
            snapshots = wait_cut(snapshotter, ticket, timeout=min(left, CUT_LIMIT))
        except SnapshotFailed:
            if left >= CUT_LIMIT or any(each.state == "failed" for each in snapshotter.poll(ticket)):
                raise
            warn("group snapshot", f"no cut within {within.total_seconds():.0f} s: the application is let go first")
            return Cut(asked, None, ticket)
    assert ticket is not None
    seen = instant()
    times = [snapshot.cut_at for snapshot in snapshots if snapshot.cut_at]
    skew = (max(times) - min(times)) / timedelta(milliseconds=1)
    note("group snapshot", f"cut {len(snapshots)} volumes by {ticket.method}, skew {skew:.0f} ms")
    return Cut(asked, seen, ticket, snapshots)


@step("late cut")
def late_cut(cut: Cut, inventory: Inventory, cluster: ClusterRef, *, run: str, group: bool) -> Cut:
    """Wait for a cut that did not come within the hold, or ask for it; it is worth no more than a power cut.

    Raises:
        SnapshotFailed: It does not come within a minute either.
    """
    snapshotter = open_snapshotter(open_cluster(cluster))
    ticket = cut.ticket
    if ticket is None or len(ticket.volumes) < len(inventory.volumes):  # what was begun is found and kept
        ticket = snapshotter.begin(inventory.volumes, run=run, labels=labels_of(inventory), group=group)
    return replace(cut, ticket=ticket, snapshots=wait_cut(snapshotter, ticket, timeout=CUT_LIMIT))


def rounds_of(volumes: Sequence[Volume], last: Collection[str]) -> list[Sequence[Volume]]:
    """All volumes at once; or first the others, then those named in ``last``."""
    late = [volume for volume in volumes if volume.name in last]
    early = [volume for volume in volumes if volume.name not in last]
    return [early, late] if early and late else [volumes]


def joined(ticket: Ticket | None, more: Ticket) -> Ticket:
    """One ticket for the volumes of both."""
    if ticket is None:
        return more
    return replace(more, volumes=(*ticket.volumes, *more.volumes), names={**ticket.names, **more.names})


def labels_of(inventory: Inventory) -> dict[str, str]:
    """The labels of the application's volume snapshots."""
    return {APPLICATION_LABEL: inventory.application}
