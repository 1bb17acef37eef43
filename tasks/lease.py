"""Step *lease*: the application is this run's alone, from a green preflight until the point is sealed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from blocks.handles import open_cluster
from kube.application_lease import ApplicationLease, hold_application
from refloat.application import Application
from refloat.target import ClusterRef


@contextmanager
def alone(application: Application, cluster: ClusterRef, *, run: str) -> Iterator[ApplicationLease]:
    """Have the application to oneself while the block runs, whatever the orchestrator thinks.

    Raises:
        LeaseHeld: Another run is at work on it.
        ThawUnconfirmed: A dead run left something frozen that would not be let go.
    """
    with hold_application(open_cluster(cluster), application.name, run) as lease:
        yield lease
