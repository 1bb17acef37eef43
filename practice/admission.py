"""What the API server adds to and refuses in objects: defaults, finalizers, required and immutable fields.

Only the defaults and rules that clients of the range can notice; unknown fields are kept, not pruned.
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from practice.kinds import Object, Resource
from practice.refusal import Refusal, invalid

if TYPE_CHECKING:
    from practice.store import Store

GENERATED = "bcdfghjklmnpqrstvwxz2456789"
"""The letters of generated names (apimachinery rand.String)."""
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
_NAME = re.compile(r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")
_LOOSE = re.compile(r"^[^/%]{1,253}$")


def complete(store: Store, resource: Resource, obj: Object) -> None:
    """Add defaults to a new object in place; 403 for a pod whose service account is missing."""
    if resource.has_status:
        obj.pop("status", None)
    act = _COMPLETE.get(resource.key)
    if act is not None:
        act(store, obj)


def drop_empty(meta: Object) -> None:
    """Empty maps and lists of the metadata are as good as none."""
    for side in ("labels", "annotations", "finalizers", "ownerReferences"):
        if side in meta and not meta[side]:
            del meta[side]


def redefault(store: Store, resource: Resource, new: Object, old: Object) -> None:
    """Add the defaults that a changed object lacks, in place; what was assigned at birth stays."""
    if resource.key == "services":
        for field in ("clusterIP", "clusterIPs"):
            if field in old["spec"] and not new["spec"].get(field):
                new["spec"][field] = old["spec"][field]
    if resource.key in _REDEFAULTED:
        status = new.get("status")
        _COMPLETE[resource.key](store, new)
        new.pop("status", None)
        if status is not None:
            new["status"] = status


def _complete_namespace(_store: Store, obj: Object) -> None:
    obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"].get("name", "")
    obj["spec"] = {"finalizers": ["kubernetes"]}
    obj["status"] = {"phase": "Active"}


def _complete_map(_store: Store, obj: Object) -> None:
    for side in ("data", "binaryData"):
        if side in obj and not obj[side]:
            del obj[side]


def _complete_secret(store: Store, obj: Object) -> None:
    encode_strings(obj)
    _complete_map(store, obj)
    obj.setdefault("type", "Opaque")


def encode_strings(secret: Object) -> None:
    """Move ``stringData`` of a Secret into ``data``."""
    for name, text in (secret.pop("stringData", None) or {}).items():
        secret.setdefault("data", {})[name] = base64.b64encode(str(text).encode()).decode()


def _complete_volume(_store: Store, obj: Object) -> None:
    _finalizer(obj, "kubernetes.io/pv-protection")
    _defaults(obj["spec"], persistentVolumeReclaimPolicy="Retain", volumeMode="Filesystem")
    obj["status"] = {"phase": "Pending"}


def _complete_class(_store: Store, obj: Object) -> None:
    _defaults(obj, reclaimPolicy="Delete", volumeBindingMode="Immediate")


def _complete_definition(_store: Store, obj: Object) -> None:
    obj["status"] = _established(obj["spec"])


def _defaults(target: Object, **values: Any) -> None:
    for name, value in values.items():
        target.setdefault(name, value)


def _finalizer(obj: Object, name: str) -> None:
    present = obj["metadata"].setdefault("finalizers", [])
    if name not in present:
        present.append(name)


def _complete_template(spec: Object) -> None:
    """Pod defaults (core/v1 PodSpec, Container)."""
    _defaults(spec, restartPolicy="Always", dnsPolicy="ClusterFirst", schedulerName="default-scheduler")
    _defaults(spec, terminationGracePeriodSeconds=30, securityContext={})
    if "serviceAccountName" in spec:
        spec.setdefault("serviceAccount", spec["serviceAccountName"])
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        _defaults(
            container, resources={}, terminationMessagePath="/dev/termination-log", terminationMessagePolicy="File"
        )
        tag = container.get("image", "").rpartition("/")[2].partition(":")[2]
        container.setdefault("imagePullPolicy", "Always" if tag in ("", "latest") else "IfNotPresent")
        for port in container.get("ports") or []:
            port.setdefault("protocol", "TCP")
        for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
            if probe in container:
                _defaults(container[probe], timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
    for volume in spec.get("volumes") or []:
        for source, field in (("configMap", "defaultMode"), ("secret", "defaultMode"), ("projected", "defaultMode")):
            if source in volume:
                volume[source].setdefault(field, 0o644)


def _complete_pod(store: Store, obj: Object) -> None:
    spec, namespace = obj["spec"], obj["metadata"].get("namespace", "")
    _defaults(spec, serviceAccountName="default")
    _complete_template(spec)
    _defaults(spec, enableServiceLinks=True, priority=0, preemptionPolicy="PreemptLowerPriority")
    obj["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
    account = store.peek("serviceaccounts", namespace, spec["serviceAccountName"])
    if store.peek("namespaces", None, namespace) is None:
        return
    if account is None:
        who = spec["serviceAccountName"]
        text = f'error looking up service account {namespace}/{who}: serviceaccount "{who}" not found'
        raise Refusal(403, f'pods "{obj["metadata"].get("name", "")}" is forbidden: {text}')
    if spec.get("automountServiceAccountToken", account.get("automountServiceAccountToken", True)):
        name = "kube-api-access-" + "".join(secrets.choice(GENERATED) for _ in range(5))
        token = {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}
        bundle = {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}
        projected = {"sources": [token, bundle], "defaultMode": 0o644}
        spec.setdefault("volumes", []).append({"name": name, "projected": projected})
        for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
            mount = {"name": name, "readOnly": True, "mountPath": TOKEN_PATH}
            container.setdefault("volumeMounts", []).append(mount)


def _complete_claim(store: Store, obj: Object) -> None:
    _finalizer(obj, "kubernetes.io/pvc-protection")
    spec = obj["spec"]
    _defaults(spec, volumeMode="Filesystem")
    if "storageClassName" not in spec:
        for known in store.list("storageclasses.storage.k8s.io"):
            if (known["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true":
                spec["storageClassName"] = known["metadata"]["name"]
    source = spec.get("dataSource") or spec.get("dataSourceRef")
    if source:
        _defaults(spec, dataSource=dict(source), dataSourceRef=dict(source))
    obj["status"] = {"phase": "Pending"}


def _complete_service(store: Store, obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    _defaults(spec, type="ClusterIP", sessionAffinity="None", internalTrafficPolicy="Cluster")
    _defaults(spec, ipFamilies=["IPv4"], ipFamilyPolicy="SingleStack")
    if spec["type"] != "ExternalName" and not spec.get("clusterIP"):
        taken = {one["spec"].get("clusterIP") for one in store.list("services")}
        spec["clusterIP"] = next(f"10.96.{n // 250}.{n % 250 + 1}" for n in range(60_000) if _ip(n) not in taken)
    if "clusterIP" in spec:
        spec["clusterIPs"] = [spec["clusterIP"]]
    for port in spec.get("ports") or []:
        _defaults(port, protocol="TCP", targetPort=port.get("port"))
    obj["status"] = {"loadBalancer": {}}


def _ip(number: int) -> str:
    return f"10.96.{number // 250}.{number % 250 + 1}"


def _complete_workload(_store: Store, obj: Object) -> None:
    spec, key = obj["spec"], f"{obj['kind'].lower()}s.apps"
    _complete_template(spec.get("template", {}).get("spec", {}))
    if key != "daemonsets.apps":
        spec.setdefault("replicas", 1)
    if key == "deployments.apps":
        rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}
        _defaults(spec, strategy=rolling, revisionHistoryLimit=10, progressDeadlineSeconds=600)
    if key == "statefulsets.apps":
        rolling = {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}
        _defaults(spec, updateStrategy=rolling, revisionHistoryLimit=10, podManagementPolicy="OrderedReady")
        kept = {"whenDeleted": "Retain", "whenScaled": "Retain"}
        _defaults(spec, serviceName="", persistentVolumeClaimRetentionPolicy=kept)
        for template in spec.get("volumeClaimTemplates") or []:
            template |= {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "status": {"phase": "Pending"}}
            template["spec"].setdefault("volumeMode", "Filesystem")
    obj["status"] = {"replicas": 0} if key != "deployments.apps" else {}


def _complete_job(_store: Store, obj: Object) -> None:
    spec, uid = obj["spec"], obj["metadata"]["uid"]
    _defaults(spec, parallelism=1, completions=1, backoffLimit=6, completionMode="NonIndexed", suspend=False)
    _defaults(spec, manualSelector=False, podReplacementPolicy="TerminatingOrFailed")
    if not spec["manualSelector"]:
        spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    name = obj["metadata"].get("name", "")
    labels = {"batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": name}
    labels |= {"controller-uid": uid, "job-name": name}
    template_meta = spec["template"].setdefault("metadata", {})
    template_meta["labels"] = {**(template_meta.get("labels") or {}), **labels}
    policy = spec["template"]["spec"].get("restartPolicy")
    if policy not in ("Never", "OnFailure"):
        field = "spec.template.spec.restartPolicy"
        text = 'Required value: valid values: "OnFailure", "Never"'
        raise invalid("Job", "batch", name, field, text, "FieldValueRequired")
    _complete_template(spec["template"]["spec"])
    obj["status"] = {}


def _established(spec: Object) -> Object:
    conditions = [
        {"type": "NamesAccepted", "status": "True", "reason": "NoConflicts", "message": "no conflicts found"},
        {"type": "Established", "status": "True", "reason": "InitialNamesAccepted", "message": "accepted"},
    ]
    return {"conditions": conditions, "acceptedNames": spec["names"], "storedVersions": [spec["versions"][0]["name"]]}


_COMPLETE: dict[str, Callable[[Store, Object], None]] = {
    "namespaces": _complete_namespace,
    "configmaps": _complete_map,
    "pods": _complete_pod,
    "secrets": _complete_secret,
    "persistentvolumeclaims": _complete_claim,
    "persistentvolumes": _complete_volume,
    "services": _complete_service,
    "deployments.apps": _complete_workload,
    "statefulsets.apps": _complete_workload,
    "replicasets.apps": _complete_workload,
    "daemonsets.apps": _complete_workload,
    "jobs.batch": _complete_job,
    "storageclasses.storage.k8s.io": _complete_class,
    "customresourcedefinitions.apiextensions.k8s.io": _complete_definition,
}

_REDEFAULTED = {
    "configmaps",
    "secrets",
    "services",
    "deployments.apps",
    "statefulsets.apps",
    "replicasets.apps",
    "daemonsets.apps",
}

_IMMUTABLE = {
    "persistentvolumeclaims": (
        "storageClassName",
        "accessModes",
        "volumeMode",
        "dataSource",
        "dataSourceRef",
        "selector",
    ),
    "statefulsets.apps": ("selector", "serviceName", "volumeClaimTemplates", "podManagementPolicy"),
    "deployments.apps": ("selector",),
    "jobs.batch": ("selector", "template", "completions"),
    "persistentvolumes": ("csi", "hostPath", "volumeMode"),
    "volumesnapshotcontents.snapshot.storage.k8s.io": ("source", "driver"),
    "volumesnapshots.snapshot.storage.k8s.io": ("source",),
}


def validate(resource: Resource, new: Object, old: Object | None) -> None:
    """Refuse what is malformed or changes what may not change; ``old`` is None on creation."""
    meta, name = new["metadata"], new["metadata"].get("name", "")
    loose = resource.group.startswith("rbac.")
    if not name or not (_LOOSE if loose else _NAME).match(name):
        text = "Required value: name or generateName is required" if not name else f'Invalid value: "{name}"'
        raise invalid(resource.kind, resource.group, name, "metadata.name", text)
    for label, value in (meta.get("labels") or {}).items():
        if not isinstance(value, str) or not re.match(r"^([A-Za-z0-9][\w.-]{0,61}[A-Za-z0-9]|[A-Za-z0-9])?$", value):
            raise invalid(
                resource.kind, resource.group, name, "metadata.labels", f'Invalid value: "{value}" of {label}'
            )
    spec = new.get("spec") or {}
    if old is not None:
        _validate_change(resource, new, old)
    if "template" in spec and resource.group in ("apps", "batch"):
        _validate_template(resource, name, spec)
    if resource.key == "pods" and not spec.get("containers"):
        raise invalid("Pod", "", name, "spec.containers", "Required value", "FieldValueRequired")


def _validate_change(resource: Resource, new: Object, old: Object) -> None:
    spec, name = new.get("spec") or {}, new["metadata"]["name"]
    before = old.get("spec") or {}
    if "deletionTimestamp" in new["metadata"]:
        added = set(new["metadata"].get("finalizers") or []) - set(old["metadata"].get("finalizers") or [])
        if added:
            text = f"Forbidden: no new finalizers can be added if the object is being deleted, found: {sorted(added)}"
            raise invalid(resource.kind, resource.group, name, "metadata.finalizers", text, "FieldValueForbidden")
    for field in _IMMUTABLE.get(resource.key, ()):
        if before.get(field) != spec.get(field) and not (resource.is_custom and field == "source" and not before):
            raise invalid(resource.kind, resource.group, name, f"spec.{field}", "Invalid value: field is immutable")
    if resource.key == "persistentvolumeclaims" and before.get("volumeName") not in (None, "", spec.get("volumeName")):
        raise invalid("PersistentVolumeClaim", "", name, "spec", "Forbidden: spec is immutable after creation")
    if resource.key == "persistentvolumeclaims" and before.get("resources") != spec.get("resources"):
        text = "the storageclass that provisions the pvc must support resize"
        raise Refusal(403, f'persistentvolumeclaims "{name}" is forbidden: {text}')
    if resource.key == "pods" and _fixed(before) != _fixed(spec):
        text = "Forbidden: pod updates may not change fields other than `spec.containers[*].image`"
        raise invalid("Pod", "", name, "spec", text, "FieldValueForbidden")
    if resource.key == "services" and before.get("clusterIP") != spec.get("clusterIP"):
        text = f'Invalid value: "{spec.get("clusterIP")}": field is immutable'
        raise invalid("Service", "", name, "spec.clusterIP", text)
    if resource.key == "secrets" and new.get("type") != old.get("type"):
        raise invalid("Secret", "", name, "type", f'Invalid value: "{new.get("type")}": field is immutable')
    if resource.key in ("secrets", "configmaps") and old.get("immutable") and new.get("data") != old.get("data"):
        raise invalid(resource.kind, "", name, "data", "Forbidden: field is immutable when `immutable` is set")


def _fixed(spec: Object) -> Object:
    """What never changes in a pod; the node is assigned once, by the scheduler."""
    free = {"nodeName", "tolerations", "activeDeadlineSeconds", "containers", "initContainers"}
    named = [{k: v for k, v in one.items() if k != "image"} for one in spec.get("containers") or []]
    return {name: value for name, value in spec.items() if name not in free} | {"containers": named}


def _validate_template(resource: Resource, name: str, spec: Object) -> None:
    if not (spec["template"].get("spec") or {}).get("containers"):
        raise invalid(resource.kind, resource.group, name, "spec.template.spec.containers", "Required value")
    wanted = (spec.get("selector") or {}).get("matchLabels") or {}
    labels = (spec["template"].get("metadata") or {}).get("labels") or {}
    if resource.group == "apps" and not spec.get("selector"):
        raise invalid(resource.kind, resource.group, name, "spec.selector", "Required value", "FieldValueRequired")
    if any(labels.get(key) != value for key, value in wanted.items()):
        text = "Invalid value: `selector` does not match template `labels`"
        raise invalid(resource.kind, resource.group, name, "spec.template.metadata.labels", text)
