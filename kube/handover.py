"""Handover: a claim filled in refloat's own namespace, and its volume then given to the application's claim.

The steps, each of which may be the last before a crash, and all of which a later run finishes:

1. a claim in refloat's namespace is filled by ``extract`` and marked as filled;
2. its PersistentVolume is marked and set to Retain, in one write: from here the volume outlives its claim;
3. that claim is deleted, and the volume reserved for the application's claim (``claimRef`` without uid);
4. the application's claim is created on the volume and bound;
5. the volume gets its reclaim policy back and loses its marks, in one write.

At each instant the filled data hangs on the first claim, on a marked Retain volume, or on the application's claim.
Moving a volume by ``claimRef`` is how volume populators do it (kubernetes-csi/lib-volume-populator); that a claim with
a volume's name binds at once, whatever its class's binding mode, is documented under "Reserving a PersistentVolume"
(https://kubernetes.io/docs/concepts/storage/persistent-volumes/#reserving-a-persistentvolume).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from kube.cluster import Cluster
from kube.home import HOME, ensure_home, labels_in_run
from kube.marks import (
    FILLED,
    FOR_CLAIM,
    RECLAIM_POLICY,
    RECOVERED_BY,
    RECOVERED_FROM,
    RECOVERY,
    annotations_of,
    is_recovered_from,
    labels_of,
)
from kube.membership import CLAIM
from refloat.application import RUN_LABEL
from refloat.errors import Conflict, NotReady, ObjectExists, ObjectMissing

VOLUME = "PersistentVolume"
Object = dict[str, Any]
WRITABLE = {"ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"}
TRIES = 10
BOUND_WITHIN = timedelta(minutes=2)
GONE_WITHIN = timedelta(minutes=5)
"""A claim goes when the pod that mounts it has gone; a pod on a lost node takes minutes."""
MEBIBYTE = 1 << 20
HEADROOM_BYTES = 64 * MEBIBYTE


@dataclass(frozen=True)
class Handover:
    """One claim of the application on its way back from one recovery point."""

    cluster: Cluster
    point_id: str
    run: str
    namespace: str
    manifest: Mapping[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """Name of the application's claim."""
        return str(self.manifest["metadata"]["name"])

    @property
    def target(self) -> str:
        """The application's claim as ``namespace/name``."""
        return f"{self.namespace}/{self.name}"

    @property
    def home_name(self) -> str:
        """Name of the claim in refloat's namespace: the same for every run of this recovery."""
        return "recover-" + hashlib.sha256(f"{self.point_id} {self.target}".encode()).hexdigest()[:24]

    # ---- 1: filling

    def filled(self, spec: Object, extract: Callable[[str], object]) -> Object:
        """The claim in refloat's namespace, bound and filled, whoever began it."""
        claim = self._usable(self.cluster.find(CLAIM, self.home_name, HOME)) or self._make(spec)
        if annotations_of(claim).get(FILLED) != self.point_id:
            extract(self.home_name)
            self.cluster.patch(CLAIM, self.home_name, HOME, {"metadata": {"annotations": {FILLED: self.point_id}}})
        claim = self.cluster.get(CLAIM, self.home_name, HOME)
        if (claim.get("status") or {}).get("phase") != "Bound":
            raise NotReady(f"claim {HOME}/{self.home_name} was filled and is not Bound", claim=self.target)
        return claim

    def _usable(self, claim: Object | None) -> Object | None:
        """An earlier run's claim, if it can be gone on with.

        One that is half filled by a dead run is not: its mover may be alive, and what it left is not known.
        """
        if claim is None:
            return None
        is_own = labels_of(claim).get(RUN_LABEL) == self.run
        is_filled = annotations_of(claim).get(FILLED) == self.point_id
        if "deletionTimestamp" in claim["metadata"] or not (is_own or is_filled):
            discard_claim(self.cluster, claim)
            return None
        if not is_own:
            self.cluster.patch(CLAIM, self.home_name, HOME, {"metadata": {"labels": {RUN_LABEL: self.run}}})
        return claim

    def _make(self, spec: Object) -> Object:
        meta = {
            "name": self.home_name,
            "namespace": HOME,
            "labels": labels_in_run(self.run, {RECOVERY: self.point_id}),
            "annotations": {FOR_CLAIM: self.target},
        }
        return self.cluster.create({"apiVersion": "v1", "kind": CLAIM, "metadata": meta, "spec": spec})

    # ---- 2 and 3: from one claim to the other

    def marked(self) -> Object | None:
        """The volume a run marked for this claim, when one was broken off between marking and the end."""
        for volume in self.cluster.list(VOLUME, labels=f"{RECOVERY}={self.point_id}"):
            if annotations_of(volume).get(FOR_CLAIM) == self.target and "deletionTimestamp" not in volume["metadata"]:
                return volume
        return None

    def mark(self, volume: Object) -> Object:
        """Keep the volume whatever happens to its claim, and say whose it is."""
        policy = annotations_of(volume).get(RECLAIM_POLICY) or volume["spec"]["persistentVolumeReclaimPolicy"]
        labels = {RECOVERY: self.point_id, RUN_LABEL: self.run}
        annotations = {FOR_CLAIM: self.target, RECLAIM_POLICY: policy}
        patch = {
            "metadata": {"labels": labels, "annotations": annotations},
            "spec": {"persistentVolumeReclaimPolicy": "Retain"},
        }
        return self.cluster.patch(VOLUME, volume["metadata"]["name"], None, patch)

    def kept(self, claim: Object) -> Object:
        """The volume of the filled claim, marked while that claim was certainly alive: its data cannot have gone."""
        volume = self.mark(self.cluster.get(VOLUME, claim["spec"]["volumeName"]))
        again = self.cluster.find(CLAIM, self.home_name, HOME)
        if again is None or "deletionTimestamp" in again["metadata"]:
            abandon_volume(self.cluster, volume["metadata"]["name"])
            raise NotReady(f"claim {HOME}/{self.home_name} was removed while it was handed over", claim=self.target)
        return volume

    def reserve(self, volume: Object) -> None:
        """Take the volume from refloat's claim and reserve it for the application's, in its own access modes."""
        delete_claim(self.cluster, self.home_name)
        reference = {"apiVersion": "v1", "kind": CLAIM, "namespace": self.namespace, "name": self.name}
        spec: Object = {"claimRef": {**reference, "uid": None, "resourceVersion": None}}
        if not set(self.manifest["spec"]["accessModes"]) <= set(volume["spec"]["accessModes"]):
            spec["accessModes"] = list(self.manifest["spec"]["accessModes"])

        def patch(present: Object) -> Object:
            if labels_of(present).get(RECOVERY) != self.point_id or "deletionTimestamp" in present["metadata"]:
                name = present["metadata"]["name"]
                raise NotReady(f"volume {name} was given up while it was handed over", claim=self.target)
            return {"spec": spec}

        change_volume(self.cluster, volume["metadata"]["name"], patch)

    # ---- 4 and 5: the application's claim

    def create(self, volume: Object) -> None:
        """The application's claim on this volume; one of ours that is there already is kept."""
        claim = deepcopy(dict(self.manifest))
        marks = {RECOVERED_FROM: self.point_id, RECOVERED_BY: self.run}
        claim["metadata"]["annotations"] = {**annotations_of(claim), **marks}
        claim["spec"]["volumeName"] = volume["metadata"]["name"]
        claim["spec"]["storageClassName"] = volume["spec"].get("storageClassName", "")
        try:
            self.cluster.create(claim)
        except ObjectExists:
            self.present()

    def present(self) -> Object | None:
        """The application's claim, if it is there.

        Raises:
            ObjectExists: It is there and not this recovery's.
        """
        claim = self.cluster.find(CLAIM, self.name, self.namespace)
        if claim is None:
            return None
        if not is_recovered_from(claim, self.point_id):
            raise ObjectExists(f"claim {self.target} exists and is not from this recovery point", claim=self.target)
        if self._has_lost_its_volume(claim):
            delete_claim(self.cluster, self.name, self.namespace)
            return None
        return claim

    def _has_lost_its_volume(self, claim: Object) -> bool:
        """Whether the claim, which holds nothing, waits for a volume that was given up."""
        volume = self.cluster.find(VOLUME, claim["spec"].get("volumeName") or "none")
        reference = (volume or {}).get("spec", {}).get("claimRef") or {}
        is_reserved = (reference.get("namespace"), reference.get("name")) == (self.namespace, self.name)
        return (claim.get("status") or {}).get("phase") != "Bound" and not is_reserved

    def settle(self, volume: Object | None) -> None:
        """Wait until the claim is bound, then give the volume back its reclaim policy and take off the marks."""

        def is_bound(claim: Object | None) -> bool:
            return ((claim or {}).get("status") or {}).get("phase") == "Bound"

        what = f"claim {self.target} bound to its filled volume"
        self.cluster.wait(CLAIM, self.name, self.namespace, is_bound, timeout=BOUND_WITHIN, what=what)
        if volume is not None:
            policy = annotations_of(volume).get(RECLAIM_POLICY, "Delete")
            self.cluster.patch(VOLUME, volume["metadata"]["name"], None, unmarked(policy))


