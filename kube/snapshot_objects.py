"""Snapshot objects: the CSI snapshot API's kinds, what they say about a cut, and who belongs to whom.

Shapes as external-snapshotter v8 writes them: a VolumeSnapshot's content is ``snapcontent-<uid>``, a group's
``groupsnapcontent-<uid>``. A group's content names every member's handle and instant (nanoseconds) as soon as it is
cut; the members' own VolumeSnapshots follow seconds later, one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from kube.cluster import Cluster
from kube.quantity import to_bytes
from refloat.application import LABEL_PREFIX
from refloat.errors import Unsupported
from refloat.ports.volume_snapshotter import VolumeSnapshot

API, GROUP_API = "snapshot.storage.k8s.io", "groupsnapshot.storage.k8s.io"
SNAPSHOT, CONTENT, CLASS = (
    f"{kind}.{API}" for kind in ("VolumeSnapshot", "VolumeSnapshotContent", "VolumeSnapshotClass")
)
GROUP, GROUP_CONTENT, GROUP_CLASS = (
    f"{kind}.{GROUP_API}" for kind in ("VolumeGroupSnapshot", "VolumeGroupSnapshotContent", "VolumeGroupSnapshotClass")
)
GROUP_LABEL = f"{LABEL_PREFIX}/group"
"""On the claims of a group while the snapshot controller chooses them: the run's id."""
GROUP_HANDLE = f"{GROUP_API}/volumeGroupSnapshotHandle"
"""Annotation of a member's content: the group it was cut in."""
BEING_CREATED = (
    "snapshot.storage.kubernetes.io/volumesnapshot-being-created",
    "groupsnapshot.storage.kubernetes.io/volumegroupsnapshot-being-created",
)
"""Annotation of a content while its driver owes an answer: an error beside it is not the last word."""
PASSING = ("the object has been modified", "not found in the cache")
"""The snapshot controller reports its own write conflicts and stale caches as errors, and tries again."""
Object = dict[str, Any]


# ---- classes


def class_of(cluster: Cluster, kind: str, driver: str) -> str | None:
    """The snapshot class of a driver: its default, or the only one; None when it has none.

    Raises:
        Unsupported: It has several, and not exactly one of them is the default.
    """
    if not cluster.serves(kind):
        return None
    classes = [each for each in cluster.list(kind) if each["driver"] == driver]
    default = f"{kind.partition('.')[2].replace('k8s.io', 'kubernetes.io')}/is-default-class"
    marked = [each for each in classes if (each["metadata"].get("annotations") or {}).get(default) == "true"]
    chosen = marked if marked else classes
    if len(chosen) > 1:
        names, word = ", ".join(sorted(each["metadata"]["name"] for each in chosen)), kind.partition(".")[0]
        raise Unsupported(
            f"driver {driver} has several of {word} and no single default: {names}",
            guidance=f"Annotate one of them with {default}=true.",
        )
    return str(chosen[0]["metadata"]["name"]) if chosen else None


# ---- what they say


