"""Step *lock*: one vault lock over the whole run, and the previous point for movers to build on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from blocks.handles import open_cluster, open_existing_vault
from refloat.errors import LeaseHeld, ProviderError
from refloat.policy import VaultLocation
from refloat.recovery_point import RecoveryPoint
from refloat.target import ClusterRef
from tasks.step import note, warn
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


@contextmanager
def shielded(location: VaultLocation, cluster: ClusterRef, *, run: str) -> Iterator[None]:
    """Keep pruning away while a recovery reads, as far as that can be had: a bad day does not wait for a lock.

    Credentials that may only read, or a prune that is under way, are told as a warning; a prune never removes what a
    sealed point needs, but it may move it while it is read, and then the recovery must be run again.
    """
    vault = open_existing_vault(location, open_cluster(cluster))
    lock = ExitStack()
    try:
        try:
            lock.enter_context(vault.lock(run))
        except (ProviderError, LeaseHeld) as refused:
            warn("lock", f"recovering without a vault lock: {refused.message}")
        try:
            yield
        finally:
            try:
                lock.close()
            except (ProviderError, LeaseHeld) as lapsed:
                warn("lock", f"the vault lock of this recovery did not last: {lapsed.message}")
    finally:
        vault.close()
