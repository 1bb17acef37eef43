"""Applying: the plan's objects created level by level, exactly as shown; nothing that exists is overwritten."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import groupby
from typing import Any

from kube.cluster import Cluster
from kube.comparing import difference
from kube.levels import NAMESPACES
from kube.marks import RECOVERED_BY, RECOVERED_FROM, SUSPENDED, annotations_of, is_recovered_from
from kube.rewriting import rewrite
from kube.sanitise import is_plain_default
from refloat.clock import Deadline, pause
from refloat.errors import ClusterError, Conflict, Forbidden, ObjectExists, ObjectMissing, Unreachable
from refloat.plan import ObjectStep, RecoveryPlan

Object = dict[str, Any]
CRON_JOB = "CronJob.batch"
SIDE_BY_SIDE = 8
PATIENCE = timedelta(seconds=30)
"""How long one creation is tried again while the refusal is of a passing kind."""
FIRST_PAUSE, LONGEST_PAUSE = timedelta(milliseconds=250), timedelta(seconds=4)
PASSING = (
    "error looking up service account",  # made a moment ago; admission reads from a cache
    "status unknown for quota",
    "not yet ready to handle request",
)
"""Words of refusals that pass by themselves (403 of admission controllers)."""


@dataclass(frozen=True)
class Applying:
    """One recovery's way of creating objects."""

    cluster: Cluster
    plan: RecoveryPlan
    manifests: Mapping[str, bytes] = field(repr=False)
    run: str
    patience: timedelta

    def wanted(self, step: ObjectStep) -> Object:
        """The object of a step as it is created: marked, and a schedule suspended until the workloads are ready."""
        obj = rewrite(self.manifests[step.source_path], self.plan.mappings)
        marks = {RECOVERED_FROM: self.plan.point_id, RECOVERED_BY: self.run}
        if step.ref.kind == CRON_JOB and not obj["spec"].get("suspend"):
            obj["spec"]["suspend"] = True
            marks[SUSPENDED] = "true"
        obj["metadata"]["annotations"] = {**annotations_of(obj), **marks}
        return obj

    def create(self, step: ObjectStep) -> bool:
        """Create one object; False when this recovery, or somebody in its very words, made it already.

        Raises:
            ObjectExists: Another one has the name; it is left alone.
            ClusterError: The server refused it, for good or for longer than patience lasts; named.
        """
        obj, deadline, wait = self.wanted(step), Deadline.after(self.patience), FIRST_PAUSE
        while True:
            try:
                self.cluster.create(obj)
                return True
            except ObjectExists:
                return self._existing(step, obj)
            except ClusterError as refusal:
                if not is_passing(refusal) or deadline.is_over:
                    raise named(step, refusal) from refusal
            pause(min(wait, deadline.remaining))
            wait = min(wait * 2, LONGEST_PAUSE)

    def _existing(self, step: ObjectStep, obj: Object) -> bool:
        """What to make of an object that the plan did not show."""
        ref = step.ref
        live = self.cluster.find(ref.kind, ref.name, ref.namespace or None)
        if live is None:
            raise Conflict(f"{ref} was there and went away while it was created")
        if is_recovered_from(live, self.plan.point_id) or ref.kind == "Namespace":
            return False
        if is_plain_default(live):
            patch = {name: value for name, value in obj.items() if name not in ("apiVersion", "kind", "metadata")}
            metadata = {name: value for name, value in obj["metadata"].items() if name in ("labels", "annotations")}
            self.cluster.patch(ref.kind, ref.name, ref.namespace, {**patch, "metadata": metadata})
            return True
        where = difference(self.cluster, obj, live)
        if where:
            raise ObjectExists(f"{ref} exists, is not from this recovery, and differs in {where}; it was left alone")
        return False

    def level(self, steps: Sequence[ObjectStep], on_done: Callable[[str], None]) -> int:
        """Create the objects of one level side by side; the first failure carries the others as notes."""
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            doing: list[tuple[ObjectStep, Future[bool]]] = [(step, pool.submit(self.create, step)) for step in steps]
        created, failures = 0, []
        for step, future in doing:
            failure = future.exception()
            if failure is None:
                created += future.result()
                on_done(f"{step.ref} {'created' if future.result() else 'was there'}")
            else:
                failures.append(failure)
        if failures:
            for other in failures[1:]:
                failures[0].add_note(f"also: {other}")
            raise failures[0]
        return created


def is_passing(refusal: ClusterError) -> bool:
    """Whether the same creation may succeed a moment later: webhooks that do not answer, caches that lag behind."""
    if isinstance(refusal, Unreachable | Conflict):
        return True
    return isinstance(refusal, Forbidden) and any(words in refusal.message for words in PASSING)


def named(step: ObjectStep, refusal: ClusterError) -> ClusterError:
    """The refusal with the object's name in front."""
    return type(refusal)(f"{step.ref}: {refusal.message}", guidance=refusal.guidance, object=str(step.ref))


def create_namespaces(cluster: Cluster, plan: RecoveryPlan, manifests: Mapping[str, bytes], *, run: str) -> None:
    """Create the plan's namespaces that are missing, with the labels and annotations of the point's.

    Raises:
        ClusterError: The server refused one; named.
    """
    steps = [step for step in plan.objects if step.level == NAMESPACES and step.action == "create"]
    Applying(cluster, plan, manifests, run, PATIENCE).level(steps, lambda _: None)


def apply_plan(
    cluster: Cluster,
    plan: RecoveryPlan,
    manifests: Mapping[str, bytes],
    *,
    run: str,
    on_done: Callable[[str], None],
    patience: timedelta = PATIENCE,
) -> int:
    """Create everything the plan creates but claims and namespaces, level by level; returns how many were created.

    Args:
        cluster: The target.
        plan: The plan, without blockers.
        manifests: The point's manifests by path inside its tree.
        run: The run's id, noted on what is created.
        on_done: Told one line about each object.
        patience: How long one creation is tried again while its refusal is of a passing kind.

    Raises:
        ObjectExists: Something appeared that the plan did not show; it was left alone.
        ClusterError: The server refused an object; the message names it and the reason.
    """
    work = Applying(cluster, plan, manifests, run, patience)
    steps = sorted((s for s in plan.objects if s.action == "create" and s.level > NAMESPACES), key=lambda s: s.level)
    created = 0
    for _, level in groupby(steps, key=lambda step: step.level):
        created += work.level(list(level), on_done)
    return created


def resume_schedules(cluster: Cluster, plan: RecoveryPlan) -> None:
    """Let every CronJob run that this recovery suspended; one that was suspended in the point stays so."""
    for step in plan.objects:
        if step.ref.kind != CRON_JOB:
            continue
        try:
            live = cluster.get(CRON_JOB, step.ref.name, step.ref.namespace)
        except ObjectMissing:
            continue  # somebody removed it: nothing to resume
        if is_recovered_from(live, plan.point_id) and SUSPENDED in annotations_of(live):
            patch = {"metadata": {"annotations": {SUSPENDED: None}}, "spec": {"suspend": False}}
            cluster.patch(CRON_JOB, step.ref.name, step.ref.namespace, patch)