def instant(value: Any) -> datetime | None:
    """A creationTime: nanoseconds since 1970, or RFC 3339 text of whole seconds."""
    if value is None or value == "":
        return None
    if isinstance(value, int):
        return datetime.fromtimestamp(value // 10**9, UTC) + timedelta(microseconds=value % 10**9 // 1000)
    return datetime.fromisoformat(str(value))


def error_in(*objects: Mapping[str, Any] | None) -> str | None:
    """The driver's or controller's words, when they are the last ones."""
    for obj in objects:
        message = (((obj or {}).get("status") or {}).get("error") or {}).get("message")
        if message and not any(words in message for words in PASSING):
            return str(message)
    return None


def is_owed(content: Mapping[str, Any] | None) -> bool:
    """Whether the driver was asked and has not answered for good."""
    return any(each in ((content or {}).get("metadata", {}).get("annotations") or {}) for each in BEING_CREATED)


def judged(known: VolumeSnapshot, status: Mapping[str, Any], error: str | None, *, owed: bool) -> VolumeSnapshot:
    """The state that a content's status stands for: a handle and an instant are a cut."""
    handle, cut_at = status.get("snapshotHandle"), instant(status.get("creationTime"))
    if handle and cut_at:
        size = status.get("restoreSize")
        return replace(
            known,
            state="ready" if status.get("readyToUse") else "cut",
            cut_at=cut_at,
            handle=str(handle),
            restore_bytes=None if size is None else to_bytes(str(size)),
            reason=error,
        )
    return replace(known, state="failed" if error and not owed else "pending", reason=error)


def state_of_snapshot(cluster: Cluster, known: VolumeSnapshot) -> VolumeSnapshot:
    """What a VolumeSnapshot of a claim and its content say now."""
    snapshot = cluster.find(SNAPSHOT, known.name, known.namespace)
    if snapshot is None:
        return replace(known, state="failed", reason=f"VolumeSnapshot {known.namespace}/{known.name} is gone")
    content = content_of(cluster, snapshot)
    if content is not None:
        known = replace(known, content=content["metadata"]["name"])
    return judged(known, (content or {}).get("status") or {}, error_in(content, snapshot), owed=is_owed(content))


def states_of_group(cluster: Cluster, group: str, members: Iterable[VolumeSnapshot]) -> tuple[VolumeSnapshot, ...]:
    """What a group and its content say now of each member; one the driver left out has failed."""
    members = tuple(members)
    namespace = members[0].namespace
    found = cluster.find(GROUP, group, namespace)
    if found is None:
        reason = f"VolumeGroupSnapshot {namespace}/{group} is gone"
        return tuple(replace(each, state="failed", reason=reason) for each in members)
    content = group_content_of(cluster, found)
    status = (content or {}).get("status") or {}
    error, owed = error_in(content, found), is_owed(content)
    infos = {info["volumeHandle"]: info for info in infos_of(status)}
    chosen = ((content or {}).get("spec", {}).get("source") or {}).get("volumeHandles")
    states: list[VolumeSnapshot] = []
    for member in members:
        handle = member.volume.handle
        if (chosen is not None and handle not in chosen) or (infos and handle not in infos):
            reason = f"the group {namespace}/{group} was cut without it"
            states.append(replace(member, state="failed", reason=reason))
            continue
        info = {**infos.get(handle, {})}
        info["readyToUse"] = info.get("readyToUse") or status.get("readyToUse")
        states.append(judged(member, info, error, owed=owed))
    return tuple(states)


def infos_of(status: Mapping[str, Any]) -> list[Object]:
    """The members a group's content names; v1beta1 has pairs of handles and one instant for all."""
    pairs = status.get("volumeSnapshotHandlePairList") or []
    return list(
        status.get("volumeSnapshotInfoList") or [{**pair, "creationTime": status.get("creationTime")} for pair in pairs]
    )


# ---- who belongs to whom


def content_of(cluster: Cluster, snapshot: Mapping[str, Any]) -> Object | None:
    """The content of a VolumeSnapshot, bound both ways; None while there is none."""
    return _bound(cluster, snapshot, CONTENT, "boundVolumeSnapshotContentName", "snapcontent", "volumeSnapshotRef")


def group_content_of(cluster: Cluster, group: Mapping[str, Any]) -> Object | None:
    """The content of a VolumeGroupSnapshot, bound both ways; None while there is none."""
    status, prefix = "boundVolumeGroupSnapshotContentName", "groupsnapcontent"
    return _bound(cluster, group, GROUP_CONTENT, status, prefix, "volumeGroupSnapshotRef")


def _bound(cluster: Cluster, obj: Mapping[str, Any], kind: str, field: str, prefix: str, back: str) -> Object | None:
    uid = obj["metadata"]["uid"]
    content = cluster.find(kind, (obj.get("status") or {}).get(field) or f"{prefix}-{uid}")
    reference = (content or {}).get("spec", {}).get(back) or {}
    return content if reference.get("uid") == uid else None


def members_of(cluster: Cluster, group: Mapping[str, Any]) -> list[Object]:
    """The VolumeSnapshots the controller made for a group so far."""
    uid = group["metadata"]["uid"]
    return [
        each
        for each in cluster.list(SNAPSHOT, group["metadata"]["namespace"])
        if any(owner["uid"] == uid for owner in each["metadata"].get("ownerReferences") or [])
    ]
