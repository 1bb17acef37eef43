"""Group snapshots: every chosen claim cut while all their pods stand still, then one VolumeSnapshot for each.

Names, finalizers and fields are those external-snapshotter v8 was seen to write on the lab.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from datetime import timedelta

from practice.controllers.freezing import standing_still
from practice.controllers.kubelet import Kubelet
from practice.controllers.loop import Key
from practice.controllers.snapshots import (
    CONTENT_BOUND,
    CONTENTS,
    GROUP_HANDLE,
    IN_GROUP,
    SNAPSHOTS,
    capacity_of,
    default_class,
    nanoseconds_to_time,
)
from practice.kinds import GROUP_SNAPSHOT, Object
from practice.refusal import Refusal
from practice.selectors import by_label_selector
from practice.store import Event, Store, stamp
from practice.volumes import Volumes
from refloat.clock import Deadline

GROUPS, GROUP_CONTENTS = f"volumegroupsnapshots.{GROUP_SNAPSHOT}", f"volumegroupsnapshotcontents.{GROUP_SNAPSHOT}"
GROUP_CLASSES = f"volumegroupsnapshotclasses.{GROUP_SNAPSHOT}"
_BOUND = "groupsnapshot.storage.kubernetes.io/volumegroupsnapshot-bound-protection"
_CONTENT_BOUND = "groupsnapshot.storage.kubernetes.io/volumegroupsnapshotcontent-bound-protection"
_BEING_DELETED = "groupsnapshot.storage.kubernetes.io/volumegroupsnapshot-being-deleted"
_ORPHAN = ""
"""In place of a namespace: the key is of a content."""


class GroupSnapshots:
    """Keys: (namespace, name) of a VolumeGroupSnapshot."""

    def __init__(self, store: Store, volumes: Volumes, kubelet: Kubelet, ready_after: timedelta) -> None:
        self._store, self._volumes, self._kubelet, self._ready_after = store, volumes, kubelet, ready_after
        self._ready: dict[str, Deadline] = {}

    def keys(self, event: Event) -> Iterable[Key]:
        """The group itself, and the group of a member that moved."""
        meta = event.object["metadata"]
        if event.resource.key == GROUPS:
            yield (meta["namespace"], meta["name"])
        elif event.resource.key == GROUP_CONTENTS and meta.get("deletionTimestamp"):
            yield (_ORPHAN, meta["name"])
        elif event.resource.key == SNAPSHOTS:
            for owner in meta.get("ownerReferences") or []:
                if owner["kind"] == "VolumeGroupSnapshot":
                    yield (meta["namespace"], owner["name"])

    def reconcile(self, key: Key) -> float | None:
        """Cut a new group, mark it ready when its members are, or take it apart; let an orphaned content go."""
        if key[0] == _ORPHAN:
            return self._let_go(key[1])
        group = self._store.peek(GROUPS, *key)
        if group is None:
            return None
        if group["metadata"].get("deletionTimestamp"):
            return self._delete(group)
        status = group.get("status") or {}
        if not status.get("boundVolumeGroupSnapshotContentName"):
            self._begin(group)
        elif not status.get("readyToUse"):
            return self._finish(group)
        return None

    def _begin(self, group: Object) -> None:
        meta, namespace = group["metadata"], group["metadata"]["namespace"]
        wanted = by_label_selector(group["spec"]["source"].get("selector"))
        claims = [claim for claim in self._store.list("persistentvolumeclaims", namespace) if wanted(claim)]
        try:
            if not claims:
                raise Refusal(404, "no PersistentVolumeClaims matched the label selector")
            rows = [self._volume_of(claim) for claim in claims]
            driver = rows[0]["spec"]["csi"]["driver"]
            if any(row["spec"]["csi"]["driver"] != driver for row in rows):
                raise Refusal(400, "snapshot controller failed: volumes of different drivers in one group")
            chosen = default_class(
                self._store, GROUP_CLASSES, group["spec"].get("volumeGroupSnapshotClassName"), driver
            )
        except Refusal as refusal:
            error = {
                "message": f"Failed to create group snapshot content with error {refusal.message}",
                "time": stamp(),
            }
            self._write(group, {"readyToUse": False, "error": error})
            return
        handle, members = f"groupsnap-{meta['uid']}", []
        handles = [row["spec"]["csi"]["volumeHandle"] for row in rows]
        names = {(namespace, claim["metadata"]["name"]) for claim in claims}
        with standing_still(self._store, self._kubelet, names):
            at = time.time_ns()
            for number, volume in enumerate(handles):
                self._volumes.snapshot(volume, f"snap-{meta['uid']}-{number}")
                size = capacity_of(self._store, volume)
                row = {"creationTime": at, "readyToUse": True, "restoreSize": size, "volumeHandle": volume}
                members.append(row | {"snapshotHandle": f"snap-{meta['uid']}-{number}"})
        self._write(
            group, {"boundVolumeGroupSnapshotContentName": f"groupsnapcontent-{meta['uid']}", "readyToUse": False}
        )
        self._make_content(group, chosen, driver, handle, members)
        for claim, member in zip(claims, members, strict=True):
            self._make_member(group, chosen, driver, handle, claim, member)

    def _volume_of(self, claim: Object) -> Object:
        if claim["status"].get("phase") != "Bound":
            raise Refusal(400, f"the PVC {claim['metadata']['name']} is not yet bound to a PV")
        volume = self._store.read("persistentvolumes", None, claim["spec"]["volumeName"])
        if "csi" not in volume["spec"]:
            raise Refusal(400, f"the PV {volume['metadata']['name']} is not a CSI volume")
        return volume

    def _write(self, group: Object, status: Object) -> None:
        def act(new: Object) -> None:
            new["status"] = status
            finalizers = new["metadata"].setdefault("finalizers", [])
            if _BOUND not in finalizers and "error" not in status:
                finalizers.append(_BOUND)

        self._store.change(GROUPS, group["metadata"]["namespace"], group["metadata"]["name"], act)

    def _make_content(self, group: Object, chosen: Object, driver: str, handle: str, members: list[Object]) -> None:
        meta = group["metadata"]
        reference = {"apiVersion": f"{GROUP_SNAPSHOT}/v1", "kind": "VolumeGroupSnapshot", "name": meta["name"]}
        reference |= {"namespace": meta["namespace"], "uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
        spec = {"deletionPolicy": chosen["deletionPolicy"], "driver": driver, "volumeGroupSnapshotRef": reference}
        spec["source"] = {"volumeHandles": [member["volumeHandle"] for member in members]}
        spec["volumeGroupSnapshotClassName"] = chosen["metadata"]["name"]
        name = f"groupsnapcontent-{meta['uid']}"
        self._ready[name] = Deadline.after(self._ready_after)
        self._store.create(GROUP_CONTENTS, {"metadata": {"name": name, "finalizers": [_CONTENT_BOUND]}, "spec": spec})
        status = {"creationTime": nanoseconds_to_time(members[0]["creationTime"]), "readyToUse": False}
        status |= {"volumeGroupSnapshotHandle": handle, "volumeSnapshotInfoList": members}
        self._store.change(GROUP_CONTENTS, None, name, lambda new: new.update(status=status))

    def _make_member(
        self, group: Object, chosen: Object, driver: str, handle: str, claim: Object, member: Object
    ) -> None:
        meta = group["metadata"]
        digest = hashlib.sha256(f"{meta['uid']}{member['volumeHandle']}".encode()).hexdigest()
        owner = {
            "apiVersion": f"{GROUP_SNAPSHOT}/v1",
            "kind": "VolumeGroupSnapshot",
            "name": meta["name"],
            "uid": meta["uid"],
        }
        about = {
            "name": f"snapshot-{digest}",
            "namespace": meta["namespace"],
            "ownerReferences": [owner],
            "finalizers": [IN_GROUP],
        }
        source = {"source": {"persistentVolumeClaimName": claim["metadata"]["name"]}}
        bound = {"boundVolumeSnapshotContentName": f"snapcontent-{digest}", "readyToUse": False}
        with self._store.lock:
            made = self._store.create(SNAPSHOTS, {"metadata": about, "spec": source})
            bound |= {"volumeGroupSnapshotName": meta["name"]}
            self._store.change(SNAPSHOTS, meta["namespace"], about["name"], lambda new: new.update(status=bound))
            reference = {"kind": "VolumeSnapshot", "name": about["name"], "namespace": meta["namespace"]}
            reference["uid"] = made["metadata"]["uid"]
            spec = {"deletionPolicy": chosen["deletionPolicy"], "driver": driver, "volumeSnapshotRef": reference}
            spec |= {"source": {"volumeHandle": member["volumeHandle"]}, "sourceVolumeMode": "Filesystem"}
            content_meta: Object = {
                "name": f"snapcontent-{digest}",
                "annotations": {GROUP_HANDLE: handle},
                "finalizers": [CONTENT_BOUND],
            }
            self._store.create(CONTENTS, {"metadata": content_meta, "spec": spec})
            status = {name: value for name, value in member.items() if name != "volumeHandle"}
            status |= {"volumeGroupSnapshotHandle": handle, "readyToUse": False}
            self._store.change(CONTENTS, None, content_meta["name"], lambda new: new.update(status=status))

    def _let_go(self, name: str) -> float | None:
        """A content whose group is gone goes once it is marked as being deleted, by policy Delete with its data."""
        content = self._store.peek(GROUP_CONTENTS, None, name)
        if content is None or not content["metadata"].get("deletionTimestamp"):
            return None
        about = content["spec"]["volumeGroupSnapshotRef"]
        group = self._store.peek(GROUPS, about["namespace"], about["name"])
        if group is not None or _BEING_DELETED not in (content["metadata"].get("annotations") or {}):
            return None
        if content["spec"]["deletionPolicy"] == "Delete":
            for member in content["status"]["volumeSnapshotInfoList"]:
                self._volumes.remove(member["snapshotHandle"])
        self._store.change(GROUP_CONTENTS, None, name, lambda new: new["metadata"].update(finalizers=[]))
        return None

    def _members(self, group: Object) -> list[Object]:
        uid = group["metadata"]["uid"]
        rows = self._store.list(SNAPSHOTS, group["metadata"]["namespace"])
        return [one for one in rows if any(o["uid"] == uid for o in one["metadata"].get("ownerReferences") or [])]

    def _finish(self, group: Object) -> float | None:
        """Ready with its content. Its members become so in their own time, maybe later, as on the real thing."""
        name = group["status"]["boundVolumeGroupSnapshotContentName"]
        content = self._store.peek(GROUP_CONTENTS, None, name)
        if content is None:
            return None
        if (left := self._ready[name].remaining.total_seconds()) > 0:
            return left
        self._store.change(GROUP_CONTENTS, None, name, lambda new: new["status"].update(readyToUse=True))
        self._write(group, group["status"] | {"readyToUse": True, "creationTime": content["status"]["creationTime"]})
        return None

    def _delete(self, group: Object) -> float | None:
        """By policy Delete the content goes first; then the group, its members marked; these go in their own time."""
        meta = group["metadata"]
        name = (group.get("status") or {}).get("boundVolumeGroupSnapshotContentName", "")
        content = self._store.peek(GROUP_CONTENTS, None, name)
        if content is not None and content["spec"]["deletionPolicy"] == "Delete":
            if not content["metadata"].get("deletionTimestamp"):
                self._store.delete(GROUP_CONTENTS, None, name)
            self._store.change(GROUP_CONTENTS, None, name, lambda new: new["metadata"].update(finalizers=[]))
        for member in self._members(group):
            if not member["metadata"].get("deletionTimestamp"):
                self._store.delete(SNAPSHOTS, meta["namespace"], member["metadata"]["name"])
        self._store.change(GROUPS, meta["namespace"], meta["name"], lambda new: new["metadata"].update(finalizers=[]))
        return None
