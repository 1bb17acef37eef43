"""Claims and persistent volumes: binding, provisioning, protection and reclaiming."""

from __future__ import annotations

from collections.abc import Iterable

from practice.controllers.loop import Key
from practice.controllers.scheduler import SELECTED_NODE, claim_names
from practice.kinds import SNAPSHOT, Object
from practice.store import Event, Store, stamp
from practice.volumes import DRIVER, Volumes, bytes_of

_CLAIMS, _VOLUMES = "persistentvolumeclaims", "persistentvolumes"
_CLASSES = "storageclasses.storage.k8s.io"
_PROTECTS_CLAIM, _PROTECTS_VOLUME = "kubernetes.io/pvc-protection", "kubernetes.io/pv-protection"
_PROVISIONED = "external-provisioner.volume.kubernetes.io/finalizer"


class Claims:
    """Keys: ("claim", namespace, name) and ("volume", name)."""

    def __init__(self, store: Store, volumes: Volumes) -> None:
        self._store, self._volumes = store, volumes

    def keys(self, event: Event) -> Iterable[Key]:
        """Claims and volumes themselves, the other side of each binding, and claims a pod or snapshot held up."""
        meta, key = event.object["metadata"], event.resource.key
        if key == _CLAIMS:
            yield ("claim", meta["namespace"], meta["name"])
            for volume in self._store.list(_VOLUMES):
                wanted = volume["spec"].get("claimRef") or {}
                if (wanted.get("namespace"), wanted.get("name")) == (meta["namespace"], meta["name"]):
                    yield ("volume", volume["metadata"]["name"])
        elif key == _VOLUMES:
            yield ("volume", meta["name"])
            for claim in self._store.list(_CLAIMS):
                if claim["status"].get("phase") != "Bound" or claim["spec"].get("volumeName") == meta["name"]:
                    yield ("claim", claim["metadata"]["namespace"], claim["metadata"]["name"])
        elif key == "pods" and (
            event.type == "DELETED" or event.object["status"].get("phase") in ("Succeeded", "Failed")
        ):
            for name in claim_names(event.object):
                yield ("claim", meta["namespace"], name)
        elif event.resource.key in (f"volumesnapshots.{SNAPSHOT}", _CLASSES):
            for claim in self._store.list(_CLAIMS, meta.get("namespace")):
                if claim["status"].get("phase") == "Pending":
                    yield ("claim", claim["metadata"]["namespace"], claim["metadata"]["name"])

    def reconcile(self, key: Key) -> float | None:
        """One claim or one volume."""
        if key[0] == "volume":
            self._volume(key[1])
        else:
            self._claim(key[1], key[2])
        return None

    # --- claims --------------------------------------------------------------------------------------------------

    def _claim(self, namespace: str, name: str) -> None:
        claim = self._store.peek(_CLAIMS, namespace, name)
        if claim is None:
            return
        if claim["metadata"].get("deletionTimestamp"):
            self._release(claim)
            return
        bound = claim["spec"].get("volumeName")
        if claim["status"].get("phase") == "Bound":
            if bound and self._store.peek(_VOLUMES, None, bound) is None:
                self._store.change(_CLAIMS, namespace, name, lambda new: new["status"].update(phase="Lost"))
            return
        volume = self._store.peek(_VOLUMES, None, bound) if bound else self._candidate(claim)
        if volume is not None:
            if _may_take(volume, claim):
                self._bind(claim, volume)
        elif not bound:
            self._provision(claim)

    def _candidate(self, claim: Object) -> Object | None:
        """A volume reserved for this claim, else a free one that fits."""
        rows = [one for one in self._store.list(_VOLUMES) if not one["metadata"].get("deletionTimestamp")]
        for volume in rows:
            if (volume["spec"].get("claimRef") or {}).get("name") and _may_take(volume, claim):
                return volume
        if claim["spec"].get("dataSource"):
            return None
        wanted = bytes_of(claim["spec"]["resources"]["requests"]["storage"])
        for volume in rows:
            same = volume["spec"].get("storageClassName", "") == (claim["spec"].get("storageClassName") or "")
            large = bytes_of(volume["spec"]["capacity"]["storage"]) >= wanted
            modes = set(claim["spec"]["accessModes"]) <= set(volume["spec"]["accessModes"])
            if not volume["spec"].get("claimRef") and same and large and modes:
                return volume
        return None

    def _bind(self, claim: Object, volume: Object) -> None:
        meta = claim["metadata"]
        reference = {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": meta["namespace"]}
        reference |= {"name": meta["name"], "uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
        by_us = not (volume["spec"].get("claimRef") or {}).get("name")

        def take(new: Object) -> None:
            if (new["spec"].get("claimRef") or {}).get("uid") != meta["uid"]:
                new["spec"]["claimRef"] = reference
            if by_us:
                new["metadata"].setdefault("annotations", {})["pv.kubernetes.io/bound-by-controller"] = "yes"
            new["status"] = {"phase": "Bound", "lastPhaseTransitionTime": stamp()}

        def fill(new: Object) -> None:
            notes = new["metadata"].setdefault("annotations", {})
            notes["pv.kubernetes.io/bind-completed"] = "yes"
            if not new["spec"].get("volumeName"):
                notes["pv.kubernetes.io/bound-by-controller"] = "yes"
            new["spec"]["volumeName"] = volume["metadata"]["name"]
            new["status"] = {"phase": "Bound", "accessModes": volume["spec"]["accessModes"]}
            new["status"]["capacity"] = volume["spec"]["capacity"]

        self._store.change(_VOLUMES, None, volume["metadata"]["name"], take)
        self._store.change(_CLAIMS, meta["namespace"], meta["name"], fill)

    def _provision(self, claim: Object) -> None:
        meta, spec = claim["metadata"], claim["spec"]
        known = self._store.peek(_CLASSES, None, spec.get("storageClassName") or "")
        if known is None or known["provisioner"] != DRIVER:
            return
        delayed = known["volumeBindingMode"] == "WaitForFirstConsumer"
        if delayed and SELECTED_NODE not in (meta.get("annotations") or {}):
            return
        source = None
        if spec.get("dataSource"):
            source = self._snapshot_of(claim)
            if source is None:
                return
        handle = f"vol-{meta['uid']}"
        self._volumes.make(handle, source=source)
        reference = {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": meta["namespace"]}
        reference |= {"name": meta["name"], "uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
        volume: Object = {
            "metadata": {
                "name": f"pvc-{meta['uid']}",
                "annotations": {"pv.kubernetes.io/provisioned-by": DRIVER},
                "finalizers": [_PROVISIONED] if known["reclaimPolicy"] == "Delete" else [],
            },
            "spec": {
                "capacity": {"storage": spec["resources"]["requests"]["storage"]},
                "accessModes": spec["accessModes"],
                "claimRef": reference,
                "csi": {"driver": DRIVER, "volumeHandle": handle},
                "persistentVolumeReclaimPolicy": known["reclaimPolicy"],
                "storageClassName": known["metadata"]["name"],
                "volumeMode": spec["volumeMode"],
            },
        }
        if self._store.peek(_VOLUMES, None, volume["metadata"]["name"]) is None:
            self._store.create(_VOLUMES, volume)

    def _snapshot_of(self, claim: Object) -> str | None:
        """The handle of the claim's data source once it is ready, and small enough for the claim."""
        source, namespace = claim["spec"]["dataSource"], claim["metadata"]["namespace"]
        if source["kind"] != "VolumeSnapshot":
            return None
        snapshot = self._store.peek(f"volumesnapshots.{SNAPSHOT}", namespace, source["name"])
        status = (snapshot or {}).get("status") or {}
        if not status.get("readyToUse"):
            return None
        if bytes_of(status.get("restoreSize", "0")) > bytes_of(claim["spec"]["resources"]["requests"]["storage"]):
            return None
        content = self._store.peek(f"volumesnapshotcontents.{SNAPSHOT}", None, status["boundVolumeSnapshotContentName"])
        handle = (content or {}).get("status", {}).get("snapshotHandle")
        return None if handle is None else str(handle)

    def _release(self, claim: Object) -> None:
        meta = claim["metadata"]
        for pod in self._store.list("pods", meta["namespace"]):
            over = pod["status"].get("phase") in ("Succeeded", "Failed")
            if meta["name"] in claim_names(pod) and not over and pod["spec"].get("nodeName"):
                return

        def free(new: Object) -> None:
            new["metadata"]["finalizers"] = [f for f in new["metadata"].get("finalizers") or [] if f != _PROTECTS_CLAIM]

        self._store.change(_CLAIMS, meta["namespace"], meta["name"], free)

    # --- volumes -------------------------------------------------------------------------------------------------

    def _volume(self, name: str) -> None:
        volume = self._store.peek(_VOLUMES, None, name)
        if volume is None:
            return
        reference = volume["spec"].get("claimRef") or {}
        claim = (
            self._store.peek(_CLAIMS, reference.get("namespace"), reference["name"]) if reference.get("name") else None
        )
        mine = claim is not None and reference.get("uid") in (None, "", claim["metadata"]["uid"])
        bound = mine and claim is not None and claim["spec"].get("volumeName") == name
        if bound and claim is not None and claim["status"].get("phase") != "Bound":
            return
        if bound:
            phase = "Bound"
        elif reference.get("uid") and not mine:
            phase = "Released"
        else:
            phase = "Bound" if reference.get("uid") else "Available"
        if volume["status"].get("phase") != phase and (phase != "Bound" or bound):
            fresh = {"phase": phase, "lastPhaseTransitionTime": stamp()}
            volume = self._store.change(_VOLUMES, None, name, lambda new: new.update(status=fresh)) or volume
        if phase == "Released" and volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete":
            self._reclaim(volume)
        elif volume["metadata"].get("deletionTimestamp") and not bound:
            self._let_go(name)

    def _reclaim(self, volume: Object) -> None:
        self._volumes.remove((volume["spec"].get("csi") or {}).get("volumeHandle", "none"))
        if not volume["metadata"].get("deletionTimestamp"):
            self._store.delete(_VOLUMES, None, volume["metadata"]["name"])
        self._let_go(volume["metadata"]["name"])

    def _let_go(self, name: str) -> None:
        def free(new: Object) -> None:
            mine = (_PROTECTS_VOLUME, _PROVISIONED)
            new["metadata"]["finalizers"] = [f for f in new["metadata"].get("finalizers") or [] if f not in mine]

        self._store.change(_VOLUMES, None, name, free)


def _may_take(volume: Object, claim: Object) -> bool:
    """Whether the volume is free or reserved for exactly this claim."""
    reference, meta = volume["spec"].get("claimRef") or {}, claim["metadata"]
    if volume["metadata"].get("deletionTimestamp"):
        return False
    if not reference.get("name"):
        return True
    same = (reference.get("namespace"), reference["name"]) == (meta["namespace"], meta["name"])
    return same and reference.get("uid") in (None, "", meta["uid"])
