"""Jobs: pods until enough have succeeded, too many have failed, or time is up. CronJobs are kept, never run."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from practice.controllers.loop import Key
from practice.controllers.scheduler import set_condition
from practice.controllers.workloads import living, owned, pod_of
from practice.kinds import Object
from practice.store import Event, Store, stamp
from refloat import clock

_JOBS = "jobs.batch"


class Jobs:
    """Keys: (namespace, job)."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def keys(self, event: Event) -> Iterable[Key]:
        """Jobs and the Jobs of pods."""
        meta = event.object["metadata"]
        if event.resource.key == _JOBS:
            yield (meta["namespace"], meta["name"])
        elif event.resource.key == "pods":
            for owner in meta.get("ownerReferences") or []:
                if owner["kind"] == "Job":
                    yield (meta["namespace"], owner["name"])

    def reconcile(self, key: Key) -> float | None:
        """Start pods, count them, end the Job, and remove it when its time to live is over."""
        job = self._store.peek(_JOBS, *key)
        if job is None or job["metadata"].get("deletionTimestamp"):
            return None
        spec, status = job["spec"], job.get("status") or {}
        if any(
            one["type"] in ("Complete", "Failed") and one["status"] == "True" for one in status.get("conditions") or []
        ):
            return self._expire(key, job)
        pods = owned(self._store, "pods", job)
        succeeded = sum(pod["status"].get("phase") == "Succeeded" for pod in pods)
        failed = sum(pod["status"].get("phase") == "Failed" for pod in pods)
        restarts = sum(c.get("restartCount", 0) for pod in pods for c in pod["status"].get("containerStatuses") or [])
        deadline = spec.get("activeDeadlineSeconds")
        age = _age_seconds(status["startTime"]) if status.get("startTime") else 0.0
        verdict = ""
        if succeeded >= spec["completions"]:
            verdict = "Complete"
        elif failed + restarts > spec["backoffLimit"]:
            verdict = "BackoffLimitExceeded"
        elif deadline is not None and age >= deadline:
            verdict = "DeadlineExceeded"
        active = living(self._store, job)
        if not verdict and not spec["suspend"]:
            for _ in range(min(spec["parallelism"], spec["completions"] - succeeded) - len(active)):
                self._store.create("pods", pod_of(job, spec["template"]))
        elif verdict != "Complete":
            for pod in active:
                self._store.delete("pods", key[0], pod["metadata"]["name"])
        counts = {"active": len(living(self._store, job)), "succeeded": succeeded, "failed": failed}
        self._report(key, counts, verdict)
        return max(0.1, deadline - age) if deadline is not None and not verdict else None

    def _report(self, key: Key, counts: dict[str, int], verdict: str) -> None:
        def act(new: Object) -> None:
            old = new.get("status") or {}
            status: Object = {name: number for name, number in counts.items() if number}
            if not new["spec"]["suspend"]:
                status["startTime"] = old.get("startTime", stamp())
            status |= {"conditions": list(old.get("conditions", []))} if old.get("conditions") else {}
            new["status"] = status | {"uncountedTerminatedPods": {}, "terminating": 0, "ready": counts["active"]}
            if verdict == "Complete":
                new["status"]["completionTime"] = stamp()
                set_condition(new, "SuccessCriteriaMet", True, "CompletionsReached")
                set_condition(new, "Complete", True, "CompletionsReached")
            elif verdict:
                texts = {"BackoffLimitExceeded": "Job has reached the specified backoff limit"}
                text = texts.get(verdict, "Job was active longer than specified deadline")
                set_condition(new, "FailureTarget", True, verdict, text)
                set_condition(new, "Failed", True, verdict, text)

        self._store.change(_JOBS, key[0], key[1], act)

    def _expire(self, key: Key, job: Object) -> float | None:
        seconds = job["spec"].get("ttlSecondsAfterFinished")
        if seconds is None:
            return None
        ended = job["status"].get("completionTime") or job["status"]["conditions"][-1]["lastTransitionTime"]
        left = float(seconds) - _age_seconds(ended)
        if left > 0:
            return left
        self._store.delete(_JOBS, *key)
        return None


def _age_seconds(text: str) -> float:
    return (clock.now() - datetime.fromisoformat(text)).total_seconds()
