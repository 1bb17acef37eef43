"""`ClusterRef`: which cluster is meant, by kubeconfig and context or by the name of a block; opens nothing itself."""

from __future__ import annotations

from refloat.values import Value


class ClusterRef(Value):
    """Names one cluster. All None: the current context of the default kubeconfig, or the cluster this runs in."""

    kubeconfig: str | None = None
    context: str | None = None
    block: str | None = None
