"""Discarding: snapshots, groups and contents are deleted so that the data goes with them, and nothing gets stuck.

Every ``ask_…`` asks for deletions and gives what is then to go; ``wait_gone`` waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from kube.cluster import Cluster
from kube.marks import annotations_of
from kube.snapshot_objects import (
    CONTENT,
    GROUP,
    GROUP_CONTENT,
    GROUP_HANDLE,
    SNAPSHOT,
    content_of,
    error_in,
    group_content_of,
    infos_of,
    members_of,
)
from refloat.clock import Deadline, pause
from refloat.errors import NotReady, ObjectMissing
from refloat.recovery_point import ObjectRef

IN_GROUP = "snapshot.storage.kubernetes.io/volumesnapshot-in-group-protection"
SETTLED_WITHIN = timedelta(seconds=60)
"""How long the controller may take to make the members of a group that was cut: seconds for each."""
BEING_DELETED = {
    CONTENT: "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted",
    GROUP_CONTENT: "groupsnapshot.storage.kubernetes.io/volumegroupsnapshot-being-deleted",
}
"""Annotation without which a driver's sidecar does not delete a content's data."""


def reference_to(obj: Mapping[str, Any], kind: str) -> ObjectRef:
    """The name of an object."""
    return ObjectRef(kind=kind, namespace=obj["metadata"].get("namespace", ""), name=obj["metadata"]["name"])


def own_data(cluster: Cluster, kind: str, content: Mapping[str, Any]) -> None:
    """Let the cut go with its content. A content that only points to a cut of another's is left as it is."""
    source = content["spec"]["source"]
    if content["spec"]["deletionPolicy"] == "Delete" or not (source.get("volumeHandle") or source.get("volumeHandles")):
        return
    with suppress(ObjectMissing):
        cluster.patch(kind, content["metadata"]["name"], None, {"spec": {"deletionPolicy": "Delete"}})


def ask_discard(cluster: Cluster, snapshot: Mapping[str, Any]) -> list[ObjectRef]:
    """Ask for the deletion of a VolumeSnapshot with its data, whatever its class's policy; what is then to go."""
    going = [reference_to(snapshot, SNAPSHOT)]
    content = content_of(cluster, snapshot)
    if content is not None:
        own_data(cluster, CONTENT, content)
        going.append(reference_to(content, CONTENT))
    cluster.delete(SNAPSHOT, going[0].name, going[0].namespace, uid=snapshot["metadata"]["uid"])
    return going


def ask_discard_group(cluster: Cluster, group: Mapping[str, Any]) -> list[ObjectRef]:
    """The same for a group and all its members, which do not go one by one.

    Two things were seen with external-snapshotter 8.6, for which the controller is given time first, and which are
    mended where it did not suffice: a group deleted before it is bound goes at once and leaves its content, cut
    included, to nobody; and a member deleted before its status names its group keeps that group's finalizer for ever.
    """
    wait_settled(cluster, group)
    going = [reference_to(group, GROUP)]
    content = group_content_of(cluster, group)
    if content is not None:
        own_data(cluster, GROUP_CONTENT, content)
    for member in members_of(cluster, group):
        going.append(reference_to(member, SNAPSHOT))
        bound = content_of(cluster, member)
        if bound is not None:
            own_data(cluster, CONTENT, bound)
            going.append(reference_to(bound, CONTENT))
    cluster.delete(GROUP, going[0].name, going[0].namespace, uid=group["metadata"]["uid"])
    if content is not None:
        going += ask_discard_content(cluster, GROUP_CONTENT, content)
    with suppress(NotReady):  # told by whoever waits for what is going
        wait_gone(cluster, going[:1], within=SETTLED_WITHIN)
        for member in members_of(cluster, group):
            going += ask_release_member(cluster, member)
        going += ask_discard_members(cluster, content)
    return list(dict.fromkeys(going))


def ask_discard_members(cluster: Cluster, content: Mapping[str, Any] | None) -> list[ObjectRef]:
    """Ask for the deletion of contents of a group's members, by the group's content, which lost their snapshots."""
    handle, going = ((content or {}).get("status") or {}).get("volumeGroupSnapshotHandle"), list[ObjectRef]()
    for each in cluster.list(CONTENT) if handle else ():
        reference = each["spec"]["volumeSnapshotRef"]
        is_member = annotations_of(each).get(GROUP_HANDLE) == handle
        if is_member and cluster.find(SNAPSHOT, reference["name"], reference["namespace"]) is None:
            going += ask_discard_content(cluster, CONTENT, each)
    return going


def wait_settled(cluster: Cluster, group: Mapping[str, Any]) -> None:
    """Give the controller time to make and bind every member of a group that was cut."""
    deadline = Deadline.after(SETTLED_WITHIN)
    while not deadline.is_over:
        content = group_content_of(cluster, group)
        status = (content or {}).get("status") or {}
        if content is None or not infos_of(status):
            if content is None or error_in(content, group) or "deletionTimestamp" in group["metadata"]:
                return
        elif len([each for each in members_of(cluster, group) if names_its_group(each)]) >= len(infos_of(status)):
            return
        pause(timedelta(milliseconds=200))


def names_its_group(snapshot: Mapping[str, Any]) -> bool:
    """Whether a member's status names its group."""
    return bool((snapshot.get("status") or {}).get("volumeGroupSnapshotName"))


def ask_release_member(cluster: Cluster, member: Mapping[str, Any]) -> list[ObjectRef]:
    """Delete a member whose group is gone, and take off the finalizer that nobody else will."""
    ref = reference_to(member, SNAPSHOT)
    cluster.delete(SNAPSHOT, ref.name, ref.namespace, uid=member["metadata"]["uid"])
    finalizers = member["metadata"].get("finalizers") or []
    if IN_GROUP in finalizers and not names_its_group(member):
        with suppress(ObjectMissing):
            kept = [each for each in finalizers if each != IN_GROUP]
            cluster.patch(SNAPSHOT, ref.name, ref.namespace, {"metadata": {"finalizers": kept}})
    content = content_of(cluster, member)
    return [ref, *(ask_discard_content(cluster, CONTENT, content) if content is not None else [])]


def ask_discard_content(cluster: Cluster, kind: str, content: Mapping[str, Any]) -> list[ObjectRef]:
    """Ask for the deletion of a content whose snapshot or group goes or is gone, with its data."""
    ref = reference_to(content, kind)
    own_data(cluster, kind, content)
    with suppress(ObjectMissing):
        cluster.patch(kind, ref.name, None, {"metadata": {"annotations": {BEING_DELETED[kind]: "yes"}}})
    cluster.delete(kind, ref.name, uid=content["metadata"]["uid"])
    return [ref]


def wait_gone(cluster: Cluster, going: Iterable[ObjectRef], *, within: timedelta) -> None:
    """Wait until every one is gone, together at most so long.

    Raises:
        NotReady: Some are not; the message names them and what holds them.
    """
    deadline, stuck = Deadline.after(within), list[str]()
    for ref in going:
        remaining = max(timedelta(seconds=1), deadline.remaining)
        try:
            cluster.wait(
                ref.kind,
                ref.name,
                ref.namespace or None,
                lambda obj: obj is None,
                timeout=remaining,
                what=f"{ref} gone",
            )
        except NotReady:
            left = cluster.find(ref.kind, ref.name, ref.namespace or None)
            if left is not None:
                held = ", ".join(left["metadata"].get("finalizers") or []) or "nothing"
                stuck.append(f"{ref} (held by {held})")
    if stuck:
        raise NotReady(f"deleted, and not gone within {within.total_seconds():.0f} s: {'; '.join(stuck)}")
