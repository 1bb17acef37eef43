"""The scheduler of one node: a pod gets the node once its claims are bound."""

from __future__ import annotations

from collections.abc import Iterable

from practice.controllers.loop import Key
from practice.kinds import Object
from practice.store import Event, Store, stamp

NODE = "practice-node"
SELECTED_NODE = "volume.kubernetes.io/selected-node"


class Scheduler:
    """Keys: (namespace, pod)."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def keys(self, event: Event) -> Iterable[Key]:
        """Unscheduled pods: this one, or those of the namespace whose claims moved."""
        meta = event.object["metadata"]
        if event.resource.key == "pods":
            yield (meta["namespace"], meta["name"])
        elif event.resource.key == "persistentvolumeclaims":
            for pod in self._store.list("pods", meta["namespace"]):
                if not pod["spec"].get("nodeName"):
                    yield (meta["namespace"], pod["metadata"]["name"])

    def reconcile(self, key: Key) -> float | None:
        """Bind the pod to the node, ask for its volumes, or say why it cannot be scheduled."""
        pod = self._store.peek("pods", *key)
        if pod is None or pod["spec"].get("nodeName") or pod["metadata"].get("deletionTimestamp"):
            return None
        problem, is_waiting = "", False
        for name in claim_names(pod):
            claim = self._store.peek("persistentvolumeclaims", key[0], name)
            if claim is None or claim["metadata"].get("deletionTimestamp"):
                state = "not found" if claim is None else "is being deleted"
                problem = f'0/1 nodes are available: persistentvolumeclaim "{name}" {state}.'
            elif claim["status"].get("phase") != "Bound":
                is_waiting = True
                if self._is_delayed(claim):
                    self._store.change("persistentvolumeclaims", key[0], name, _select)
                else:
                    problem = problem or "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."
        if problem:
            self._store.change("pods", *key, lambda new: set_condition(new, "PodScheduled", False, "Unschedulable", problem))
        elif not is_waiting:
            self._store.change("pods", *key, _bind)
        return None

    def _is_delayed(self, claim: Object) -> bool:
        known = self._store.peek("storageclasses.storage.k8s.io", None, claim["spec"].get("storageClassName") or "")
        return known is not None and known["volumeBindingMode"] == "WaitForFirstConsumer" and not claim["spec"].get("volumeName")


def claim_names(pod: Object) -> list[str]:
    """The claims a pod mounts."""
    volumes = pod["spec"].get("volumes") or []
    return [one["persistentVolumeClaim"]["claimName"] for one in volumes if "persistentVolumeClaim" in one]


def _select(claim: Object) -> None:
    claim["metadata"].setdefault("annotations", {})[SELECTED_NODE] = NODE


def _bind(pod: Object) -> None:
    pod["spec"]["nodeName"] = NODE
    set_condition(pod, "PodScheduled", True)


def set_condition(obj: Object, kind: str, is_true: bool, reason: str = "", message: str = "") -> None:
    """Set one condition; the transition time moves only when its status does."""
    conditions = obj.setdefault("status", {}).setdefault("conditions", [])
    status = "True" if is_true else "False"
    old = next((one for one in conditions if one["type"] == kind), None)
    since = old["lastTransitionTime"] if old and old["status"] == status else stamp()
    new = {"type": kind, "status": status, "lastTransitionTime": since}
    new |= ({"reason": reason} if reason else {}) | ({"message": message} if message else {})
    if old is None:
        conditions.append(new)
    else:
        conditions[conditions.index(old)] = new
