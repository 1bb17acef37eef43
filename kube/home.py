"""refloat's own namespace: where movers run and claims are filled, and the identity movers run under."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from kube.cluster import Cluster
from refloat.application import LABEL_PREFIX
from refloat.errors import NotReady, ObjectExists

HOME = "refloat"
MOVER_ACCOUNT = "refloat-mover"
PART_OF = {"app.kubernetes.io/part-of": "refloat"}
NAMESPACE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": HOME, "labels": {**PART_OF, "pod-security.kubernetes.io/enforce": "baseline"}},
}
ACCOUNT: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "ServiceAccount",
    "metadata": {"name": MOVER_ACCOUNT, "namespace": HOME, "labels": PART_OF},
    "automountServiceAccountToken": False,
}
GROUP_LABEL = f"{LABEL_PREFIX}/group"
"""Label of claims while they are cut as one group: the run's id."""


def ensure_home(cluster: Cluster) -> None:
    """Make the namespace and the mover's identity where they are missing; what an operator installed is kept.

    Raises:
        NotReady: The namespace is being deleted.
    """
    found = cluster.find("Namespace", HOME)
    if found and "deletionTimestamp" in found["metadata"]:
        raise NotReady(f"namespace {HOME} is being deleted", guidance="Wait until it is gone, then run again.")
    for missing, manifest in (
        (found is None, NAMESPACE),
        (cluster.find("ServiceAccount", MOVER_ACCOUNT, HOME) is None, ACCOUNT),
    ):
        if missing:
            with suppress(ObjectExists):  # another run was faster
                cluster.create(manifest)
