"""A small application of the practice range: a StatefulSet with a volume, its Secret and ConfigMap, and a neighbour."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from kube.cluster import Cluster

Object = dict[str, Any]
SECRET = "a-secret-of-the-application"
LABEL = "app=db"
CLAIM = "data-db-0"
WAIT = timedelta(seconds=30)
WORK = (
    "test -f /data/orders || seq 1 500 > /data/orders; touch /data/ready; "
    "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done"
)


def create(cluster: Cluster, namespace: str) -> None:
    """Create it and wait until it is at work; the namespace is made where it is missing."""
    if cluster.find("Namespace", namespace) is None:
        cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    for obj in (
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db-auth"}, "stringData": {"password": SECRET}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "db-conf"}, "data": {"greeting": "welcome"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "neighbour", "labels": {"app": "other"}}},
        database(),
    ):
        obj["metadata"]["namespace"] = namespace  # type: ignore[index]
        cluster.create(obj)
    ready(cluster, namespace)


def database() -> Object:
    """The StatefulSet."""
    labels = {"app": "db"}
    container = {
        "name": "db", "image": "any", "command": ["sh", "-c", WORK],
        "env": [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db-auth", "key": "password"}}}],
        "envFrom": [{"configMapRef": {"name": "db-conf"}}],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "readinessProbe": {"exec": {"command": ["test", "-f", "/data/ready"]}, "periodSeconds": 1},
    }  # fmt: skip
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    asked = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db", "labels": labels},
        "spec": {
            "serviceName": "db", "replicas": 1, "selector": {"matchLabels": labels}, "template": template,
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": asked}],
        },
    }  # fmt: skip


def ready(cluster: Cluster, namespace: str) -> None:
    """Wait until the database is ready."""
    cluster.wait(
        "StatefulSet.apps", "db", namespace, lambda obj: ((obj or {}).get("status") or {}).get("readyReplicas") == 1,
        timeout=WAIT, what="the database is ready",
    )  # fmt: skip


def orders(cluster: Cluster, namespace: str) -> int:
    """How many orders the database holds."""
    done = cluster.exec(namespace, "db-0", "db", ["sh", "-c", "wc -l < /data/orders"], timeout=WAIT)
    assert done.exit_code == 0, done
    return int(done.stdout)


def remove(cluster: Cluster, namespace: str) -> None:
    """Delete the namespace and wait until it is gone."""
    cluster.delete("Namespace", namespace)
    cluster.wait("Namespace", namespace, None, lambda obj: obj is None, timeout=WAIT, what=f"{namespace} gone")
