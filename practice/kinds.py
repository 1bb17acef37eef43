"""The kinds the practice range serves: the table, its growth by custom resource definitions, and API discovery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
VERSION = "v1.36.0-practice"


@dataclass(frozen=True)
class Resource:
    """One served kind. ``key`` (``plural`` or ``plural.group``) names it everywhere inside the range."""

    group: str
    version: str
    kind: str
    plural: str
    is_namespaced: bool = True
    subresources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = VERBS
    is_custom: bool = False

    @property
    def key(self) -> str:
        """``plural`` or ``plural.group``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        """``v1`` or ``group/version``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def has_status(self) -> bool:
        """Whether status is written through its own subresource only."""
        return "status" in self.subresources


SNAPSHOT = "snapshot.storage.k8s.io"
GROUP_SNAPSHOT = "groupsnapshot.storage.k8s.io"
RBAC = "rbac.authorization.k8s.io"
_S = ("status",)
_SCALED = ("status", "scale")
_CREATE = ("create",)
# group, version, kind, plural, namespaced, subresources, verbs
_TABLE: tuple[tuple[str, str, str, str, bool, tuple[str, ...], tuple[str, ...]], ...] = (
    ("", "v1", "Namespace", "namespaces", False, ("status", "finalize"), VERBS),
    ("", "v1", "Node", "nodes", False, _S, VERBS),
    ("", "v1", "PersistentVolume", "persistentvolumes", False, _S, VERBS),
    ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", True, _S, VERBS),
    ("", "v1", "Pod", "pods", True, ("status", "exec", "log", "eviction"), VERBS),
    ("", "v1", "ConfigMap", "configmaps", True, (), VERBS),
    ("", "v1", "Secret", "secrets", True, (), VERBS),
    ("", "v1", "Service", "services", True, _S, VERBS),
    ("", "v1", "Endpoints", "endpoints", True, (), VERBS),
    ("", "v1", "ServiceAccount", "serviceaccounts", True, (), VERBS),
    ("", "v1", "Event", "events", True, (), VERBS),
    ("", "v1", "LimitRange", "limitranges", True, (), VERBS),
    ("", "v1", "ResourceQuota", "resourcequotas", True, _S, VERBS),
    ("", "v1", "ReplicationController", "replicationcontrollers", True, _SCALED, VERBS),
    ("", "v1", "PodTemplate", "podtemplates", True, (), VERBS),
    ("apps", "v1", "Deployment", "deployments", True, _SCALED, VERBS),
    ("apps", "v1", "ReplicaSet", "replicasets", True, _SCALED, VERBS),
    ("apps", "v1", "StatefulSet", "statefulsets", True, _SCALED, VERBS),
    ("apps", "v1", "DaemonSet", "daemonsets", True, _S, VERBS),
    ("apps", "v1", "ControllerRevision", "controllerrevisions", True, (), VERBS),
    ("batch", "v1", "Job", "jobs", True, _S, VERBS),
    ("batch", "v1", "CronJob", "cronjobs", True, _S, VERBS),
    (RBAC, "v1", "Role", "roles", True, (), VERBS),
    (RBAC, "v1", "RoleBinding", "rolebindings", True, (), VERBS),
    (RBAC, "v1", "ClusterRole", "clusterroles", False, (), VERBS),
    (RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", False, (), VERBS),
    ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", True, (), VERBS),
    ("networking.k8s.io", "v1", "Ingress", "ingresses", True, _S, VERBS),
    ("networking.k8s.io", "v1", "IngressClass", "ingressclasses", False, (), VERBS),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", True, _S, VERBS),
    ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", True, _S, VERBS),
    ("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", False, (), VERBS),
    ("storage.k8s.io", "v1", "StorageClass", "storageclasses", False, (), VERBS),
    ("storage.k8s.io", "v1", "CSIDriver", "csidrivers", False, (), VERBS),
    ("storage.k8s.io", "v1", "CSINode", "csinodes", False, (), VERBS),
    ("storage.k8s.io", "v1", "VolumeAttachment", "volumeattachments", False, _S, VERBS),
    ("coordination.k8s.io", "v1", "Lease", "leases", True, (), VERBS),
    ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", True, (), VERBS),
    ("events.k8s.io", "v1", "Event", "events", True, (), ("get", "list", "watch")),
    ("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", False, _S, VERBS),
    (
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicy",
        "validatingadmissionpolicies",
        False,
        _S,
        VERBS,
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
        False,
        (),
        VERBS,
    ),
    ("authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", False, (), _CREATE),
    (SNAPSHOT, "v1", "VolumeSnapshot", "volumesnapshots", True, _S, VERBS),
    (SNAPSHOT, "v1", "VolumeSnapshotContent", "volumesnapshotcontents", False, _S, VERBS),
    (SNAPSHOT, "v1", "VolumeSnapshotClass", "volumesnapshotclasses", False, (), VERBS),
    (GROUP_SNAPSHOT, "v1", "VolumeGroupSnapshot", "volumegroupsnapshots", True, _S, VERBS),
    (GROUP_SNAPSHOT, "v1", "VolumeGroupSnapshotContent", "volumegroupsnapshotcontents", False, _S, VERBS),
    (GROUP_SNAPSHOT, "v1", "VolumeGroupSnapshotClass", "volumegroupsnapshotclasses", False, (), VERBS),
)


class KindTable:
    """Served kinds, by ``key``; custom resource definitions add and remove rows. Guarded by the store's lock."""

    def __init__(self) -> None:
        rows = [Resource(*row, is_custom=row[0] in (SNAPSHOT, GROUP_SNAPSHOT)) for row in _TABLE]
        self._by_key = {row.key: row for row in rows}

    def of_key(self, key: str) -> Resource:
        """The resource of a key; KeyError when it is not served."""
        return self._by_key[key]

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        """The resource under an address, or None."""
        row = self._by_key.get(f"{plural}.{group}" if group else plural)
        return row if row is not None and row.version == version else None

    def of_kind(self, api_version: str, kind: str) -> Resource | None:
        """The resource of an owner reference or a manifest, or None."""
        return next((r for r in self._by_key.values() if r.kind == kind and r.api_version == api_version), None)

    @property
    def all(self) -> list[Resource]:
        """Every served kind."""
        return list(self._by_key.values())

    def define(self, definition: Object) -> None:
        """Serve the kind a CustomResourceDefinition describes (its storage version)."""
        spec = definition["spec"]
        served = next((v for v in spec["versions"] if v.get("storage")), spec["versions"][0])
        row = Resource(
            group=spec["group"],
            version=served["name"],
            kind=spec["names"]["kind"],
            plural=spec["names"]["plural"],
            is_namespaced=spec.get("scope", "Namespaced") == "Namespaced",
            subresources=tuple(served.get("subresources", {})),
            is_custom=True,
        )
        self._by_key[row.key] = row

    def forget(self, key: str) -> None:
        """Serve this kind no longer."""
        self._by_key.pop(key, None)


