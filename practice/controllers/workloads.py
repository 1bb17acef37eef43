"""Deployments, ReplicaSets, StatefulSets and DaemonSets: pods as many as wanted, of the newest template."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable

from practice.controllers.loop import Key
from practice.controllers.scheduler import NODES, set_condition
from practice.kinds import Object
from practice.store import Event, Store

_DEPLOYMENTS, _REPLICAS, _STATEFUL, _DAEMONS = (
    "deployments.apps",
    "replicasets.apps",
    "statefulsets.apps",
    "daemonsets.apps",
)
_KINDS = {"ReplicaSet": _REPLICAS, "StatefulSet": _STATEFUL, "DaemonSet": _DAEMONS, "Deployment": _DEPLOYMENTS}
_HASH = "pod-template-hash"
_REVISION = "controller-revision-hash"


class Workloads:
    """Keys: (kind key, namespace, name)."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def keys(self, event: Event) -> Iterable[Key]:
        """Workloads themselves and the owners of pods and ReplicaSets; service accounts wake their namespace."""
        meta, key = event.object["metadata"], event.resource.key
        if key in _KINDS.values():
            yield (key, meta["namespace"], meta["name"])
        if key in ("pods", _REPLICAS):
            for owner in meta.get("ownerReferences") or []:
                if owner["kind"] in _KINDS:
                    yield (_KINDS[owner["kind"]], meta["namespace"], owner["name"])

    def reconcile(self, key: Key) -> float | None:
        """One workload; nothing is made for one that is being deleted."""
        obj = self._store.peek(*key)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            return None
        acts = {_DEPLOYMENTS: self._deployment, _REPLICAS: self._replica_set, _STATEFUL: self._stateful_set}
        acts.get(key[0], self._daemon_set)(obj)
        return None

    # --- Deployment ----------------------------------------------------------------------------------------------

    def _deployment(self, obj: Object) -> None:
        meta, spec = obj["metadata"], obj["spec"]
        sets = owned(self._store, _REPLICAS, obj)
        digest = template_hash(spec["template"])
        current = next((one for one in sets if one["metadata"]["labels"].get(_HASH) == digest), None)
        others = [one for one in sets if one is not current]
        is_recreate = spec["strategy"]["type"] == "Recreate"
        left = sum((one.get("status") or {}).get("replicas", 0) for one in others)
        if current is None:
            number = 1 + max((int(_note(one, "deployment.kubernetes.io/revision", "0")) for one in sets), default=0)
            current = self._new_set(obj, digest, number, 0 if is_recreate and left else spec["replicas"])
            note = {"deployment.kubernetes.io/revision": str(number)}
            self._store.change(
                _DEPLOYMENTS,
                meta["namespace"],
                meta["name"],
                lambda new: new["metadata"].setdefault("annotations", {}).update(note),
            )
        if not (is_recreate and left):
            self._scale(current, spec["replicas"])
        ready = (current.get("status") or {}).get("readyReplicas", 0)
        if is_recreate or ready >= spec["replicas"]:
            for one in others:
                self._scale(one, 0)
        counts = [one.get("status") or {} for one in [*others, current]]
        total = sum(count.get("replicas", 0) for count in counts)
        available = sum(count.get("availableReplicas", 0) for count in counts)
        status = {"replicas": total, "updatedReplicas": counts[-1].get("replicas", 0)}
        status |= {"readyReplicas": available, "availableReplicas": available}
        status["unavailableReplicas"] = max(0, spec["replicas"] - available)

        def act(new: Object) -> None:
            conditions = new.get("status", {}).get("conditions", [])
            new["status"] = {k: v for k, v in status.items() if v} | {"observedGeneration": meta["generation"]}
            new["status"]["conditions"] = copy.deepcopy(conditions)
            enough = available >= spec["replicas"]
            reason = "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable"
            set_condition(new, "Available", enough, reason)
            done = enough and status["updatedReplicas"] == total == spec["replicas"]
            set_condition(new, "Progressing", True, "NewReplicaSetAvailable" if done else "ReplicaSetUpdated")

        self._store.change(_DEPLOYMENTS, meta["namespace"], meta["name"], act)

    def _new_set(self, obj: Object, digest: str, number: int, replicas: int) -> Object:
        meta, template = obj["metadata"], copy.deepcopy(obj["spec"]["template"])
        template.setdefault("metadata", {}).setdefault("labels", {})[_HASH] = digest
        selector = copy.deepcopy(obj["spec"]["selector"])
        selector.setdefault("matchLabels", {})[_HASH] = digest
        made = {
            "metadata": {
                "name": f"{meta['name']}-{digest}",
                "namespace": meta["namespace"],
                "labels": dict(template["metadata"]["labels"]),
                "annotations": {"deployment.kubernetes.io/revision": str(number)},
                "ownerReferences": [owner_reference(obj)],
            },
            "spec": {"replicas": replicas, "selector": selector, "template": template},
        }
        return self._store.create(_REPLICAS, made)

    def _scale(self, one: Object, replicas: int) -> None:
        meta = one["metadata"]
        self._store.change(
            _REPLICAS, meta["namespace"], meta["name"], lambda new: new["spec"].update(replicas=replicas)
        )

    # --- ReplicaSet and DaemonSet --------------------------------------------------------------------------------

    def _replica_set(self, obj: Object) -> None:
        meta, wanted = obj["metadata"], obj["spec"]["replicas"]
        pods = living(self._store, obj)
        for _ in range(wanted - len(pods)):
            self._store.create("pods", pod_of(obj, obj["spec"]["template"]))
        for pod in sorted(pods, key=is_ready)[: max(0, len(pods) - wanted)]:
            self._store.delete("pods", meta["namespace"], pod["metadata"]["name"])
        ready = sum(map(is_ready, pods))
        status = {"replicas": len(living(self._store, obj)), "readyReplicas": ready, "availableReplicas": ready}
        status |= {"fullyLabeledReplicas": status["replicas"], "observedGeneration": meta["generation"]}
        self._store.change(_REPLICAS, meta["namespace"], meta["name"], lambda new: new.update(status=status))

    def _daemon_set(self, obj: Object) -> None:
        meta, pods = obj["metadata"], living(self._store, obj)
        for node in set(NODES) - {pod["spec"].get("nodeName") for pod in pods}:
            pod = pod_of(obj, obj["spec"]["template"])
            pod["spec"]["nodeName"] = node
            self._store.create("pods", pod)
        ready = sum(map(is_ready, pods))
        status = {"desiredNumberScheduled": len(NODES), "currentNumberScheduled": len(pods), "numberReady": ready}
        status |= {"numberAvailable": ready, "updatedNumberScheduled": len(pods), "numberMisscheduled": 0}
        status["observedGeneration"] = meta["generation"]
        self._store.change(_DAEMONS, meta["namespace"], meta["name"], lambda new: new.update(status=status))

    # --- StatefulSet ---------------------------------------------------------------------------------------------

    def _stateful_set(self, obj: Object) -> None:
        meta, spec = obj["metadata"], obj["spec"]
        revision = f"{meta['name']}-{template_hash(spec['template'])}"
        self._remember_revision(obj, revision)
        pods = {pod["metadata"]["name"]: pod for pod in owned(self._store, "pods", obj)}
        is_parallel = spec["podManagementPolicy"] == "Parallel"
        for number in range(spec["replicas"]):
            name = f"{meta['name']}-{number}"
            if name not in pods:
                self._make_pod(obj, number, revision)
            if not is_parallel and (name not in pods or not is_ready(pods[name])):
                break
        else:
            self._replace_outdated(obj, pods, revision)
        surplus = [name for name in pods if int(name.rpartition("-")[2]) >= spec["replicas"]]
        for name in sorted(surplus, key=lambda one: -int(one.rpartition("-")[2]))[: None if is_parallel else 1]:
            if not pods[name]["metadata"].get("deletionTimestamp"):
                self._store.delete("pods", meta["namespace"], name)
        self._report(obj, revision)

    def _make_pod(self, obj: Object, number: int, revision: str) -> None:
        meta, spec = obj["metadata"], obj["spec"]
        pod = pod_of(obj, spec["template"])
        del pod["metadata"]["generateName"]
        pod["metadata"]["name"] = name = f"{meta['name']}-{number}"
        labels = pod["metadata"].setdefault("labels", {})
        labels |= {
            "statefulset.kubernetes.io/pod-name": name,
            "apps.kubernetes.io/pod-index": str(number),
            _REVISION: revision,
        }
        pod["spec"]["hostname"] = name
        if spec.get("serviceName"):
            pod["spec"]["subdomain"] = spec["serviceName"]
        for template in spec.get("volumeClaimTemplates") or []:
            claim = f"{template['metadata']['name']}-{name}"
            if self._store.peek("persistentvolumeclaims", meta["namespace"], claim) is None:
                chosen = {**(template["metadata"].get("labels") or {}), **(spec["selector"].get("matchLabels") or {})}
                about = {"name": claim, "namespace": meta["namespace"], "labels": chosen}
                if notes := template["metadata"].get("annotations"):
                    about["annotations"] = dict(notes)
                self._store.create(
                    "persistentvolumeclaims", {"metadata": about, "spec": copy.deepcopy(template["spec"])}
                )
            volumes = [one for one in pod["spec"].get("volumes") or [] if one["name"] != template["metadata"]["name"]]
            volumes.append({"name": template["metadata"]["name"], "persistentVolumeClaim": {"claimName": claim}})
            pod["spec"]["volumes"] = volumes
        self._store.create("pods", pod)

    def _replace_outdated(self, obj: Object, pods: dict[str, Object], revision: str) -> None:
        if obj["spec"]["updateStrategy"]["type"] != "RollingUpdate":
            return
        old = [name for name, pod in pods.items() if pod["metadata"]["labels"].get(_REVISION) != revision]
        if old and all(is_ready(pod) for pod in pods.values()):
            last = max(old, key=lambda one: int(one.rpartition("-")[2]))
            self._store.delete("pods", obj["metadata"]["namespace"], last)

    def _remember_revision(self, obj: Object, revision: str) -> None:
        meta = obj["metadata"]
        if self._store.peek("controllerrevisions.apps", meta["namespace"], revision) is None:
            number = 1 + len(owned(self._store, "controllerrevisions.apps", obj))
            about = {"name": revision, "namespace": meta["namespace"], "ownerReferences": [owner_reference(obj)]}
            data = {"spec": {"template": obj["spec"]["template"]}}
            self._store.create("controllerrevisions.apps", {"metadata": about, "revision": number, "data": data})

    def _report(self, obj: Object, revision: str) -> None:
        meta, pods = obj["metadata"], living(self._store, obj)
        ready = sum(map(is_ready, pods))
        updated = sum(pod["metadata"]["labels"].get(_REVISION) == revision for pod in pods)
        before = (obj.get("status") or {}).get("currentRevision", revision)
        status: Object = {"replicas": len(pods), "readyReplicas": ready, "availableReplicas": ready}
        status |= {"updatedReplicas": updated, "currentReplicas": updated, "collisionCount": 0}
        status |= {"updateRevision": revision, "currentRevision": revision if updated == len(pods) else before}
        status["observedGeneration"] = meta["generation"]
        self._store.change(_STATEFUL, meta["namespace"], meta["name"], lambda new: new.update(status=status))


