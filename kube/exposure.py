"""Exposure: a volume snapshot made mountable in refloat's own namespace, and that undone without touching its data.

A static VolumeSnapshotContent with the cut's handle, always of policy Retain, a VolumeSnapshot bound to it, and a claim
provisioned from that one. All three bear one name, which (run, volume) determines.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from kube.cluster import Cluster
from kube.discarding import wait_gone
from kube.home import HOME, ensure_home, labels_in_run, name_in_run
from kube.marks import RECOVERY, labels_of
from kube.membership import CLAIM
from kube.snapshot_objects import API, CLASS, CONTENT, SNAPSHOT, class_of, error_in
from refloat.errors import Conflict, NotReady, ObjectExists, ObjectMissing, SnapshotFailed, Unsupported
from refloat.inventory import Volume
from refloat.ports.volume_snapshotter import Exposure, VolumeSnapshot
from refloat.recovery_point import ObjectRef

PERSISTENT_VOLUME = "PersistentVolume"
USABLE_WITHIN = timedelta(minutes=2)
GONE_WITHIN = timedelta(minutes=5)
"""A volume goes once it is detached from its node; clouds take minutes."""
READABLE_BY = ("ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany", "ReadOnlyMany")
"""In the order of preference: any driver that provisions a mode also provisions it from a snapshot."""
Object = dict[str, Any]


def expose(cluster: Cluster, snapshot: VolumeSnapshot, *, run: str, labels: Mapping[str, str]) -> Exposure:
    """Bind the cut into refloat's namespace and ask for a claim from it; one that is there already is kept.

    Raises:
        SnapshotFailed: The driver does not know the cut, or it has no handle yet.
        Conflict: The name is taken by something else.
    """
    volume, name = snapshot.volume, name_in_run(run, snapshot.volume.name)
    if snapshot.handle is None:
        raise SnapshotFailed(f"volume {volume.name} is not cut yet: there is nothing to expose")
    ensure_home(cluster)
    about = {"name": name, "namespace": HOME, "labels": labels_in_run(run, labels)}
    content = {
        "apiVersion": cluster.kind_of(CONTENT).api_version,
        "kind": "VolumeSnapshotContent",
        "metadata": {"name": name, "labels": about["labels"]},
        "spec": content_spec(cluster, snapshot, name),
    }
    made = create_or_keep(cluster, content)
    if made["spec"]["source"].get("snapshotHandle") != snapshot.handle:
        raise Conflict(f"VolumeSnapshotContent {name} exists and is of another cut than {snapshot.handle}")
    bound = {
        "apiVersion": cluster.kind_of(SNAPSHOT).api_version,
        "kind": "VolumeSnapshot",
        "metadata": about,
        "spec": {"source": {"volumeSnapshotContentName": name}},
    }
    create_or_keep(cluster, bound)
    size = max(volume.requested_bytes, snapshot.restore_bytes or 0, wait_usable(cluster, name, volume.name))
    claim = {"apiVersion": "v1", "kind": CLAIM, "metadata": about, "spec": claim_spec(cluster, volume, name, size)}
    create_or_keep(cluster, claim)
    return Exposure(volume=volume, namespace=HOME, claim=name, snapshot=snapshot)


def create_or_keep(cluster: Cluster, obj: Object) -> Object:
    """Create it, or give what is there under its name."""
    try:
        return cluster.create(obj)
    except ObjectExists:
        group = obj["apiVersion"].rpartition("/")[0]
        kind = f"{obj['kind']}.{group}" if group else obj["kind"]
        there = cluster.get(kind, obj["metadata"]["name"], obj["metadata"].get("namespace"))
        if "deletionTimestamp" in there["metadata"]:
            raise NotReady(f"{kind} {obj['metadata']['name']} of an earlier try is still being deleted") from None
        return there


def content_spec(cluster: Cluster, snapshot: VolumeSnapshot, name: str) -> Object:
    """The content: the same cut once more, whose data never goes with it."""
    chosen = class_of(cluster, CLASS, snapshot.volume.driver)
    return {
        "deletionPolicy": "Retain",
        "driver": snapshot.volume.driver,
        "source": {"snapshotHandle": snapshot.handle},
        "sourceVolumeMode": snapshot.volume.mode,
        "volumeSnapshotRef": {"kind": "VolumeSnapshot", "namespace": HOME, "name": name},
        **({"volumeSnapshotClassName": chosen} if chosen else {}),
    }


def wait_usable(cluster: Cluster, name: str, volume: str) -> int:
    """Wait until the driver has confirmed the cut; gives the bytes a claim from it needs at least."""

    def is_usable(obj: Object | None) -> bool:
        return bool(((obj or {}).get("status") or {}).get("readyToUse"))

    try:
        what = f"VolumeSnapshot {HOME}/{name} usable"
        cluster.wait(SNAPSHOT, name, HOME, is_usable, timeout=USABLE_WITHIN, what=what)
    except NotReady as late:
        content, bound = cluster.find(CONTENT, name), cluster.find(SNAPSHOT, name, HOME)
        words = error_in(content, bound) or late.message
        raise SnapshotFailed(f"the cut of volume {volume} could not be exposed: {words}") from late
    return int((cluster.get(CONTENT, name).get("status") or {}).get("restoreSize") or 0)


def claim_spec(cluster: Cluster, volume: Volume, name: str, size: int) -> Object:
    """The claim: as large and of the same class as the source, from the exposed snapshot."""
    modes = [mode for mode in READABLE_BY if mode in volume.access_modes] or ["ReadWriteOnce"]
    return {
        "accessModes": modes[:1],
        "volumeMode": volume.mode,
        "storageClassName": storage_class_of(cluster, volume),
        "resources": {"requests": {"storage": str(size)}},
        "dataSource": {"apiGroup": API, "kind": "VolumeSnapshot", "name": name},
    }


def storage_class_of(cluster: Cluster, volume: Volume) -> str:
    """The source's storage class, or any of its driver where that one is gone.

    Raises:
        Unsupported: No storage class of the driver is left.
    """
    classes = [each for each in cluster.list("StorageClass.storage.k8s.io") if each["provisioner"] == volume.driver]
    names = sorted(each["metadata"]["name"] for each in classes)
    if volume.storage_class in names:
        return str(volume.storage_class)
    if not names:
        raise Unsupported(
            f"volume {volume.name} cannot be exposed: no storage class provisions from its driver {volume.driver}",
            guidance=f"Create a StorageClass with provisioner {volume.driver}.",
        )
    return str(names[0])


def withdraw(cluster: Cluster, name: str) -> None:
    """Undo ``expose`` and wait until claim, volume, snapshot and content are gone; the cut itself stays.

    Raises:
        NotReady: Something is not gone in time.
    """
    wait_gone(cluster, ask_remove_claim(cluster, name), within=GONE_WITHIN)
    wait_gone(cluster, ask_unbind(cluster, name), within=GONE_WITHIN)


def ask_remove_claim(cluster: Cluster, name: str) -> list[ObjectRef]:
    """Ask for the deletion of a claim in refloat's namespace with its volume, whatever its class's policy.

    A volume that is being handed over (`kube.handover`) is left to its fate there.
    """
    claim = cluster.find(CLAIM, name, HOME)
    if claim is None:
        return []
    going = [ObjectRef(kind=CLAIM, namespace=HOME, name=name)]
    volume = claim["spec"].get("volumeName")
    if volume:
        found = cluster.find(PERSISTENT_VOLUME, volume)
        reference = (found or {}).get("spec", {}).get("claimRef") or {}
        if found is not None and reference.get("uid") == claim["metadata"]["uid"] and RECOVERY not in labels_of(found):
            going.append(ask_reclaim(cluster, found))
    cluster.delete(CLAIM, name, HOME, uid=claim["metadata"]["uid"])
    return going


def ask_reclaim(cluster: Cluster, volume: Mapping[str, Any]) -> ObjectRef:
    """Let a volume's data go with its claim."""
    name = volume["metadata"]["name"]
    if volume["spec"].get("persistentVolumeReclaimPolicy") != "Delete":
        with suppress(ObjectMissing):
            cluster.patch(PERSISTENT_VOLUME, name, None, {"spec": {"persistentVolumeReclaimPolicy": "Delete"}})
    return ObjectRef(kind=PERSISTENT_VOLUME, name=name)


def ask_unbind(cluster: Cluster, name: str) -> list[ObjectRef]:
    """Ask for the deletion of the exposed VolumeSnapshot and its content, but never of the cut's data."""
    content = cluster.find(CONTENT, name)
    if content is not None and content["spec"]["deletionPolicy"] != "Retain":
        cluster.patch(CONTENT, name, None, {"spec": {"deletionPolicy": "Retain"}})
    if cluster.delete(SNAPSHOT, name, HOME):
        wait_gone(cluster, [ObjectRef(kind=SNAPSHOT, namespace=HOME, name=name)], within=GONE_WITHIN)
    cluster.delete(CONTENT, name)
    return [ObjectRef(kind=CONTENT, name=name)]
