"""Movers: one mover Job from its creation to its result, and everything of it gone afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from kube.cluster import Cluster
from kube.diagnosis import why_not_ready
from kube.home import HOME, ensure_home
from kube.mover_job import CONTAINER, JOB, MEMORY_LIMIT, SECRET, STOPS_WITHIN, job_of, name_of_job, secret_of
from kube.mover_log import MoverLog
from kube.runs import attend
from refloat.clock import Deadline, pause
from refloat.errors import Expired, Interrupted, NotReady, RefloatError, Retry, TransferFailed
from refloat.recovery_point import ObjectRef
from refloat.transfer import MoverResult, MoverSpec, Progress, parse_result

JOB_LABEL = "batch.kubernetes.io/job-name"
SLICE = timedelta(seconds=2)
"""How often a silent Job is looked at."""
SILENT_WITHIN = timedelta(minutes=10)
"""How long the API server may be away while a mover works."""
LATE_BY = timedelta(minutes=2)
"""How long after its deadline a Job may take to be ended by the cluster."""
GONE_WITHIN = STOPS_WITHIN + timedelta(minutes=1)
HOPELESS = ("InvalidImageName", "ErrImageNeverPull")
PULLING = ("ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError", *HOPELESS)
CONFIGURING = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
Object = dict[str, Any]


@dataclass(frozen=True)
class Limits:
    """How long a mover may stay before its first instruction, by what it waits for."""

    created: timedelta = timedelta(seconds=30)
    pulled: timedelta = timedelta(seconds=60)
    configured: timedelta = timedelta(seconds=30)
    placed: timedelta = timedelta(minutes=5)
    started: timedelta = timedelta(minutes=15)
    """Volumes are provisioned from snapshots and attached in this time."""


LIMITS = Limits()


def run_mover(
    cluster: Cluster,
    spec: MoverSpec,
    *,
    claim: str,
    image: str,
    secret_env: Mapping[str, str],
    labels: Mapping[str, str],
    timeout: timedelta,
    on_progress: Callable[[Progress], None],
    limits: Limits = LIMITS,
) -> MoverResult:
    """Run one mover in refloat's namespace to its end and give its result, which may be a named failure.

    What an earlier try of the same run left for this action and volume is removed first; Job, pod and Secret are
    removed at the end, whatever happens.

    Args:
        cluster: Where it runs.
        spec: What it does.
        claim: The claim in refloat's namespace it works on.
        image: The mover image.
        secret_env: Its environment; all of it is secret.
        labels: Labels beside the run's.
        timeout: The Job is ended by the cluster after this.
        on_progress: Called on a thread of the log's, about once a second; must not raise.
        limits: How long it may take to start.

    Raises:
        TransferFailed: It ended without a result, or cannot start; the message says why.
        NotReady: It was not placed on a node, or its volume not attached, in time; in the scheduler's words.
    """
    ensure_home(cluster)
    attend(cluster, spec.run)
    name = name_of_job(spec)
    remove_mover(cluster, name)
    log = MoverLog(cluster, on_progress, secret_env.values())
    try:
        start(cluster, job_of(spec, claim=claim, image=image, labels=labels, timeout=timeout), secret_env)
        pod, job = wait_ended(cluster, spec, image, log, timeout, limits)
        log.end()
        result = result_in(pod)
        if result is None or was_stopped(result):
            raise TransferFailed(f"mover of {spec.volume} {why_it_died(pod, job, timeout)}{quoted(log.last_words)}")
    except BaseException as failure:
        log.leave()
        try:
            remove_mover(cluster, name)
        except RefloatError as second:
            failure.add_note(f"its Job was not removed: {second.message}; run: refloat sweep --run {spec.run}")
        raise
    remove_mover(cluster, name)
    return result


def start(cluster: Cluster, manifest: Object, secret_env: Mapping[str, str]) -> None:
    """Job, then the Secret it owns, then off: no Secret is ever without an owner, no pod ever without its Secret."""
    job = cluster.create(manifest)
    cluster.create(secret_of(job, secret_env))
    cluster.patch(JOB, job["metadata"]["name"], HOME, {"spec": {"suspend": False}})


def remove_mover(cluster: Cluster, name: str) -> None:
    """Delete a mover's Job, pod and Secret, and wait until they are gone; nothing there is well.

    Raises:
        NotReady: The pod does not end.
    """
    asked = cluster.delete(JOB, name, HOME, propagation="Foreground")
    cluster.delete(SECRET, name, HOME)
    if asked:
        what = f"Job {HOME}/{name} and its pod gone"
        cluster.wait(JOB, name, HOME, lambda obj: obj is None, timeout=GONE_WITHIN, what=what)


# ---- while it runs


def wait_ended(
    cluster: Cluster, spec: MoverSpec, image: str, log: MoverLog, timeout: timedelta, limits: Limits
) -> tuple[Object | None, Object | None]:
    """The pod as it was last seen, ended or gone, and the Job."""
    deadline = Deadline.after(timeout + LATE_BY)
    patience = Patience(cluster, spec, image, limits)
    pod: Object | None = None
    for change, seen in sightings(cluster, name_of_job(spec)):
        if change == "JOB":
            if seen is None or has_failed(seen):
                return newest_pod(cluster, name_of_job(spec)) or pod, seen
        elif seen is not None:
            pod = seen
            log.look(pod)
            if change == "DELETED" or has_ended(pod):
                return pod, cluster.find(JOB, name_of_job(spec), HOME)
        patience.check(pod)
        if deadline.is_over:
            break
    return pod, None


def sightings(cluster: Cluster, name: str) -> Iterator[tuple[str, Object | None]]:
    """Every change of the Job's pod at once, and ("JOB", the Job) every few seconds; faults of the server pass."""
    lost: Deadline | None = None
    while True:
        try:
            yield from cluster.watch("Pod", HOME, labels=f"{JOB_LABEL}={name}", timeout=SLICE)
            job = cluster.find(JOB, name, HOME)
        except RefloatError as failure:
            if failure.retry is Retry.NEVER and not isinstance(failure, Expired):
                raise
            lost = lost or Deadline.after(SILENT_WITHIN)
            if lost.is_over:
                raise
            pause(timedelta(seconds=0.5))
            continue
        lost = None
        yield "JOB", job


