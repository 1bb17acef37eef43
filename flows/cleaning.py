"""The sweep at the end of every run, whether it went well or not; its failure never hides the first one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from refloat.errors import RefloatError
from refloat.target import ClusterRef
from tasks.sweep import sweep


@contextmanager
def cleaned(cluster: ClusterRef, run: str) -> Iterator[None]:
    """Run the block, then remove what the run left in the cluster."""
    try:
        yield
    except BaseException as first:
        try:
            sweep(cluster, run=run)
        except RefloatError as second:
            first.add_note(f"the sweep failed as well: {second.message}; run: refloat sweep --run {run}")
        raise
    sweep(cluster, run=run)
