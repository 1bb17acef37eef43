"""Kubeconfigs of identities with few rights, made on the cluster under test and removed again."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from kube.cluster import Cluster

TOKEN_WITHIN = timedelta(seconds=60)


@contextmanager
def identity(
    cluster: Cluster, kubeconfig: str, namespace: str, name: str, rules: list[dict[str, Any]], folder: Path
) -> Iterator[str]:
    """A service account with exactly these cluster-wide rules; gives the path of a kubeconfig that logs in as it."""
    account = {"namespace": namespace, "name": name}
    cluster.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
    cluster.create(
        {
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
            "metadata": {**account, "annotations": {"kubernetes.io/service-account.name": name}},
        }
    )  # fmt: skip
    wide, rbac = f"refloat-e2e-{name}", "rbac.authorization.k8s.io"
    role = {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": wide}, "rules": rules}
    binding = {
        "apiVersion": f"{rbac}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": wide},
        "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": wide},
        "subjects": [{"kind": "ServiceAccount", **account}],
    }  # fmt: skip
    try:
        for obj in (role, binding):
            cluster.delete(f"{obj['kind']}.{rbac}", wide)
            cluster.create(obj)
        yield str(write(cluster, kubeconfig, namespace, name, folder))
    finally:
        for kind in ("ClusterRole", "ClusterRoleBinding"):
            cluster.delete(f"{kind}.{rbac}", wide)


def write(cluster: Cluster, kubeconfig: str, namespace: str, name: str, folder: Path) -> Path:
    """The given kubeconfig with the account's token for its users."""
    secret = cluster.wait(
        "Secret", name, namespace, lambda obj: bool(((obj or {}).get("data") or {}).get("token")),
        timeout=TOKEN_WITHIN, what=f"token of {name}",
    )  # fmt: skip
    assert secret is not None
    config = yaml.safe_load(Path(kubeconfig).read_text())
    for user in config["users"]:
        user["user"] = {"token": base64.b64decode(secret["data"]["token"]).decode()}
    path = folder / f"{name}.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    path.chmod(0o600)
    return path
