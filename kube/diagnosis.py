"""Diagnosis: why a workload does not run, from its conditions, its pods, their claims, and events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kube.cluster import Cluster
from kube.membership import CLAIM
from refloat.recovery_point import ObjectRef

Object = Mapping[str, Any]
MOST_REASONS = 8
MOST_LETTERS = 300


def why_not_ready(cluster: Cluster, target: ObjectRef) -> list[str]:
    """Reasons for people, the nearest first, at most eight; empty when nothing is to be seen."""
    obj = cluster.find(target.kind, target.name, target.namespace)
    if obj is None:
        return []
    events = list(cluster.list("Event", target.namespace))
    pods, owners = pods_of(cluster, target, obj)
    reasons = [*conditions(obj)]
    for pod in pods:
        reasons += pod_reasons(cluster, pod, events)
    if not pods:
        for owner in owners:
            reasons += warnings_about(events, owner)
    return [shortened(each) for each in dict.fromkeys(reasons)][:MOST_REASONS]


def shortened(text: str) -> str:
    """One line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= MOST_LETTERS else line[: MOST_LETTERS - 1] + "…"


def pods_of(cluster: Cluster, target: ObjectRef, obj: Object) -> tuple[list[Object], list[Object]]:
    """(the workload's pods that are not ready, the objects whose events speak of pods that could not be made)."""
    if target.kind == "Pod":
        return [obj], [obj]
    owners = [obj]
    uids = {obj["metadata"]["uid"]}
    if target.kind == "Deployment.apps":
        sets = [each for each in cluster.list("ReplicaSet.apps", target.namespace) if is_owned(each, uids)]
        owners += sets
        uids |= {each["metadata"]["uid"] for each in sets}
    pods = [pod for pod in cluster.list("Pod", target.namespace) if is_owned(pod, uids)]
    return [pod for pod in pods if not is_ready(pod)], owners


def is_owned(obj: Object, uids: set[str]) -> bool:
    """Whether one of these owns the object."""
    return any(owner["uid"] in uids for owner in obj["metadata"].get("ownerReferences") or [])


def is_ready(pod: Object) -> bool:
    """Whether the pod is ready, or ended well."""
    status = pod.get("status") or {}
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or [])
    return ready or status.get("phase") == "Succeeded"


def conditions(obj: Object) -> Iterator[str]:
    """What a workload says of itself: replicas it cannot make, deadlines it missed, a Job that failed."""
    for each in (obj.get("status") or {}).get("conditions") or []:
        bad = (each["type"] in ("ReplicaFailure", "Failed") and each["status"] == "True") or (
            each["type"] == "Progressing" and each["status"] == "False"
        )
        if bad:
            yield f"{each.get('reason', each['type'])}: {each.get('message', '')}"


def pod_reasons(cluster: Cluster, pod: Object, events: Sequence[Object]) -> list[str]:
    """Why one pod is not ready: not scheduled, claims not bound, containers waiting or ending, events."""
    name, status = f"pod {pod['metadata']['name']}", pod.get("status") or {}
    found = []
    for each in status.get("conditions") or []:
        if each["type"] == "PodScheduled" and each["status"] == "False":
            found.append(f"{name}: {each.get('reason', 'not scheduled')}: {each.get('message', '')}")
    found += [f"{name}: {text}" for text in claim_reasons(cluster, pod)]
    for each in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        found += [f"{name}: container {each['name']} {text}" for text in container_reasons(each)]
    found += [f"{name}: {text}" for text in warnings_about(events, pod)[-2:]]
    return found or [f"{name}: {status.get('reason') or status.get('phase', 'Pending')} {status.get('message', '')}"]


def container_reasons(status: Object) -> Iterator[str]:
    """What a container waits for, how it ended last, or that it runs and is not ready."""
    state, last = status.get("state") or {}, (status.get("lastState") or {}).get("terminated")
    if (waiting := state.get("waiting")) and waiting.get("reason") not in ("PodInitializing", "ContainerCreating"):
        yield f"waits: {waiting.get('reason', '')} {waiting.get('message', '')}"
    ended = state.get("terminated") or last
    if ended and ended.get("exitCode"):
        yield f"ended with exit code {ended['exitCode']} ({ended.get('reason', '')}) {ended.get('message', '')}"
    if "running" in state and not status.get("ready"):
        yield f"runs and is not ready ({status.get('restartCount', 0)} restarts)"


def claim_reasons(cluster: Cluster, pod: Object) -> Iterator[str]:
    """Claims of the pod that are absent or not bound."""
    namespace = pod["metadata"]["namespace"]
    for volume in pod["spec"].get("volumes") or []:
        name = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if name is None:
            continue
        claim = cluster.find(CLAIM, name, namespace)
        phase = "absent" if claim is None else (claim.get("status") or {}).get("phase", "Pending")
        if phase != "Bound":
            yield f"claim {name} is {phase}"


def warnings_about(events: Sequence[Object], obj: Object) -> list[str]:
    """The warnings about one object, the latest last."""
    about = [e for e in events if (e.get("involvedObject") or {}).get("uid") == obj["metadata"]["uid"]]
    about = [e for e in about if e.get("type") == "Warning"]
    about.sort(key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or ""))
    return [f"{e.get('reason', '')}: {e.get('message', '')}" for e in about]
