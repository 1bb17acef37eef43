"""What one manifest refers to, and what refers to it: pure functions over objects as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kube.selectors import matches

Object = Mapping[str, Any]
POD_TEMPLATES = {
    "Pod": (),
    "ReplicationController": ("template",),
    "ReplicaSet.apps": ("template",),
    "Deployment.apps": ("template",),
    "StatefulSet.apps": ("template",),
    "DaemonSet.apps": ("template",),
    "Job.batch": ("template",),
    "CronJob.batch": ("jobTemplate", "spec", "template"),
}
"""Where a kind keeps its pod template, below ``spec``."""


def template_of(kind: str, obj: Object) -> Object | None:
    """The pod template (metadata and spec) of a workload, the pod itself for a Pod, else None."""
    path = POD_TEMPLATES.get(kind)
    if path is None:
        return None
    found: Any = obj if not path else obj.get("spec") or {}
    for word in path:
        found = found.get(word) or {}
    return found if isinstance(found, Mapping) else None


def pod_references(spec: Object) -> Iterator[tuple[str, str, str, bool]]:
    """(kind, name, relation, optional) of what a pod spec needs in its own namespace (core/v1 PodSpec)."""
    yield "ServiceAccount", str(spec.get("serviceAccountName") or "default"), "identity of", False
    for each in spec.get("imagePullSecrets") or []:
        yield "Secret", each["name"], "image pull secret of", True
    for volume in spec.get("volumes") or []:
        yield from volume_references(volume)
    for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        for source in container.get("envFrom") or []:
            for field, kind in (("secretRef", "Secret"), ("configMapRef", "ConfigMap")):
                if field in source:
                    yield kind, source[field]["name"], "env of", bool(source[field].get("optional"))
        for variable in container.get("env") or []:
            origin = variable.get("valueFrom") or {}
            for field, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
                if field in origin:
                    yield kind, origin[field]["name"], "env of", bool(origin[field].get("optional"))


def volume_references(volume: Object) -> Iterator[tuple[str, str, str, bool]]:
    """(kind, name, relation, optional) of one pod volume, projected sources included."""
    if "persistentVolumeClaim" in volume:
        yield "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"], "claim of", False
    if "secret" in volume:
        yield "Secret", volume["secret"]["secretName"], "volume of", bool(volume["secret"].get("optional"))
    if "configMap" in volume:
        yield "ConfigMap", volume["configMap"]["name"], "volume of", bool(volume["configMap"].get("optional"))
    for source in (volume.get("projected") or {}).get("sources") or []:
        for field, kind in (("secret", "Secret"), ("configMap", "ConfigMap")):
            if field in source and source[field].get("name") != "kube-root-ca.crt":
                yield kind, source[field]["name"], "volume of", bool(source[field].get("optional"))


def claim_names(stateful_set: Object) -> Iterator[str]:
    """Prefixes ``<template>-<set>-`` of the claims a StatefulSet makes (apps/v1: followed by the ordinal)."""
    for template in stateful_set.get("spec", {}).get("volumeClaimTemplates") or []:
        yield f"{template['metadata']['name']}-{stateful_set['metadata']['name']}-"


def selects_pod(kind: str, obj: Object, labels: Mapping[str, str]) -> bool:
    """Whether a Service, PodDisruptionBudget or NetworkPolicy chooses a pod with these labels.

    An empty selector, which chooses every pod of the namespace, speaks of nobody's application in particular.
    """
    spec = obj.get("spec") or {}
    if kind == "Service":
        wanted = spec.get("selector") or {}
        return bool(wanted) and all(labels.get(k) == v for k, v in wanted.items())
    field = {"PodDisruptionBudget.policy": "selector", "NetworkPolicy.networking.k8s.io": "podSelector"}.get(kind)
    if field is None:
        return False
    selector = spec.get(field) or {}
    return bool(selector.get("matchLabels") or selector.get("matchExpressions")) and matches(selector, labels)


def names_object(kind: str, obj: Object) -> Iterator[tuple[str, str]]:
    """(kind without group, name) of the objects an autoscaler, ingress or binding is about."""
    spec = obj.get("spec") or {}
    if kind == "HorizontalPodAutoscaler.autoscaling":
        target = spec.get("scaleTargetRef") or {}
        yield str(target.get("kind")), str(target.get("name"))
    elif kind == "Ingress.networking.k8s.io":
        backends = [spec.get("defaultBackend") or {}]
        for rule in spec.get("rules") or []:
            backends += [path.get("backend") or {} for path in (rule.get("http") or {}).get("paths") or []]
        for backend in backends:
            if "service" in backend:
                yield "Service", str(backend["service"]["name"])
    elif kind == "RoleBinding.rbac.authorization.k8s.io":
        for subject in obj.get("subjects") or []:
            same = subject.get("namespace", obj["metadata"].get("namespace")) == obj["metadata"].get("namespace")
            if subject.get("kind") == "ServiceAccount" and same:
                yield "ServiceAccount", str(subject["name"])
