"""Waiting for cuts: until every volume's snapshot is cut, and until one is ready; nothing is discarded here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from refloat.clock import Deadline, now, pause
from refloat.errors import RefloatError, Retry, SnapshotFailed
from refloat.ports.volume_snapshotter import Ticket, VolumeSnapshot, VolumeSnapshotter

CUT_POLL = timedelta(milliseconds=50)
"""The application may stand still meanwhile: a poll costs a few milliseconds, a late one costs the hold."""
READY_POLL = timedelta(seconds=1)
States = tuple[VolumeSnapshot, ...]


def wait_cut(snapshotter: VolumeSnapshotter, ticket: Ticket, *, timeout: timedelta) -> States:
    """Every volume's snapshot, once all are cut.

    Raises:
        SnapshotFailed: The first that failed, in the driver's words; or those not cut within ``timeout``.
    """

    def are_cut(states: States) -> bool:
        return all(each.state in ("cut", "ready") for each in states)

    return wait(snapshotter, ticket, are_cut, timeout=timeout, every=CUT_POLL, what="cut")


def wait_ready(snapshotter: VolumeSnapshotter, snapshot: VolumeSnapshot, *, timeout: timedelta) -> VolumeSnapshot:
    """The snapshot once it can be used as a source; ``ready_at`` is when that was seen.

    Raises:
        SnapshotFailed: It failed, in the driver's words, or is not ready within ``timeout``.
    """
    ticket = Ticket(
        run="",
        method="group-snapshot" if snapshot.group else "volume-snapshots",
        volumes=(snapshot.volume,),
        names={snapshot.volume.name: snapshot.group or snapshot.name},
    )

    def is_ready(states: States) -> bool:
        return states[0].state == "ready"

    states = wait(snapshotter, ticket, is_ready, timeout=timeout, every=READY_POLL, what="ready")
    return replace(states[0], ready_at=now())


def wait(
    snapshotter: VolumeSnapshotter,
    ticket: Ticket,
    until: Callable[[States], bool],
    *,
    timeout: timedelta,
    every: timedelta,
    what: str,
) -> States:
    """Poll until the states are as wanted; an API server that falters is asked again until time is up."""
    deadline = Deadline.after(timeout)
    states: States = ()
    passing: RefloatError | None = None
    while True:
        try:
            states, passing = snapshotter.poll(ticket), None
        except RefloatError as failure:
            if failure.retry is Retry.NEVER:
                raise
            passing = failure
        for state in states:
            if state.state == "failed":
                raise SnapshotFailed(f"volume {state.volume.name} was not {what}: {state.reason}")
        if states and passing is None and until(states):
            return states
        if deadline.is_over:
            break
        pause(min(every, max(timedelta(0), deadline.remaining)))
    late = [each for each in states if not until((each,))]
    words = (
        passing.message if passing else "; ".join(f"{each.volume.name}: {each.reason or each.state}" for each in late)
    )
    limit = f"{timeout.total_seconds():.0f} s"
    raise SnapshotFailed(f"not {what} within {limit}: {words or 'no answer'}") from passing
