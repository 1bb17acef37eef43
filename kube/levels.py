"""Levels: in which order kinds are created, so that what an object needs is there before it."""

from __future__ import annotations

NAMESPACES, CONFIGURATION, BINDINGS, WORKLOADS, ABOUT_WORKLOADS = range(5)
CONFIGURATION_KINDS = {
    "ServiceAccount", "Secret", "ConfigMap", "LimitRange", "ResourceQuota", "PodTemplate",
    "Role.rbac.authorization.k8s.io", "NetworkPolicy.networking.k8s.io",
}  # fmt: skip
BINDING_KINDS = {
    "RoleBinding.rbac.authorization.k8s.io",  # the server looks its Role up to judge escalation
    "PersistentVolumeClaim", "Service", "Endpoints", "EndpointSlice.discovery.k8s.io",
}  # fmt: skip
ABOUT_KINDS = {
    "HorizontalPodAutoscaler.autoscaling", "PodDisruptionBudget.policy", "Ingress.networking.k8s.io",
}  # fmt: skip
READY_KINDS = (
    "Deployment.apps", "StatefulSet.apps", "DaemonSet.apps", "ReplicaSet.apps", "ReplicationController", "Pod",
    "Job.batch",
)  # fmt: skip
"""Kinds that become ready, or do not."""


def level_of(kind: str) -> int:
    """The level of a kind. One that is not known here comes with the workloads: it may be an operator's."""
    if kind == "Namespace":
        return NAMESPACES
    if kind in CONFIGURATION_KINDS:
        return CONFIGURATION
    if kind in BINDING_KINDS:
        return BINDINGS
    return ABOUT_WORKLOADS if kind in ABOUT_KINDS else WORKLOADS
