"""Step *verify*: proof that what was sealed reads back from the vault."""

from __future__ import annotations

from typing import Literal

from blocks.handles import open_cluster, open_existing_vault
from refloat.policy import VaultLocation
from refloat.recovery_point import CataloguedPoint
from refloat.target import ClusterRef
from tasks.step import note, step
from vault.verify import verify as verify_in


@step("verify", retries=2)
def verify(
    sealed: CataloguedPoint,
    location: VaultLocation,
    cluster: ClusterRef,
    *,
    level: Literal["sample", "full"] = "sample",
) -> str:
    """Read back descriptor, manifests, trees, and a sample of the data or all of it; returns what was read.

    Raises:
        IntegrityError: Something is not what was sealed.
    """
    vault = open_existing_vault(location, open_cluster(cluster))
    try:
        verified = verify_in(vault, sealed, level=level)
    finally:
        vault.close()
    note("verify", f"by {level}: {verified}")
    return str(verified)
