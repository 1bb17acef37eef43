"""Small objects for the contract tests, and waiting for what becomes of them; the same on every lane."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from kube.cluster import Cluster

Object = dict[str, Any]
IMAGE = os.environ.get("REFLOAT_TEST_IMAGE", "lab/base:1")
SOON = timedelta(seconds=60)
"""Far more than any lane needs."""
STAYS = "trap 'exit 0' TERM; while :; do sleep 0.1; done"
"""A shell program that runs until it is asked to end."""


def unique(prefix: str) -> str:
    """A name for a cluster-scoped object."""
    return f"refloat-test-{prefix}-{secrets.token_hex(4)}"


def config_map(namespace: str, name: str, labels: dict[str, str] | None = None, **data: str) -> Object:
    """A ConfigMap."""
    meta: Object = {"name": name, "namespace": namespace} | ({"labels": labels} if labels else {})
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta} | ({"data": data} if data else {})


def container(script: str, name: str = "main", **fields: Any) -> Object:
    """A container that runs a shell script."""
    return {"name": name, "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script], **fields}


def pod(namespace: str, name: str, script: str = STAYS, *, claims: dict[str, str] | None = None, **spec: Any) -> Object:
    """A pod of one container; ``claims`` are mount path → claim. ``containers`` may be given instead of a script.

    Its containers share ``/work``; ``/tmp`` is the machine's own on the practice range.
    """
    mounts = [{"name": f"v{i}", "mountPath": path} for i, path in enumerate(claims or {})]
    volumes: list[Object] = [
        {"name": f"v{i}", "persistentVolumeClaim": {"claimName": claim}}
        for i, claim in enumerate((claims or {}).values())
    ]
    spec = {"containers": [container(script)], "restartPolicy": "Never", "terminationGracePeriodSeconds": 2, **spec}
    for each in spec["containers"]:
        each["volumeMounts"] = [*each.get("volumeMounts", []), *mounts]
        each["volumeMounts"].append({"name": "shared", "mountPath": "/work"})
    volumes.append({"name": "shared", "emptyDir": {}})
    spec["volumes"] = [*spec.get("volumes", []), *volumes]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def claim(namespace: str, name: str, labels: dict[str, str] | None = None, **spec: Any) -> Object:
    """A claim of 16 MiB of the default class."""
    request = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}}
    meta = {"name": name, "namespace": namespace, "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": request | spec}


def template(labels: dict[str, str], script: str = STAYS, **spec: Any) -> Object:
    """A pod template of one container."""
    spec = {"containers": [container(script)], "terminationGracePeriodSeconds": 2, **spec}
    return {"metadata": {"labels": labels}, "spec": spec}


def job(namespace: str, name: str, script: str, **spec: Any) -> Object:
    """A Job of one container that is never restarted."""
    pods = template({"job": name}, script, restartPolicy="Never")
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {"template": pods, **spec}}


def until(
    cluster: Cluster, kind: str, name: str, namespace: str | None, is_so: Callable[[Object], bool], what: str
) -> Object:
    """The object once it is so."""
    found = cluster.wait(kind, name, namespace, lambda obj: obj is not None and is_so(obj), timeout=SOON, what=what)
    assert found is not None
    return found


def until_gone(cluster: Cluster, kind: str, name: str, namespace: str | None = None) -> None:
    """Wait until it is not there."""
    cluster.wait(kind, name, namespace, lambda obj: obj is None, timeout=SOON, what=f"{kind} {name} gone")


def until_phase(cluster: Cluster, name: str, namespace: str, phase: str) -> Object:
    """The pod once it is in the phase."""
    return until(
        cluster, "Pod", name, namespace, lambda obj: obj["status"].get("phase") == phase, f"pod {name} {phase}"
    )


def run_pod(cluster: Cluster, obj: Object) -> Object:
    """Create a pod, when the namespace has its service account, and wait until it runs."""
    start(cluster, obj)
    return until_phase(cluster, obj["metadata"]["name"], obj["metadata"]["namespace"], "Running")


def start(cluster: Cluster, obj: Object) -> Object:
    """Create something that makes pods once the namespace has its service account."""
    namespace = obj["metadata"]["namespace"]
    until(cluster, "ServiceAccount", "default", namespace, lambda _: True, "default service account")
    return cluster.create(obj)


def sh(cluster: Cluster, namespace: str, name: str, script: str, container: str = "main") -> str:
    """The output of a shell script in a pod; it must succeed."""
    done = cluster.exec(namespace, name, container, ["sh", "-c", script], timeout=SOON)
    assert done.exit_code == 0, done
    return done.stdout.decode()


def names(objects: Any) -> list[str]:
    """The names of some objects, sorted."""
    return sorted(obj["metadata"]["name"] for obj in objects)


def is_bound(obj: Object) -> bool:
    """Whether a claim or volume is bound."""
    return bool(obj["status"].get("phase") == "Bound")


def condition(obj: Object, kind: str) -> Object:
    """The condition of a type; empty when there is none."""
    rows = (obj.get("status") or {}).get("conditions") or []
    return next((row for row in rows if row["type"] == kind), {})