def hydrate_claim(
    cluster: Cluster,
    *,
    point_id: str,
    target_namespace: str,
    claim_manifest: Mapping[str, Any],
    storage_class: str | None,
    requested_bytes: int,
    data_bytes: int,
    run: str,
    extract: Callable[[str], object],
) -> None:
    """Fill a claim in refloat's namespace through ``extract(claim name)`` and hand its volume to the application's.

    A run that was broken off anywhere is finished by the next: what is filled is not filled again, and what a dead
    run left half filled is discarded, its mover ended first. Nothing runs in the application's namespace.

    Args:
        cluster: The target cluster.
        point_id: The recovery point's id.
        target_namespace: Namespace of the application's claim; it exists.
        claim_manifest: The application's claim as it shall be, rewritten for the target.
        storage_class: The class to provision from; None: the default class.
        requested_bytes: Size the claim asked for.
        data_bytes: Sum of the sizes of all files to come.
        run: The run's id, on everything temporary.
        extract: Fills the claim of that name in refloat's namespace, or raises.

    Raises:
        ObjectExists: The application's claim exists and is not this recovery's.
        NotReady: A claim was not bound or not gone in time.
    """
    ensure_home(cluster)
    work = Handover(cluster, point_id, run, target_namespace, claim_manifest)
    target, volume = work.present(), work.marked()
    if target is None:
        if volume is None:
            spec = filling_spec(claim_manifest["spec"], storage_class, requested_bytes, data_bytes)
            volume = work.kept(work.filled(spec, extract))
        else:
            volume = work.mark(volume)
        work.reserve(volume)
        work.create(volume)
    work.settle(volume)


