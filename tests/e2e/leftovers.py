"""Leftovers: what runs left in a cluster, by label, and everything in refloat's own namespace."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from kube.cluster import Cluster
from kube.kinds import Kind
from refloat.application import LABEL_PREFIX, RUN_LABEL
from refloat.errors import NotReady, ObjectMissing

HOME = "refloat"
LABELS = (RUN_LABEL, f"{LABEL_PREFIX}/group")
"""What a run creates carries the first; claims of a group snapshot carry the second while it is cut."""
STAYS = {"ServiceAccount", "ConfigMap", "Event", "Event.events.k8s.io", "Lease.coordination.k8s.io"}
"""Kinds of which refloat's own namespace may hold some between runs."""
GOES_WITHIN = timedelta(seconds=30)
"""For what is deleted already and only waits for its finalizers or its owner's collection."""

Leftover = tuple[str, str, str]
"""Kind, namespace, name."""


def leftovers(cluster: Cluster) -> list[Leftover]:
    """Every object any run left: labelled with a run anywhere, or (but for what stays) in refloat's namespace."""
    kinds = [kind for kind in cluster.kinds() if {"list", "delete"} <= kind.verbs]
    with ThreadPoolExecutor(8) as pool:
        found = {each for many in pool.map(lambda kind: of_kind(cluster, kind), kinds) for each in many}
    return sorted(each for each in found if not goes(cluster, each))


def of_kind(cluster: Cluster, kind: Kind) -> list[Leftover]:
    """The leftovers of one kind."""
    try:
        objects = [each for label in LABELS for each in cluster.list(kind.name, labels=label)]
        if kind.namespaced and kind.name not in STAYS:
            objects += cluster.list(kind.name, HOME)
        elif kind.name in ("PersistentVolume", "VolumeSnapshotContent.snapshot.storage.k8s.io"):
            objects += [each for each in cluster.list(kind.name) if in_home(each)]
    except ObjectMissing:
        return []  # a kind that went away between discovery and now
    return [(kind.name, each["metadata"].get("namespace", ""), each["metadata"]["name"]) for each in objects]


def in_home(obj: dict[str, dict[str, dict[str, str]]]) -> bool:
    """Whether a cluster-scoped object of storage belongs to a claim or volume snapshot of refloat's namespace."""
    spec = obj["spec"]
    return any((spec.get(field) or {}).get("namespace") == HOME for field in ("claimRef", "volumeSnapshotRef"))


def goes(cluster: Cluster, leftover: Leftover) -> bool:
    """Whether it is on its way out, and then out."""
    kind, namespace, name = leftover
    obj = cluster.find(kind, name, namespace or None)
    if obj is None:
        return True
    metadata = obj["metadata"]
    if "deletionTimestamp" not in metadata and not metadata.get("ownerReferences"):
        return False
    try:
        cluster.wait(kind, name, namespace or None, lambda o: o is None, timeout=GOES_WITHIN, what=f"{name} gone")
    except NotReady:
        return False
    return True
