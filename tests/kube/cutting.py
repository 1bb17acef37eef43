"""What the snapshot, mover and sweep tests need: volumes with files in them, and a look through an exposure."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from kube.cluster import Cluster
from kube.home import HOME
from kube.quantity import to_bytes
from kube.snapshot_objects import CONTENT, GROUP, GROUP_CONTENT, SNAPSHOT
from refloat.application import LABEL_PREFIX, RUN_LABEL
from refloat.inventory import Volume
from tests.contract.given import claim, pod, sh, start, until_gone, until_phase

CLAIM, VOLUME = "PersistentVolumeClaim", "PersistentVolume"
LEASE = "Lease.coordination.k8s.io"
TEMPORARY = ("Job.batch", "Pod", "Secret", CLAIM, VOLUME, SNAPSHOT, CONTENT, GROUP, GROUP_CONTENT, LEASE)
Object = dict[str, Any]


def volume_of(cluster: Cluster, namespace: str, name: str) -> Volume:
    """The bound volume of a claim, as discovery gives it."""
    made = cluster.get(CLAIM, name, namespace)
    csi = cluster.get(VOLUME, made["spec"]["volumeName"])["spec"]["csi"]
    return Volume(
        namespace=namespace,
        claim=name,
        uid=made["metadata"]["uid"],
        phase=made["status"]["phase"],
        volume_name=made["spec"]["volumeName"],
        driver=csi["driver"],
        handle=csi["volumeHandle"],
        storage_class=made["spec"]["storageClassName"],
        requested_bytes=to_bytes(made["spec"]["resources"]["requests"]["storage"]),
        access_modes=tuple(made["spec"]["accessModes"]),
        mode=made["spec"]["volumeMode"],
    )


def volumes_in_use(cluster: Cluster, namespace: str, *names: str) -> list[Volume]:
    """Volumes of a running pod ``writer`` that mounts each at its name, with the text ``before`` in each's ``file``."""
    for name in names:
        cluster.create(claim(namespace, name))
    start(cluster, pod(namespace, "writer", claims={f"/{name}": name for name in names}))
    until_phase(cluster, "writer", namespace, "Running")
    for name in names:
        write(cluster, namespace, name, "before")
    return [volume_of(cluster, namespace, name) for name in names]


def write(cluster: Cluster, namespace: str, name: str, text: str) -> None:
    """Put a text into the file of one volume of ``writer``."""
    sh(cluster, namespace, "writer", f"echo {text} > /{name}/file; sync")


def in_home(cluster: Cluster, name: str, script: str) -> str:
    """The output of a script that sees a claim of refloat's namespace at ``/volume``."""
    reader = f"reader-{secrets.token_hex(4)}"
    start(cluster, pod(HOME, reader, claims={"/volume": name}))
    try:
        until_phase(cluster, reader, HOME, "Running")
        return sh(cluster, HOME, reader, script)
    finally:
        cluster.delete("Pod", reader, HOME, grace_seconds=0)
        until_gone(cluster, "Pod", reader, HOME)


def left_of(cluster: Cluster, run: str) -> list[str]:
    """Everything temporary that bears the run's label or name, and is not on its way out."""
    found = [
        f"{kind} {each['metadata']['name']}"
        for kind in TEMPORARY
        for each in cluster.list(kind)
        if "deletionTimestamp" not in each["metadata"] and belongs(each, run)
    ]
    marked = cluster.list(CLAIM, labels=f"{LABEL_PREFIX}/group={run}")
    return sorted([*found, *(f"label of {each['metadata']['name']}" for each in marked)])


def belongs(obj: Mapping[str, Any], run: str) -> bool:
    """Whether an object is a run's by its label, or by the name of what it is bound to."""
    spec = obj.get("spec") or {}
    bound = [spec.get(field) or {} for field in ("claimRef", "volumeSnapshotRef", "volumeGroupSnapshotRef")]
    names = [obj["metadata"]["name"], *(each.get("name", "") for each in bound)]
    return (obj["metadata"].get("labels") or {}).get(RUN_LABEL) == run or any(f"-{run}-" in name for name in names)
