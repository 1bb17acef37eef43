"""Rights: what the identity in use may do, asked of the API server before anything is touched."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from kube.cluster import Cluster


@dataclass(frozen=True)
class Right:
    """One verb on one kind, in one namespace (None: cluster-wide)."""

    verb: str
    kind: str
    namespace: str | None = None
    subresource: str | None = None

    def __str__(self) -> str:
        what = f"{self.kind}/{self.subresource}" if self.subresource else self.kind
        return f"{self.verb} {what}" + (f" in {self.namespace}" if self.namespace else "")


def missing_rights(cluster: Cluster, needed: Sequence[Right]) -> list[Right]:
    """Those of the rights that the identity lacks, in order."""
    cluster.kinds()
    with ThreadPoolExecutor(8) as pool:
        held = pool.map(
            lambda right: cluster.allowed(right.verb, right.kind, right.namespace, subresource=right.subresource),
            needed,
        )
        return [right for right, is_held in zip(needed, held, strict=True) if not is_held]
