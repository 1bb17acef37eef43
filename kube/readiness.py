"""Readiness: waiting until what was recovered runs, and finding out why what does not run does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from kube.cluster import Cluster
from kube.diagnosis import why_not_ready
from kube.levels import READY_KINDS
from refloat.clock import Deadline, monotonic_seconds, pause
from refloat.errors import NotReady, ProbeFailed, RefloatError
from refloat.plan import RecoveryPlan
from refloat.recovery_point import ObjectRef

Object = Mapping[str, Any]
SIDE_BY_SIDE = 16
STEADY = timedelta(seconds=2)


@dataclass(frozen=True)
class State:
    """One look at a workload: ready or not, in words; ``is_hopeless``: it never becomes ready by itself."""

    is_ready: bool
    text: str
    is_hopeless: bool = False


def targets_of(plan: RecoveryPlan) -> list[ObjectRef]:
    """Everything in the plan that becomes ready, kept or created, in the plan's order."""
    return [step.ref for step in plan.objects if step.ref.kind in READY_KINDS]


def wait_ready(
    cluster: Cluster,
    targets: Sequence[ObjectRef],
    *,
    timeout: timedelta,
    on_progress: Callable[[str], None],
    steady: timedelta = STEADY,
) -> list[str]:
    """Wait until all are ready, and still are a moment later; returns one line of evidence for each.

    Nothing is given up before ``timeout`` unless it cannot become ready any more (a Job that failed, a pod that ended).

    Args:
        cluster: Where they are.
        targets: What must become ready.
        timeout: For all of them together.
        on_progress: Told each line of evidence as it becomes true.
        steady: How long a workload must stay ready: a container that starts and ends is ready in between.

    Raises:
        ProbeFailed: Something is not ready in time; the message names each, and the reason found on it and its pods.
    """
    deadline, started = Deadline.after(timeout), monotonic_seconds()

    def wait(target: ObjectRef) -> tuple[bool, str]:
        state, since = await_one(cluster, target, deadline, steady)
        if state.is_ready:
            line = f"{target} {state.text} after {since - started:.1f} s"
            on_progress(line)
            return True, line
        return False, f"{target}: {state.text}{why(cluster, target)}"

    with ThreadPoolExecutor(min(SIDE_BY_SIDE, max(1, len(targets)))) as pool:
        outcomes = list(pool.map(wait, targets))
    failed = [line for is_ready, line in outcomes if not is_ready]
    if failed:
        lines = "".join(f"\n  {line}" for line in failed)
        raise ProbeFailed(f"{len(failed)} of {len(targets)} workloads are not ready:{lines}")
    return [line for _, line in outcomes]


def await_one(cluster: Cluster, target: ObjectRef, deadline: Deadline, steady: timedelta) -> tuple[State, float]:
    """(state, since when on the monotonic clock): steadily ready, hopeless, or as it was when the time was over."""
    last = State(is_ready=False, text="was not looked at")

    def is_settled(obj: Object | None) -> bool:
        nonlocal last
        last = state_of(target.kind, obj)
        return last.is_ready or last.is_hopeless

    place = (target.kind, target.name, target.namespace)
    while True:
        try:
            cluster.wait(*place, is_settled, timeout=deadline.remaining, what=str(target))
        except NotReady:
            return last, monotonic_seconds()
        since = monotonic_seconds()
        if last.is_ready:
            pause(steady)
            is_settled(cluster.find(*place))
        if last.is_ready or last.is_hopeless or deadline.is_over:
            return last, since


def why(cluster: Cluster, target: ObjectRef) -> str:
    """The reasons found, ready to be appended; looking for them never hides the failure itself."""
    try:
        reasons = why_not_ready(cluster, target)
    except RefloatError as failure:
        return f" (its pods could not be looked at: {failure.message})"
    return "".join(f"\n    {reason}" for reason in reasons)


def state_of(kind: str, obj: Object | None) -> State:
    """Whether an object is ready, by the rules of ``kubectl rollout status`` where that knows the kind.

    Source: kubectl pkg/polymorphichelpers/rollout_status.go.
    """
    if obj is None:
        return State(is_ready=False, text="does not exist", is_hopeless=True)
    status, generation = obj.get("status") or {}, obj["metadata"].get("generation", 0)
    if kind in SEEN_FIRST and status.get("observedGeneration", 0) < generation:
        return State(is_ready=False, text="its controller has not seen it yet")
    return RULES[kind](obj, obj.get("spec") or {}, status)


def deployment(_: Object, spec: Object, status: Object) -> State:
    """All replicas are of the newest template and available, and no old ones are left."""
    wanted, updated = spec.get("replicas", 1), status.get("updatedReplicas", 0)
    available, total = status.get("availableReplicas", 0), status.get("replicas", 0)
    return State(updated >= wanted and total <= updated and available >= wanted, f"{available}/{wanted} available")


def stateful_set(_: Object, spec: Object, status: Object) -> State:
    """All replicas are ready, and unless updates are by hand, all above the partition are of the newest revision."""
    wanted, ready = spec.get("replicas", 1), status.get("readyReplicas", 0)
    strategy = spec.get("updateStrategy") or {}
    partition = (strategy.get("rollingUpdate") or {}).get("partition") or 0
    is_new = status.get("updatedReplicas", 0) >= wanted - partition
    if not partition:
        is_new = status.get("currentRevision") == status.get("updateRevision")
    by_hand = strategy.get("type") == "OnDelete"
    return State(ready >= wanted and (by_hand or is_new or not wanted), f"{ready}/{wanted} ready")


def daemon_set(_: Object, __: Object, status: Object) -> State:
    """A ready pod of the newest template on every node that should have one."""
    wanted, available = status.get("desiredNumberScheduled", 0), status.get("numberAvailable", 0)
    is_new = status.get("updatedNumberScheduled", 0) >= wanted
    return State(is_new and available >= wanted, f"{available}/{wanted} available")


def replica_set(_: Object, spec: Object, status: Object) -> State:
    """As many available replicas as wanted."""
    wanted, available = spec.get("replicas", 1), status.get("availableReplicas", 0)
    return State(available >= wanted, f"{available}/{wanted} available")


def pod(_: Object, spec: Object, status: Object) -> State:
    """Ready, or ended well; one that failed and may not restart never will be."""
    phase, conditions = status.get("phase", "Pending"), status.get("conditions") or []
    is_ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    over = phase == "Failed" and spec.get("restartPolicy") == "Never"
    return State(is_ready or phase == "Succeeded", "ready" if is_ready else phase, is_hopeless=over)


def job(_: Object, spec: Object, status: Object) -> State:
    """Complete, running, or suspended on purpose; one that failed is over."""
    conditions = {each["type"] for each in status.get("conditions") or [] if each["status"] == "True"}
    if "Failed" in conditions:
        return State(is_ready=False, text="failed", is_hopeless=True)
    if spec.get("suspend"):
        return State(is_ready=True, text="suspended, as in the point")
    if "Complete" in conditions:
        return State(is_ready=True, text="complete")
    return State(status.get("ready", 0) > 0, "running" if status.get("ready") else "not running")


RULES: Mapping[str, Callable[[Object, Object, Object], State]] = {
    "Deployment.apps": deployment,
    "StatefulSet.apps": stateful_set,
    "DaemonSet.apps": daemon_set,
    "ReplicaSet.apps": replica_set,
    "ReplicationController": replica_set,
    "Pod": pod,
    "Job.batch": job,
}
SEEN_FIRST = set(RULES) - {"Pod", "Job.batch"}
"""Kinds whose controller notes the generation it has seen."""
