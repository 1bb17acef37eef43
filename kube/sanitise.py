"""Sanitising: from an object as read to the manifest that creates it again, complete and deterministic. Pure.

What is stripped is what the old cluster assigned (the list follows Velero's metadata reset, research/peers.md §3a).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from typing import Any
from urllib.parse import quote

from kube.marks import OURS, SUSPENDED
from kube.membership import CLAIM
from refloat.inventory import Found, Inventory
from refloat.recovery_point import OBJECTS, ObjectRef

Object = dict[str, Any]
ASSIGNED_META = (
    "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds",
    "managedFields", "selfLink", "ownerReferences", "generateName",
)  # fmt: skip
ASSIGNED_ANNOTATIONS = (
    "kubectl.kubernetes.io/last-applied-configuration",  # repeats Secrets in clear
    "deployment.kubernetes.io/revision",
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.kubernetes.io/selected-node",
    "volume.kubernetes.io/storage-provisioner",
    "volume.beta.kubernetes.io/storage-provisioner",
    *OURS,
)
CLUSTER_FINALIZERS = ("kubernetes", "kubernetes.io/pvc-protection", "kubernetes.io/pv-protection", "foregroundDeletion")
JOB_LABELS = ("controller-uid", "job-name", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name")
ALWAYS = (CLAIM, "Secret")
"""Data that no controller can make again, owned or not."""


def is_exported(found: Found, inventory: Inventory) -> bool:
    """Whether the object is created again by us, and not by the controller that owns it, or not at all."""
    if is_over(found.manifest) or is_untouched_default(found):
        return False
    if found.ref.kind in ALWAYS:
        return True
    known = {each.manifest["metadata"].get("uid") for each in inventory.objects}
    owners = {owner["uid"] for owner in found.manifest["metadata"].get("ownerReferences") or []}
    return not owners & known


def is_over(obj: Mapping[str, Any]) -> bool:
    """Pods and Jobs that ended: running them again is nobody's wish."""
    status = obj.get("status") or {}
    if obj["kind"] == "Pod":
        return status.get("phase") in ("Succeeded", "Failed")
    ended = {"Complete", "Failed"}
    conditions = status.get("conditions") or []
    return obj["kind"] == "Job" and any(c["type"] in ended and c["status"] == "True" for c in conditions)


def is_untouched_default(found: Found) -> bool:
    """The `default` ServiceAccount as every namespace gets it."""
    return is_plain_default(found.manifest)


def is_plain_default(obj: Mapping[str, Any]) -> bool:
    """Whether this is a `default` ServiceAccount to which nobody has added anything."""
    meta = obj["metadata"]
    touched = meta.get("labels") or meta.get("annotations") or obj.get("imagePullSecrets")
    return obj["kind"] == "ServiceAccount" and meta["name"] == "default" and not touched


def sanitise(obj: Mapping[str, Any]) -> Object:
    """A copy without status and without anything the cluster assigned."""
    clean = deepcopy(dict(obj))
    clean.pop("status", None)
    meta = clean["metadata"]
    if SUSPENDED in (meta.get("annotations") or {}):
        clean["spec"]["suspend"] = False  # a recovery holds it back only until the workloads are ready
    for field in ASSIGNED_META:
        meta.pop(field, None)
    drop(meta, "annotations", ASSIGNED_ANNOTATIONS)
    meta["finalizers"] = [each for each in meta.get("finalizers") or [] if each not in CLUSTER_FINALIZERS]
    if not meta["finalizers"]:
        del meta["finalizers"]
    special = BY_KIND.get(clean["kind"])
    if special:
        special(clean)
    return clean


def drop(parent: Object, field: str, names: tuple[str, ...]) -> None:
    """Remove names from a mapping field, and the field when nothing is left of it."""
    values = parent.get(field)
    if not isinstance(values, dict):
        return
    for name in names:
        values.pop(name, None)
    if not values:
        del parent[field]


def clean_claim(claim: Object) -> None:
    """The claim asks for storage again instead of naming the old volume or the snapshot it came from."""
    for field in ("volumeName", "dataSource", "dataSourceRef"):
        claim["spec"].pop(field, None)


def clean_service(service: Object) -> None:
    """Addresses and node ports are the new cluster's to give; a headless service stays headless."""
    spec = service["spec"]
    if spec.get("clusterIP") != "None":
        for field in ("clusterIP", "clusterIPs"):
            spec.pop(field, None)
    spec.pop("healthCheckNodePort", None)
    for port in spec.get("ports") or []:
        port.pop("nodePort", None)


def clean_pod(pod: Object) -> None:
    """The pod may run on any node, with a token of its new namespace."""
    spec = pod["spec"]
    for field in ("nodeName", "priority"):
        spec.pop(field, None)
    tokens = {v["name"] for v in spec.get("volumes") or [] if v["name"].startswith("kube-api-access-")}
    spec["volumes"] = [v for v in spec.get("volumes") or [] if v["name"] not in tokens]
    if not spec["volumes"]:
        del spec["volumes"]
    for container in [*spec.get("containers", []), *spec.get("initContainers", [])]:
        mounts = [m for m in container.get("volumeMounts") or [] if m["name"] not in tokens]
        container["volumeMounts"] = mounts
        if not mounts:
            del container["volumeMounts"]


def clean_job(job: Object) -> None:
    """The selector and labels that carry the old Job's uid."""
    spec = job["spec"]
    if not spec.get("manualSelector"):
        spec.pop("selector", None)
    drop(job["metadata"], "labels", JOB_LABELS)
    drop(spec.get("template", {}).get("metadata", {}), "labels", JOB_LABELS)


def clean_service_account(account: Object) -> None:
    """Token Secrets that old clusters generated and listed."""
    kept = [s for s in account.get("secrets") or [] if "-token-" not in s["name"] and "-dockercfg-" not in s["name"]]
    account["secrets"] = kept
    if not kept:
        del account["secrets"]


def clean_namespace(namespace: Object) -> None:
    """Only labels and annotations are the application's; the rest is the cluster's."""
    namespace.pop("spec", None)
    drop(namespace["metadata"], "labels", ("kubernetes.io/metadata.name",))


BY_KIND = {
    CLAIM: clean_claim,
    "Service": clean_service,
    "Pod": clean_pod,
    "Job": clean_job,
    "ServiceAccount": clean_service_account,
    "Namespace": clean_namespace,
}


def manifest_bytes(obj: Mapping[str, Any]) -> bytes:
    """The sanitised object as canonical JSON: sorted keys, no spaces, a final newline; equal objects, equal bytes."""
    return json.dumps(sanitise(obj), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def manifest_path(ref: ObjectRef) -> str:
    """Where the manifest lies inside a point: ``objects/<namespace or _cluster>/<Kind.group>/<name>.json``."""
    return f"{OBJECTS}/{quote(ref.namespace, safe='') or '_cluster'}/{ref.kind}/{quote(ref.name, safe='')}.json"
