"""Services: one EndpointSlice each, naming the ready pods it selects (there is no proxy: pods are on 127.0.0.1)."""

from __future__ import annotations

from collections.abc import Iterable

from practice.controllers.loop import Key
from practice.controllers.workloads import is_ready
from practice.kinds import Object
from practice.store import Event, Store

_SLICES = "endpointslices.discovery.k8s.io"


class Services:
    """Keys: (namespace, service)."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def keys(self, event: Event) -> Iterable[Key]:
        """The Service, or every Service of a pod's namespace."""
        meta = event.object["metadata"]
        if event.resource.key == "services":
            yield (meta["namespace"], meta["name"])
        elif event.resource.key == "pods":
            for service in self._store.list("services", meta["namespace"]):
                yield (meta["namespace"], service["metadata"]["name"])

    def reconcile(self, key: Key) -> float | None:
        """Write the slice of one Service."""
        service = self._store.peek("services", *key)
        if service is None or service["metadata"].get("deletionTimestamp") or not service["spec"].get("selector"):
            return None
        wanted = service["spec"]["selector"].items()
        endpoints: list[Object] = []
        for pod in self._store.list("pods", key[0]):
            labels = pod["metadata"].get("labels") or {}
            if wanted <= labels.items():
                about = {
                    "kind": "Pod",
                    "namespace": key[0],
                    "name": pod["metadata"]["name"],
                    "uid": pod["metadata"]["uid"],
                }
                ready = is_ready(pod) and not pod["metadata"].get("deletionTimestamp")
                endpoints.append({"addresses": ["127.0.0.1"], "conditions": {"ready": ready}, "targetRef": about})
        name = f"{key[1]}-practice"
        if self._store.peek(_SLICES, key[0], name) is None:
            meta = service["metadata"]
            owner = {
                "apiVersion": "v1",
                "kind": "Service",
                "name": meta["name"],
                "uid": meta["uid"],
                "controller": True,
            }
            labels = {
                "kubernetes.io/service-name": key[1],
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            }
            about = {"name": name, "namespace": key[0], "labels": labels, "ownerReferences": [owner]}
            self._store.create(_SLICES, {"metadata": about, "addressType": "IPv4", "endpoints": endpoints, "ports": []})
        else:
            self._store.change(_SLICES, key[0], name, lambda new: new.update(endpoints=endpoints))
        return None