def _resource_list(rows: list[Resource], group_version: str) -> Object:
    entries: list[Object] = []
    for row in rows:
        entry: Object = {"name": row.plural, "singularName": row.kind.lower(), "namespaced": row.is_namespaced}
        entries.append(entry | {"kind": row.kind, "verbs": list(row.verbs)})
        for sub in row.subresources:
            verbs = {"exec": ["create", "get"], "log": ["get"], "eviction": ["create"]}.get(
                sub, ["get", "patch", "update"]
            )
            kind = {"scale": "Scale", "exec": "PodExecOptions", "eviction": "Eviction"}.get(sub, row.kind)
            part = {"name": f"{row.plural}/{sub}", "singularName": "", "namespaced": row.is_namespaced}
            entries.append(part | {"kind": kind, "verbs": verbs})
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": entries}


def _group(name: str, versions: list[str]) -> Object:
    served = [{"groupVersion": f"{name}/{v}", "version": v} for v in versions]
    return {"name": name, "versions": served, "preferredVersion": served[0]}


def discovery(table: KindTable, path: str) -> Object | None:
    """The discovery document at ``path`` (``/api``, ``/apis``, ``/apis/GROUP/VERSION``, ``/version``), or None."""
    groups: dict[str, list[str]] = {}
    for row in table.all:
        versions = groups.setdefault(row.group, [])
        if row.version not in versions:
            versions.append(row.version)
    found: Object | None = None
    match path.strip("/").split("/"):
        case ["version"]:
            found = {"major": "1", "minor": "36", "gitVersion": VERSION, "platform": "practice"}
        case ["api"]:
            found = {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["apis"]:
            named = [_group(g, v) for g, v in groups.items() if g]
            found = {"kind": "APIGroupList", "apiVersion": "v1", "groups": named}
        case ["api", "v1"]:
            found = _resource_list([r for r in table.all if not r.group], "v1")
        case ["apis", group] if group in groups:
            found = {"kind": "APIGroup", "apiVersion": "v1"} | _group(group, groups[group])
        case ["apis", group, version] if version in groups.get(group, []):
            rows = [r for r in table.all if r.group == group and r.version == version]
            found = _resource_list(rows, f"{group}/{version}")
    return found
