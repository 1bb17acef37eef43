"""Applying the operator's manifests to a cluster, and taking away again what was not there before."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from kube.cluster import Cluster
from kube.home import HOME
from kube.kinds import name_of
from tests.contract.given import until_gone

Object = dict[str, Any]
MANIFESTS = Path(__file__).parents[2] / "deployments/manifests"
RBAC = "rbac.authorization.k8s.io"
CONTROLLER = "controller"
KNOWN_WITHIN = timedelta(seconds=60)
"""API servers learn of roles and policies by watching."""


def documents() -> list[Object]:
    """Every document, in the order kubectl applies a folder."""
    return [doc for path in sorted(MANIFESTS.glob("*.yaml")) for doc in yaml.safe_load_all(path.read_text())]


def place(doc: Object) -> tuple[str, str, str | None]:
    meta = doc["metadata"]
    return name_of(doc), meta["name"], meta.get("namespace")


def install(cluster: Cluster) -> list[Object]:
    """Apply everything; gives what was not there before."""
    new = [doc for doc in documents() if cluster.find(*place(doc)) is None]
    for doc in documents():
        cluster.apply(doc)
    return new


def uninstall(cluster: Cluster, made: list[Object]) -> None:
    """Remove what the test made; the namespace only when no run of somebody else has moved in meanwhile."""
    removed = []
    for doc in reversed(made):
        if doc["kind"] in ("Namespace", "ServiceAccount"):
            lodgers = [one for kind in ("Job.batch", "PersistentVolumeClaim") for one in cluster.list(kind, HOME)]
            if lodgers:
                continue
        cluster.delete(*place(doc))
        removed.append(doc)
    for doc in removed:
        if doc["kind"] in ("ValidatingAdmissionPolicyBinding", "Namespace"):  # what the next test would meet
            until_gone(cluster, *place(doc))


def bind(admin: Cluster, namespace: str, role: str) -> None:
    """What the README tells an operator to do for an application."""
    subject = {"kind": "ServiceAccount", "namespace": HOME, "name": CONTROLLER}
    reference = {"apiGroup": RBAC, "kind": "ClusterRole", "name": role}
    meta = {"namespace": namespace, "name": role}
    admin.create(
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": reference,
            "subjects": [subject],
        }
    )
