"""Step *lock*: one vault lock over the whole run, and the previous point for movers to build on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from blocks.handles import open_cluster, open_existing_vault
from refloat.policy import VaultLocation
from refloat.recovery_point import RecoveryPoint
from refloat.target import ClusterRef
from tasks.step import note
from vault.catalogue import points


@contextmanager
def locked(
    application: str, location: VaultLocation, cluster: ClusterRef, *, run: str
) -> Iterator[RecoveryPoint | None]:
    """Hold a non-exclusive vault lock while the block runs, so that no prune removes what no point references yet.

    Gives the application's newest point so far, or None.

    Raises:
        LeaseHeld: Somebody prunes the vault right now.
    """
    vault = open_existing_vault(location, open_cluster(cluster))
    try:
        with vault.lock(run):
            known = points(vault, application)
            note("lock", f"vault locked by run {run}; {len(known)} earlier points")
            yield max((each.point for each in known), key=lambda point: point.cut_at, default=None)
    finally:
        vault.close()
