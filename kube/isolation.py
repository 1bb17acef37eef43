"""Isolation: a recovery plan turned into one for a drill, which reaches nothing outside its own namespaces.

Pure but for ``fence``. What would be reached from outside is closed, what would act by itself is suspended or left
out, and the namespaces get a default-deny network policy before anything is put into them. Whether the cluster's
network enforces policies cannot be known from its API; the report says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from kube.cluster import Cluster
from kube.rewriting import NAME_LABEL, parse
from refloat.application import RUN_LABEL
from refloat.errors import ObjectExists
from refloat.plan import Blocker, Mappings, ObjectStep, Planned
from refloat.recovery_point import RecoveryPoint

Object = dict[str, Any]
LEFT_OUT = {
    "Ingress.networking.k8s.io": "would be reached from outside",
    "Endpoints": "may point outside",
    "EndpointSlice.discovery.k8s.io": "may point outside",
    "Job.batch": "would do its work again",
}
"""Kinds that a drill does not create, and why; and besides every kind of network policy, which could open the fence."""
ROUTES = ".gateway.networking.k8s.io"
OUTER = (
    "nodePort", "healthCheckNodePort", "externalIPs", "loadBalancerIP", "loadBalancerClass", "loadBalancerSourceRanges",
    "externalTrafficPolicy", "allocateLoadBalancerNodePorts", "externalName",
)  # fmt: skip
"""Fields of a Service, or of its ports, that belong to the types a drill does not create (core/v1 ServiceSpec)."""
FENCE = "refloat-drill"
LONGEST_NAME = 63
UNPROVEN = "whether this cluster's network enforces network policies is not known to its API"


def drill_mark(run: str) -> str:
    """How the names of a run's drill namespaces end."""
    return f"-drill-{run[:8]}"


def mappings_of(point: RecoveryPoint, run: str) -> Mappings:
    """New names for every namespace of the point, of this run alone."""
    old = {each.ref.name if each.ref.kind == "Namespace" else each.ref.namespace for each in point.objects} - {""}
    end = drill_mark(run)
    return Mappings(namespaces={name: name[: LONGEST_NAME - len(end)].rstrip("-") + end for name in sorted(old)})


def isolate(planned: Planned, run: str) -> tuple[Planned, tuple[str, ...]]:
    """The plan without what would reach outside, manifests changed likewise; and what was done, in words."""
    said: list[str] = [
        f"network policy {FENCE}: nothing in or out but between the drill's namespaces, and DNS",
        UNPROVEN,
    ]
    kept: list[ObjectStep] = []
    manifests = dict(planned.manifests)
    for step in planned.plan.objects:
        obj = parse(manifests[step.source_path])
        why = why_left_out(step.ref.kind, obj)
        if why:
            said.append(f"{step.ref} left out: it {why}")
            continue
        changed = closed(step.ref.kind, obj, run)
        if changed:
            manifests[step.source_path] = json.dumps(obj).encode()
            said.append(f"{step.ref}: {changed}")
        kept.append(step)
    there = tuple(
        Blocker(
            subject=str(step.ref), reason="exists already", do="Run the drill again: its names are of each run alone."
        )
        for step in planned.plan.objects
        if step.ref.kind == "Namespace" and step.action != "create"
    )
    changes = {"objects": tuple(kept), "blockers": (*planned.plan.blockers, *there)}
    return replace(planned, plan=planned.plan.model_copy(update=changes), manifests=manifests), tuple(said)


def why_left_out(kind: str, obj: Mapping[str, Any]) -> str:
    """Why a drill does not create an object; empty: it does."""
    if kind.partition(".")[0].endswith("NetworkPolicy"):
        return "could open the fence, for policies add up"
    if kind.endswith(ROUTES):
        return LEFT_OUT["Ingress.networking.k8s.io"]
    if kind == "Service" and (obj.get("spec") or {}).get("type") == "ExternalName":
        return "is a name for something outside"
    return LEFT_OUT.get(kind, "")


def closed(kind: str, obj: Object, run: str) -> str:
    """Change an object in place so that it acts and reaches nowhere; what was changed, or nothing."""
    if kind == "Namespace":
        obj["metadata"]["labels"] = {**(obj["metadata"].get("labels") or {}), RUN_LABEL: run}
        return "labelled with the run, which removes it"
    if kind not in ("CronJob.batch", "Service"):
        return ""
    spec = obj["spec"] = obj.get("spec") or {}
    if kind == "CronJob.batch" and not spec.get("suspend"):
        spec["suspend"] = True
        return "suspended"
    if kind == "Service" and spec.get("type", "ClusterIP") != "ClusterIP":
        former, spec["type"] = spec["type"], "ClusterIP"
        for part in (spec, *(spec.get("ports") or ())):
            for name in OUTER:
                part.pop(name, None)
        return f"a ClusterIP, no {former}"
    if kind == "Service" and spec.pop("externalIPs", None):
        return "without its external addresses"
    return ""


def fence(cluster: Cluster, namespaces: Sequence[str], run: str) -> None:
    """Close the namespaces, which are there and empty.

    Raises:
        ClusterError: The server refused a policy; nothing has run yet.
    """
    own = {"namespaceSelector": {"matchLabels": {RUN_LABEL: run}}}
    names = {"namespaceSelector": {"matchLabels": {NAME_LABEL: "kube-system"}}}
    dns = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    for namespace in namespaces:
        policy = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": FENCE, "namespace": namespace},
            "spec": {
                "podSelector": {},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"from": [own]}],
                "egress": [{"to": [own]}, {"to": [names], "ports": dns}],
            },
        }
        try:
            cluster.create(policy)
        except ObjectExists:
            continue  # a retry of this very step: the namespaces are the run's own
