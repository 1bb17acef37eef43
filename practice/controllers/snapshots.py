"""Volume snapshots: cut as copies of folders, bound to their contents, deleted by policy (external-snapshotter v8)."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import timedelta

from practice.controllers.freezing import standing_still
from practice.controllers.kubelet import Kubelet
from practice.controllers.loop import Key
from practice.kinds import SNAPSHOT, Object
from practice.refusal import Refusal
from practice.store import Event, Store, stamp
from practice.volumes import DRIVER, Volumes, bytes_of
from refloat.clock import Deadline

SNAPSHOTS, CONTENTS = f"volumesnapshots.{SNAPSHOT}", f"volumesnapshotcontents.{SNAPSHOT}"
CLASSES = f"volumesnapshotclasses.{SNAPSHOT}"
_DEFAULT = "snapshot.storage.kubernetes.io/is-default-class"
_AS_SOURCE = "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection"
_BOUND = "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection"
IN_GROUP = "snapshot.storage.kubernetes.io/volumesnapshot-in-group-protection"
CONTENT_BOUND = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"
GROUP_HANDLE = "groupsnapshot.storage.k8s.io/volumeGroupSnapshotHandle"


class Snapshots:
    """Keys: ("snapshot", namespace, name) and ("content", name). A cut is ready ``ready_after`` later."""

    def __init__(self, store: Store, volumes: Volumes, kubelet: Kubelet, ready_after: timedelta) -> None:
        self._store, self._volumes, self._kubelet, self._ready_after = store, volumes, kubelet, ready_after
        self._ready: dict[str, Deadline] = {}

    def keys(self, event: Event) -> Iterable[Key]:
        """Snapshots, contents, the other side of each, and snapshots that wait for a claim."""
        meta, key = event.object["metadata"], event.resource.key
        if key == SNAPSHOTS:
            yield ("snapshot", meta["namespace"], meta["name"])
            name = (event.object.get("status") or {}).get("boundVolumeSnapshotContentName")
            if name:
                yield ("content", name)
        elif key == CONTENTS:
            yield ("content", meta["name"])
            about = event.object["spec"].get("volumeSnapshotRef") or {}
            if about.get("name"):
                yield ("snapshot", about.get("namespace", ""), about["name"])
        elif key == "persistentvolumeclaims":
            for one in self._store.list(SNAPSHOTS, meta["namespace"]):
                if one["spec"]["source"].get("persistentVolumeClaimName") == meta["name"]:
                    yield ("snapshot", meta["namespace"], one["metadata"]["name"])

    def reconcile(self, key: Key) -> float | None:
        """One snapshot or one content."""
        return self._content(key[1]) if key[0] == "content" else self._snapshot(key[1], key[2])

    # --- snapshots -----------------------------------------------------------------------------------------------

    def _snapshot(self, namespace: str, name: str) -> float | None:
        snapshot = self._store.peek(SNAPSHOTS, namespace, name)
        if snapshot is None:
            return None
        if snapshot["metadata"].get("deletionTimestamp"):
            return self._delete(snapshot)
        bound = (snapshot.get("status") or {}).get("boundVolumeSnapshotContentName")
        source = snapshot["spec"]["source"]
        wanted = bound or source.get("volumeSnapshotContentName")
        if not wanted:
            return self._begin(snapshot)
        content = self._store.peek(CONTENTS, None, wanted)
        if content is None:
            self._fail(snapshot, f"VolumeSnapshotContent [{wanted}] is missing")
            return None
        about = content["spec"]["volumeSnapshotRef"]
        if (about.get("namespace"), about.get("name")) != (namespace, name) or about.get("uid") not in (
            None,
            "",
            snapshot["metadata"]["uid"],
        ):
            self._fail(snapshot, f"VolumeSnapshotContent [{wanted}] is bound to a different snapshot")
            return None
        if not about.get("uid"):
            uid = snapshot["metadata"]["uid"]
            self._store.change(CONTENTS, None, wanted, lambda new: new["spec"]["volumeSnapshotRef"].update(uid=uid))
        self._mirror(snapshot, content)
        return None

    def _begin(self, snapshot: Object) -> float | None:
        """Make the content for a snapshot of a claim; the content is what is cut."""
        meta, source = snapshot["metadata"], snapshot["spec"]["source"]
        claim = self._store.peek(
            "persistentvolumeclaims", meta["namespace"], source.get("persistentVolumeClaimName", "")
        )
        if claim is None or claim["status"].get("phase") != "Bound":
            text = f"the PVC {source.get('persistentVolumeClaimName')} is not yet bound to a PV"
            self._fail(snapshot, f"Failed to create snapshot content with error snapshot controller failed: {text}")
            return None
        volume = self._store.read("persistentvolumes", None, claim["spec"]["volumeName"])
        driver = (volume["spec"].get("csi") or {}).get("driver", "")
        try:
            chosen = default_class(self._store, CLASSES, snapshot["spec"].get("volumeSnapshotClassName"), driver)
        except Refusal as refusal:
            self._fail(snapshot, f"Failed to get snapshot class with error {refusal.message}")
            return None

        def choose(new: Object) -> None:
            new["spec"]["volumeSnapshotClassName"] = chosen["metadata"]["name"]
            new["metadata"]["finalizers"] = _with(new, _AS_SOURCE, _BOUND)

        self._store.change(SNAPSHOTS, meta["namespace"], meta["name"], choose)
        reference = {"apiVersion": f"{SNAPSHOT}/v1", "kind": "VolumeSnapshot", "namespace": meta["namespace"]}
        reference |= {"name": meta["name"], "uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
        spec = {"deletionPolicy": chosen["deletionPolicy"], "driver": driver, "volumeSnapshotRef": reference}
        spec |= {"source": {"volumeHandle": volume["spec"]["csi"]["volumeHandle"]}}
        spec |= {"sourceVolumeMode": "Filesystem", "volumeSnapshotClassName": chosen["metadata"]["name"]}
        name = f"snapcontent-{meta['uid']}"
        if self._store.peek(CONTENTS, None, name) is None:
            self._store.create(CONTENTS, {"metadata": {"name": name, "finalizers": [CONTENT_BOUND]}, "spec": spec})
        self._status(snapshot, {"boundVolumeSnapshotContentName": name, "readyToUse": False})
        return None

    def _mirror(self, snapshot: Object, content: Object) -> None:
        known, status = content.get("status") or {}, {"boundVolumeSnapshotContentName": content["metadata"]["name"]}
        ready: Object = status | {"readyToUse": bool(known.get("readyToUse"))}
        if "creationTime" in known:
            ready["creationTime"] = nanoseconds_to_time(known["creationTime"])
        if "restoreSize" in known:
            ready["restoreSize"] = quantity(known["restoreSize"])
        if "error" in known:
            ready["error"] = known["error"]
        if group := (snapshot.get("status") or {}).get("volumeGroupSnapshotName"):
            ready["volumeGroupSnapshotName"] = group
        self._status(snapshot, ready)

    def _status(self, snapshot: Object, status: Object) -> None:
        meta = snapshot["metadata"]

        def act(new: Object) -> None:
            new["status"] = status
            if not meta.get("deletionTimestamp"):
                new["metadata"]["finalizers"] = _with(new, _AS_SOURCE, *(() if IN_GROUP in _with(new) else (_BOUND,)))

        self._store.change(SNAPSHOTS, meta["namespace"], meta["name"], act)

    def _fail(self, snapshot: Object, text: str) -> None:
        before = ((snapshot.get("status") or {}).get("error") or {}).get("message")
        if before != text:
            old = {name: value for name, value in (snapshot.get("status") or {}).items() if name != "error"}
            status = old | {"readyToUse": False, "error": {"message": text, "time": stamp()}}
            self._store.change(
                SNAPSHOTS,
                snapshot["metadata"]["namespace"],
                snapshot["metadata"]["name"],
                lambda new: new.update(status=status),
            )

    def _delete(self, snapshot: Object) -> float | None:
        meta = snapshot["metadata"]
        bound = (snapshot.get("status") or {}).get("boundVolumeSnapshotContentName", "")
        content = self._store.peek(CONTENTS, None, bound)
        mine = content is not None and content["spec"]["volumeSnapshotRef"].get("uid") == meta["uid"]
        if IN_GROUP in (meta.get("finalizers") or []) and self._group_lives(snapshot):
            return None
        for claim in self._store.list("persistentvolumeclaims", meta["namespace"]):
            source = claim["spec"].get("dataSource") or {}
            pending = claim["status"].get("phase") == "Pending" and source.get("kind") == "VolumeSnapshot"
            if pending and source.get("name") == meta["name"] and not claim["metadata"].get("deletionTimestamp"):
                return 0.2
        if mine and content is not None and content["spec"]["deletionPolicy"] == "Delete":
            if not content["metadata"].get("deletionTimestamp"):
                self._store.delete(CONTENTS, None, bound)
            if self._store.peek(CONTENTS, None, bound) is not None:
                return 0.05
        self._store.change(
            SNAPSHOTS, meta["namespace"], meta["name"], lambda new: new["metadata"].update(finalizers=[])
        )
        return None

    def _group_lives(self, snapshot: Object) -> bool:
        owners = [self._store.of_uid(owner["uid"]) for owner in snapshot["metadata"].get("ownerReferences") or []]
        return any(owner is not None and not owner[1]["metadata"].get("deletionTimestamp") for owner in owners)

    # --- contents ------------------------------------------------------------------------------------------------

    def _content(self, name: str) -> float | None:
        content = self._store.peek(CONTENTS, None, name)
        if content is None or content["spec"]["driver"] != DRIVER:
            return None
        status, about = content.get("status") or {}, content["spec"]["volumeSnapshotRef"]
        if content["metadata"].get("deletionTimestamp"):
            return self._delete_content(content)
        if CONTENT_BOUND not in (content["metadata"].get("finalizers") or []):
            self._store.change(
                CONTENTS, None, name, lambda new: new["metadata"].update(finalizers=_with(new, CONTENT_BOUND))
            )
        if status.get("readyToUse"):
            return None
        if "snapshotHandle" in status:
            return self._ripen(name)
        if handle := content["spec"]["source"].get("snapshotHandle"):
            self._adopt(name, handle)
        elif GROUP_HANDLE not in (content["metadata"].get("annotations") or {}):
            claim = self._store.peek(SNAPSHOTS, about.get("namespace"), about["name"])
            if claim is not None:
                self._cut(content, claim)
                return self._left(name)
        return None

    def _left(self, name: str) -> float:
        deadline = self._ready.setdefault(name, Deadline.after(self._ready_after))
        return max(0.0, deadline.remaining.total_seconds())

    def _ripen(self, name: str) -> float | None:
        """Ready, once its time has come."""
        if (left := self._left(name)) > 0:
            return left
        self._store.change(CONTENTS, None, name, lambda new: new["status"].update(readyToUse=True))
        return None

    def _adopt(self, name: str, handle: str) -> None:
        if self._volumes.exists(handle):
            status: Object = {"snapshotHandle": handle, "readyToUse": True, "creationTime": time.time_ns()}
            status["restoreSize"] = 0
        else:
            status = {"readyToUse": False, "error": {"message": f"snapshot {handle} does not exist", "time": stamp()}}
        self._store.change(CONTENTS, None, name, lambda new: new.update(status=status))

    def _cut(self, content: Object, snapshot: Object) -> None:
        meta, volume = content["metadata"], content["spec"]["source"]["volumeHandle"]
        claim = (snapshot["metadata"]["namespace"], snapshot["spec"]["source"]["persistentVolumeClaimName"])
        handle = f"snap-{meta['uid']}"
        with standing_still(self._store, self._kubelet, {claim}):
            at = time.time_ns()
            self._volumes.snapshot(volume, handle)
        status = {"snapshotHandle": handle, "creationTime": at, "readyToUse": False}
        status["restoreSize"] = capacity_of(self._store, volume)
        self._store.change(CONTENTS, None, meta["name"], lambda new: new.update(status=status))

    def _delete_content(self, content: Object) -> float | None:
        meta, spec = content["metadata"], content["spec"]
        about = spec["volumeSnapshotRef"]
        snapshot = self._store.peek(SNAPSHOTS, about.get("namespace"), about.get("name", ""))
        bound = snapshot is not None and snapshot["metadata"]["uid"] == about.get("uid")
        if bound and snapshot is not None and not snapshot["metadata"].get("deletionTimestamp"):
            return None
        if spec["deletionPolicy"] == "Delete" and (handle := (content.get("status") or {}).get("snapshotHandle")):
            self._volumes.remove(handle)
        self._store.change(CONTENTS, None, meta["name"], lambda new: new["metadata"].update(finalizers=[]))
        return None


def _with(obj: Object, *finalizers: str) -> list[str]:
    present = list(obj["metadata"].get("finalizers") or [])
    return present + [one for one in finalizers if one not in present]


def default_class(store: Store, key: str, name: str | None, driver: str) -> Object:
    """The snapshot class of that name, or the driver's default; 404 when there is none or not exactly one."""
    if name:
        return store.read(key, None, name)
    rows = [one for one in store.list(key) if one["driver"] == driver]
    marked = [
        one
        for one in rows
        if "true"
        in (v for k, v in (one["metadata"].get("annotations") or {}).items() if k.endswith("is-default-class"))
    ]
    if len(marked) != 1:
        raise Refusal(404, f"{len(marked)} default snapshot classes were found for driver {driver}")
    return marked[0]


def capacity_of(store: Store, handle: str) -> int:
    """The size of the persistent volume with this handle, in bytes."""
    for volume in store.list("persistentvolumes"):
        if (volume["spec"].get("csi") or {}).get("volumeHandle") == handle:
            return bytes_of(volume["spec"]["capacity"]["storage"])
    return 0


def nanoseconds_to_time(nanoseconds: int) -> str:
    """meta/v1 Time of a content's creationTime."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(nanoseconds / 1e9))


def quantity(number: int) -> str:
    """Bytes as the largest exact binary quantity (``16Mi``)."""
    for unit, factor in (("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
        if number and number % factor == 0:
            return f"{number // factor}{unit}"
    return str(number)
