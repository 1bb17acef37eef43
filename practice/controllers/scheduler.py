"""The scheduler: a pod gets a node once its claims are bound; the nodes are names, all of them this machine."""

from __future__ import annotations

from collections.abc import Iterable

from practice.controllers.loop import Key
from practice.kinds import Object
from practice.store import Event, Store, stamp

NODES = ("practice-1", "practice-2", "practice-3")
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
                problem = f'0/{len(NODES)} nodes are available: persistentvolumeclaim "{name}" {state}.'
            elif claim["status"].get("phase") != "Bound":
                is_waiting = True
                if self._is_delayed(claim):
                    self._store.change("persistentvolumeclaims", key[0], name, _select)
                else:
                    problem = (
                        problem
                        or f"0/{len(NODES)} nodes are available: pod has unbound immediate PersistentVolumeClaims."
                    )
        if problem:
            self._store.change(
                "pods", key[0], key[1], lambda new: set_condition(new, "PodScheduled", False, "Unschedulable", problem)
            )
        elif not is_waiting:
            node = self._node(pod)
            self._store.change("pods", key[0], key[1], lambda new: _bind(new, node))
        return None

    def _node(self, pod: Object) -> str:
        """The node its selector names or its claims are used on (ReadWriteOnce), else the one with fewest pods."""
        named = (pod["spec"].get("nodeSelector") or {}).get("kubernetes.io/hostname")
        if named:
            return str(named)
        loads, mine = dict.fromkeys(NODES, 0), set(claim_names(pod))
        for other in self._store.list("pods"):
            node = other["spec"].get("nodeName")
            if node in loads and not is_over(other):
                loads[node] += 1
                if mine & set(claim_names(other)) and other["metadata"]["namespace"] == pod["metadata"]["namespace"]:
                    return str(node)
        return min(NODES, key=lambda name: loads[name])

    def _is_delayed(self, claim: Object) -> bool:
        known = self._store.peek("storageclasses.storage.k8s.io", None, claim["spec"].get("storageClassName") or "")
        return (
            known is not None
            and known["volumeBindingMode"] == "WaitForFirstConsumer"
            and not claim["spec"].get("volumeName")
        )


def claim_names(pod: Object) -> list[str]:
    """The claims a pod mounts."""
    volumes = pod["spec"].get("volumes") or []
    return [one["persistentVolumeClaim"]["claimName"] for one in volumes if "persistentVolumeClaim" in one]


def is_over(pod: Object) -> bool:
    """Whether the pod has ended and will not run again."""
    return pod["status"].get("phase") in ("Succeeded", "Failed")


def _select(claim: Object) -> None:
    claim["metadata"].setdefault("annotations", {})[SELECTED_NODE] = NODES[0]


def _bind(pod: Object, node: str) -> None:
    pod["spec"]["nodeName"] = node
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
