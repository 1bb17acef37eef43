"""The sweep at the end of every run, whether it went well or not; its failure never hides the first one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect.futures import PrefectFuture, wait

from kube.hooks import signals_ignored
from refloat.errors import RefloatError
from refloat.target import ClusterRef
from tasks.sweep import sweep

STILL_WITHIN_SECONDS = 5.0
"""How long a submitted step is given to notice that its objects are gone, before the run is swept again."""
SWEEPS = 24

Moving = list[PrefectFuture[Any]]


@contextmanager
def cleaned(cluster: ClusterRef, run: str) -> Iterator[Moving]:
    """Run the block, then remove what the run left in the cluster.

    The block adds the steps it submits to the list it is given: after a failure or an interruption these are still
    at work, and make new objects, so the run is swept until all of them have ended. That sweep is the plain
    function: cleaning up must not depend on the orchestrator (research/prefect.md §10, rules 3 and 5).
    """
    moving: Moving = []
    try:
        yield moving
    except BaseException as first:
        try:
            with signals_ignored():  # another Ctrl-C would leave behind what this one is about to remove
                sweep_until_still(cluster, run, moving)
        except RefloatError as second:
            first.add_note(f"the sweep failed as well: {second.message}; run: refloat sweep --run {run}")
        raise
    sweep(cluster, run=run, keep_filled=True)


def sweep_until_still(cluster: ClusterRef, run: str, moving: Moving) -> None:
    """Take away what submitted steps work on until they have ended; at most two minutes."""
    for _ in range(SWEEPS):
        sweep.fn(cluster, run=run, keep_filled=True)
        if not moving or not wait(moving, timeout=STILL_WITHIN_SECONDS).not_done:
            break
    if moving:
        sweep.fn(cluster, run=run, keep_filled=True)


def results(moving: Moving) -> list[Any]:
    """What the submitted steps returned, once all have ended; the first failure is raised, the others are its notes."""
    wait(moving)
    failures = [each.state.result(raise_on_failure=False) for each in moving if not each.state.is_completed()]
    broken = [each for each in failures if isinstance(each, BaseException)]
    for other in broken[1:]:
        broken[0].add_note(f"also failed: {getattr(other, 'message', other)}")
    if broken:
        raise broken[0]
    return [each.result() for each in moving]