def filling_spec(spec: Mapping[str, Any], storage_class: str | None, requested_bytes: int, data_bytes: int) -> Object:
    """The claim to fill: like the application's, large enough for the data, and writable by one pod."""
    wanted = {name: value for name, value in spec.items() if name in ("volumeMode", "volumeAttributesClassName")}
    modes = list(spec.get("accessModes") or ["ReadWriteOnce"])
    enough = data_bytes + data_bytes // 10 + HEADROOM_BYTES
    size = max(requested_bytes, -(-enough // MEBIBYTE) * MEBIBYTE)
    return {
        **wanted,
        "accessModes": modes if WRITABLE & set(modes) else ["ReadWriteOnce"],
        "resources": {"requests": {"storage": str(size)}},
        **({"storageClassName": storage_class} if storage_class is not None else {}),
    }


def was_handed_over(cluster: Cluster, claim: Mapping[str, Any], point_id: str) -> bool:
    """Whether a recovery from this point filled the claim, bound it, and came to its end."""
    if not is_recovered_from(claim, point_id) or (claim.get("status") or {}).get("phase") != "Bound":
        return False
    volume = cluster.find(VOLUME, claim["spec"]["volumeName"])
    return volume is not None and RECOVERY not in labels_of(volume)


def unmarked(policy: str) -> Object:
    """The patch that ends a handover: the reclaim policy restored, every mark removed."""
    return {
        "metadata": {
            "labels": {RECOVERY: None, RUN_LABEL: None},
            "annotations": {FOR_CLAIM: None, RECLAIM_POLICY: None},
        },
        "spec": {"persistentVolumeReclaimPolicy": policy},
    }


# ---- giving up


def discard_claim(cluster: Cluster, claim: Mapping[str, Any]) -> None:
    """Remove a claim in refloat's namespace with its volume and its data, the movers that mount it first.

    Raises:
        NotReady: It is not gone in time.
    """
    name, volume = claim["metadata"]["name"], (claim.get("spec") or {}).get("volumeName")
    end_movers(cluster, name)
    with suppress(ObjectMissing):  # never bound, or on its way out
        if volume and RECOVERY not in labels_of(cluster.get(VOLUME, volume)):
            # a class that retains would keep scratch for ever
            cluster.patch(VOLUME, volume, None, {"spec": {"persistentVolumeReclaimPolicy": "Delete"}})
    delete_claim(cluster, name)


def abandon_volume(cluster: Cluster, name: str) -> bool:
    """End a broken-off handover from outside; returns whether the volume and its data go.

    A volume that reached the application's claim stays there, as after a handover that ended well. Any other is
    released for deletion: a claimRef to a claim that is gone is what makes its driver remove the data.

    Raises:
        ObjectMissing: There is no such volume.
    """
    stays = False

    def patch(volume: Object) -> Object:
        nonlocal stays
        namespace, _, target = annotations_of(volume).get(FOR_CLAIM, "").partition("/")
        claim = cluster.find(CLAIM, target, namespace) if target else None
        stays = claim is not None and (claim.get("spec") or {}).get("volumeName") == name
        change = unmarked(annotations_of(volume).get(RECLAIM_POLICY, "Delete") if stays else "Delete")
        if not stays and (volume["spec"].get("claimRef") or {}).get("namespace") != HOME:
            gone = {"apiVersion": "v1", "kind": CLAIM, "namespace": HOME, "name": "abandoned"}
            change["spec"]["claimRef"] = {**gone, "uid": volume["metadata"]["uid"], "resourceVersion": None}
        return change

    change_volume(cluster, name, patch)
    return not stays


def change_volume(cluster: Cluster, name: str, patch: Callable[[Object], Object]) -> None:
    """Patch a volume by what it is at that very moment; its controllers write to it meanwhile."""
    for left in reversed(range(TRIES)):
        volume = cluster.get(VOLUME, name)
        change = patch(volume)
        metadata = {**change.get("metadata", {}), "resourceVersion": volume["metadata"]["resourceVersion"]}
        try:
            cluster.patch(VOLUME, name, None, {**change, "metadata": metadata})
            return
        except Conflict:
            if left == 0:
                raise


def end_movers(cluster: Cluster, claim: str) -> None:
    """Delete every Job and every pod of refloat's namespace that mounts the claim, also those that have not begun."""
    for job in list(cluster.list("Job.batch", HOME)):
        if mounts(job["spec"]["template"]["spec"], claim):
            cluster.delete("Job.batch", job["metadata"]["name"], HOME)
    for pod in list(cluster.list("Pod", HOME)):
        if mounts(pod["spec"], claim):
            cluster.delete("Pod", pod["metadata"]["name"], HOME)


def mounts(spec: Mapping[str, Any], claim: str) -> bool:
    """Whether a pod spec mounts a claim of its namespace."""
    volumes = spec.get("volumes") or []
    return any((each.get("persistentVolumeClaim") or {}).get("claimName") == claim for each in volumes)


def delete_claim(cluster: Cluster, name: str, namespace: str = HOME) -> None:
    """Delete a claim and wait until it is gone; one that is gone already is well."""
    what = f"claim {namespace}/{name} gone"
    if cluster.delete(CLAIM, name, namespace):
        cluster.wait(CLAIM, name, namespace, lambda obj: obj is None, timeout=GONE_WITHIN, what=what)
