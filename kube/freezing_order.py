"""The default freezing order: what each pod is to the others, by its engine, and where no engine tells, by the graph.

Entry points → workers → queues → replicas → primaries: who makes others write comes to rest before those who write.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kube.references import names_object, selects_pod
from refloat.inventory import Inventory, Pod
from refloat.ports.quiescer import ENTRY, PRIMARY, WORKER, HoldScript

FROM_OUTSIDE = ("LoadBalancer", "NodePort")
"""Types of Services that are reached from outside the cluster (core/v1 ServiceSpec)."""
GATEWAY_API = ".gateway.networking.k8s.io"


def default_rank(inventory: Inventory, pod: Pod, script: HoldScript) -> int:
    """The script's own; else that of an entry point, of a worker (no volume of the application), or of a primary."""
    if script.rank is not None:
        return script.rank
    if is_entry_point(inventory, pod):
        return ENTRY
    volumes = {(volume.namespace, volume.claim) for volume in inventory.volumes}
    return PRIMARY if any((pod.namespace, claim) in volumes for claim in pod.claims) else WORKER


def is_entry_point(inventory: Inventory, pod: Pod) -> bool:
    """Whether requests from outside the cluster come to it: by a Service of such a type, an Ingress or a route."""
    named = set(services_named_by_routes(inventory))
    services = (
        each for each in inventory.objects if each.ref.kind == "Service" and each.ref.namespace == pod.namespace
    )
    return any(
        selects_pod("Service", service.manifest, pod.labels)
        and (service.manifest["spec"].get("type") in FROM_OUTSIDE or (pod.namespace, service.ref.name) in named)
        for service in services
    )


def services_named_by_routes(inventory: Inventory) -> Iterator[tuple[str, str]]:
    """Namespace and name of every Service that an Ingress or a route of the Gateway API sends requests to."""
    for found in inventory.objects:
        if found.ref.kind == "Ingress.networking.k8s.io":
            for _, name in names_object(found.ref.kind, found.manifest):
                yield found.ref.namespace, name
        elif found.ref.kind.endswith(GATEWAY_API):
            for backend in backends_of(found.manifest):
                if backend.get("kind", "Service") == "Service" and "name" in backend:
                    yield str(backend.get("namespace", found.ref.namespace)), str(backend["name"])


def backends_of(route: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The ``backendRefs`` of a route's rules (HTTPRoute, GRPCRoute, TLSRoute, TCPRoute)."""
    for rule in (route.get("spec") or {}).get("rules") or []:
        yield from rule.get("backendRefs") or []