def owned(store: Store, key: str, obj: Object) -> list[Object]:
    """The objects of a kind that ``obj`` controls."""
    uid, namespace = obj["metadata"]["uid"], obj["metadata"]["namespace"]
    rows = store.list(key, namespace)
    return [one for one in rows if any(o["uid"] == uid for o in one["metadata"].get("ownerReferences") or [])]


def living(store: Store, obj: Object) -> list[Object]:
    """Its pods that are neither over nor being deleted."""
    rows = owned(store, "pods", obj)
    over = ("Succeeded", "Failed")
    return [
        pod for pod in rows if pod["status"].get("phase") not in over and not pod["metadata"].get("deletionTimestamp")
    ]


def is_ready(pod: Object) -> bool:
    """Whether the pod's Ready condition is true."""
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions") or [])


def owner_reference(obj: Object) -> Object:
    """A controlling owner reference to ``obj``."""
    reference = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "name": obj["metadata"]["name"]}
    return reference | {"uid": obj["metadata"]["uid"], "controller": True, "blockOwnerDeletion": True}


def pod_of(obj: Object, template: Object) -> Object:
    """A pod of a template, owned by ``obj``, with a generated name."""
    meta = copy.deepcopy(template.get("metadata") or {})
    meta.pop("name", None)
    meta |= {"generateName": obj["metadata"]["name"] + "-", "namespace": obj["metadata"]["namespace"]}
    return {"metadata": meta | {"ownerReferences": [owner_reference(obj)]}, "spec": copy.deepcopy(template["spec"])}


def template_hash(template: Object) -> str:
    """A short hash of a pod template."""
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]


def _note(obj: Object, name: str, otherwise: str) -> str:
    return str((obj["metadata"].get("annotations") or {}).get(name, otherwise))