@dataclass
class Patience:
    """How long a mover has waited, and for what; raises once that is too long."""

    cluster: Cluster
    spec: MoverSpec
    image: str
    limits: Limits
    waits: dict[str, Deadline] = field(default_factory=dict)

    def check(self, pod: Object | None) -> None:
        """Raise when what the mover waits for has not come in time."""
        state = main_state(pod)
        waiting = state.get("waiting") or {}
        reason = str(waiting.get("reason", ""))
        who, words = f"mover of {self.spec.volume}", f"{reason}: {waiting.get('message', '')}".rstrip(": ")
        if reason in HOPELESS or self.is_over("pulled", reason in PULLING):
            raise TransferFailed(
                f"{who} cannot start: image {self.image} cannot be pulled: {words}",
                guidance="Give an image the cluster can pull in REFLOAT_MOVER_IMAGE.",
            )
        if self.is_over("configured", reason in CONFIGURING):
            raise TransferFailed(f"{who} cannot start: {words}")
        for limit, is_waiting in (
            ("created", pod is None),
            ("placed", pod is None or not is_placed(pod)),
            ("started", not state or bool(waiting)),
        ):
            if self.is_over(limit, is_waiting):
                reference = ObjectRef(kind=JOB, namespace=HOME, name=name_of_job(self.spec))
                reasons = "; ".join(why_not_ready(self.cluster, reference)) or "no reason is given"
                limit_seconds = getattr(self.limits, limit).total_seconds()
                raise NotReady(f"{who} was not {limit} within {limit_seconds:.0f} s: {reasons}")

    def is_over(self, limit: str, is_waiting: bool) -> bool:
        """Whether it has waited for this without a break for as long as it may."""
        if not is_waiting:
            self.waits.pop(limit, None)
            return False
        return self.waits.setdefault(limit, Deadline.after(getattr(self.limits, limit))).is_over


# ---- reading pods and Jobs


def main_state(pod: Object | None) -> Object:
    """The state of the mover's container; empty while there is none."""
    for each in ((pod or {}).get("status") or {}).get("containerStatuses") or []:
        if each["name"] == CONTAINER:
            return dict(each.get("state") or {})
    return {}


def is_placed(pod: Object) -> bool:
    """Whether the scheduler has found a node."""
    return bool(pod["spec"].get("nodeName"))


def has_ended(pod: Object) -> bool:
    """Whether the pod will not run any more."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def has_failed(job: Object) -> bool:
    """Whether the Job was given up."""
    conditions = (job.get("status") or {}).get("conditions") or []
    return any(each["type"] == "Failed" and each["status"] == "True" for each in conditions)


def newest_pod(cluster: Cluster, name: str) -> Object | None:
    """The Job's newest pod; None when it has none."""
    pods = list(cluster.list("Pod", HOME, labels=f"{JOB_LABEL}={name}"))
    return max(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None)


def result_in(pod: Object | None) -> MoverResult | None:
    """The result the mover left in its termination message; None when it left none."""
    return parse_result(str((main_state(pod).get("terminated") or {}).get("message") or ""))


def was_stopped(result: MoverResult) -> bool:
    """Whether all it has to say is that it was told to stop; nobody here did."""
    return result.error is not None and result.error.get("code") == Interrupted.code


def why_it_died(pod: Object | None, job: Object | None, timeout: timedelta) -> str:
    """What is known of the end of a mover that left no result."""
    conditions = ((job or {}).get("status") or {}).get("conditions") or []
    if any(each.get("reason") == "DeadlineExceeded" for each in conditions if each["status"] == "True"):
        return f"did not end within {timeout.total_seconds():.0f} s and was stopped"
    if pod is None:
        return "ended without a trace: its Job was removed" if job is None else "ended before it had a pod"
    where = f"(pod {pod['metadata']['name']} on {pod['spec'].get('nodeName', 'no node')})"
    return f"{how_it_ended(pod)} {where}"


def how_it_ended(pod: Object) -> str:
    """What a pod says of its end."""
    status, ended = pod.get("status") or {}, main_state(pod).get("terminated") or {}
    disrupted = [
        f"{each.get('reason', '')}: {each.get('message', '')}"
        for each in status.get("conditions") or []
        if each["type"] == "DisruptionTarget" and each["status"] == "True"
    ]
    if ended.get("reason") == "OOMKilled":
        return f"was killed for memory: it needed more than {MEMORY_LIMIT}"
    if status.get("reason") or disrupted:
        words = disrupted[0] if disrupted else f"{status['reason']}: {status.get('message', '')}"
        return f"was put off its node, {words}"
    if "deletionTimestamp" in pod["metadata"]:
        return "was removed while it ran"
    if ended:
        message = str(ended.get("message") or "").strip()
        said = f", {message}" if message and parse_result(message) is None else ""
        return f"ended with exit code {ended.get('exitCode')}, {ended.get('reason', '')}{said}, and no result"
    return "was lost"


def quoted(words: str) -> str:
    """Last words, if there are any."""
    return f"; its last words: {words}" if words else ""
