"""Waiting for volume snapshots: until they are cut, which ends the hold, and until they can be read."""

from __future__ import annotations

from datetime import timedelta

from refloat.clock import Deadline, pause
from refloat.errors import SnapshotFailed
from refloat.ports.volume_snapshotter import Ticket, VolumeSnapshot, VolumeSnapshotter

CUT_EVERY = timedelta(milliseconds=50)
"""The hold is open while this is waited for."""
READY_EVERY = timedelta(milliseconds=500)


def wait_cut(snapshotter: VolumeSnapshotter, ticket: Ticket, *, timeout: timedelta) -> tuple[VolumeSnapshot, ...]:
    """Every volume's snapshot once all are cut, in the ticket's order.

    Raises:
        SnapshotFailed: One failed, or was not cut in time; the message holds the driver's words.
    """
    deadline = Deadline.after(timeout)
    while True:
        snapshots = snapshotter.poll(ticket)
        refuse_failed(snapshots)
        if all(each.cut_at for each in snapshots):
            return snapshots
        if deadline.is_over:
            late = [each for each in snapshots if not each.cut_at]
            words = "; ".join(f"{each.volume.name}: {each.reason or 'no word from the driver'}" for each in late)
            raise SnapshotFailed(f"not cut within {timeout.total_seconds():.0f} s: {words}")
        pause(CUT_EVERY)


def wait_ready(snapshotter: VolumeSnapshotter, snapshot: VolumeSnapshot, *, timeout: timedelta) -> VolumeSnapshot:
    """The snapshot once a volume can be made from it.

    Raises:
        SnapshotFailed: It failed, or was not ready in time.
    """
    deadline = Deadline.after(timeout)
    while True:
        seen = snapshotter.look(snapshot)
        refuse_failed((seen,))
        if seen.state == "ready":
            return seen
        if deadline.is_over:
            limit = f"{timeout.total_seconds():.0f} s"
            raise SnapshotFailed(f"{seen.volume.name}: cut, and not ready within {limit}: {seen.reason or 'no word'}")
        pause(READY_EVERY)


def refuse_failed(snapshots: tuple[VolumeSnapshot, ...]) -> None:
    """Raise for the snapshots that failed."""
    failed = [each for each in snapshots if each.state == "failed"]
    if failed:
        raise SnapshotFailed("; ".join(f"{each.volume.name}: {each.reason}" for each in failed))
