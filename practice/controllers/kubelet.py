"""The kubelet: pods on the node become local processes, and their state becomes status."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from practice.containers import Container, NotYet, Pods
from practice.controllers.loop import Key, Loop
from practice.controllers.scheduler import NODES, is_over
from practice.kinds import Object
from practice.processes import Processes, ask, is_alive, send
from practice.refusal import Refusal
from practice.sandboxes import Running, Sandbox, report, succeeded, terminated
from practice.store import Event, Store, stamp
from refloat.clock import Deadline

MESSAGE_LIMIT_BYTES = 4096
"""core/v1 ContainerStatus: a termination message is cut here."""
LOG_LIMIT_BYTES, LOG_LIMIT_LINES = 2048, 80
"""What FallbackToLogsOnError takes of a log."""
_BACKOFF_SECONDS = (0.5, 1.0, 2.0, 5.0)


class Kubelet:
    """Keys: (namespace, pod)."""

    def __init__(self, store: Store, loop: Loop, pods: Pods, processes: Processes) -> None:
        self._store, self._loop, self._pods, self._processes = store, loop, pods, processes
        self._sandboxes: dict[str, Sandbox] = {}

    # --- what exec, log and the snapshotter ask ------------------------------------------------------------------

    def container(self, pod: Object, name: str) -> Container:
        """The running container of that name; 400 when it does not run."""
        sandbox = self._sandboxes.get(pod["metadata"]["uid"])
        running = sandbox.containers.get(name) if sandbox else None
        if running is None or running.group is None or running.made is None:
            raise Refusal(400, f'container "{name}" in pod "{pod["metadata"]["name"]}" is not running')
        return running.made

    def join(self, pod: Object, name: str, group: int) -> None:
        """An exec session's process group ends with its container."""
        sandbox = self._sandboxes.get(pod["metadata"]["uid"])
        if sandbox is not None and name in sandbox.containers:
            sandbox.containers[name].sessions.add(group)

    def leave(self, pod: Object, name: str, group: int) -> None:
        """An exec session is over."""
        sandbox = self._sandboxes.get(pod["metadata"]["uid"])
        if sandbox is not None and name in sandbox.containers and not is_alive(group):
            sandbox.containers[name].sessions.discard(group)

    def groups(self, uid: str) -> list[int]:
        """Every process group of a pod."""
        sandbox = self._sandboxes.get(uid)
        rows = list(sandbox.containers.values()) if sandbox else []
        return [one.group for one in rows if one.group is not None] + [
            each for one in rows for each in list(one.sessions)
        ]

    def log(self, pod: Object, name: str, *, previous: bool) -> tuple[Path, Callable[[], bool]]:
        """A container's log and a way to ask whether it may still grow; 400 when there is none yet.

        Refusal: in the kubelet's words.
        """
        sandbox = self._sandboxes.get(pod["metadata"]["uid"])
        running = sandbox.containers.get(name) if sandbox else None
        who = f'container "{name}" in pod "{pod["metadata"]["name"]}"'
        if running is None or running.made is None:
            raise Refusal(400, f"{who} is waiting to start: {running.waiting[0] if running else 'ContainerCreating'}")
        if previous and running.restarts == 0:
            raise Refusal(400, f"previous terminated {who} not found")
        group, path = running.group, running.made.log
        if previous:
            return path.with_suffix(".previous"), lambda: False
        return path, lambda: group is not None and running.group == group

    # --- the loop ------------------------------------------------------------------------------------------------

    def keys(self, event: Event) -> Iterable[Key]:
        """Pods; and, when a Secret or ConfigMap comes, the pods of its namespace that wait."""
        meta = event.object["metadata"]
        if event.resource.key == "pods":
            if event.type == "DELETED":
                self._forget(meta["uid"])
            yield (meta["namespace"], meta["name"])
        elif event.resource.key in ("secrets", "configmaps") and event.type == "ADDED":
            for pod in self._store.list("pods", meta["namespace"]):
                if pod["status"].get("phase") == "Pending":
                    yield (meta["namespace"], pod["metadata"]["name"])

    def reconcile(self, key: Key) -> float | None:
        """Start, watch, restart or end the containers of one pod and write what is."""
        pod = self._store.peek("pods", *key)
        if pod is None or pod["spec"].get("nodeName") not in NODES:
            return None
        sandbox = self._sandboxes.setdefault(pod["metadata"]["uid"], Sandbox(pod["metadata"]["uid"]))
        if pod["metadata"].get("deletionTimestamp"):
            return self._end(key, pod, sandbox)
        again: float | None = None
        if not is_over(pod):
            left = self._overdue(pod, sandbox)
            if sandbox.is_overdue:
                again = self._stop(sandbox, int(pod["spec"].get("terminationGracePeriodSeconds", 30)))
            else:
                again = min((wait for wait in (left, self._run(key, pod, sandbox)) if wait is not None), default=None)
        self._store.change("pods", key[0], key[1], lambda new: report(new, sandbox))
        return again

    def _run(self, key: Key, pod: Object, sandbox: Sandbox) -> float | None:
        again: list[float] = []
        for phase, specs in (("init", pod["spec"].get("initContainers") or []), ("main", pod["spec"]["containers"])):
            for spec in specs:
                running = sandbox.containers.setdefault(spec["name"], Running(spec["name"]))
                wait = self._advance(key, pod, running, spec, restarts_on_success=phase == "main")
                if wait is not None:
                    again.append(wait)
                if phase == "init" and not succeeded(running):
                    return min(again) if again else None
        return min(again) if again else None

    def _advance(
        self, key: Key, pod: Object, running: Running, spec: Object, *, restarts_on_success: bool
    ) -> float | None:
        if running.group is not None:
            return self._probe(key, running, spec)
        policy = pod["spec"].get("restartPolicy", "Always")
        if running.ended is not None:
            failed = running.ended["exitCode"] != 0
            wants = (policy == "Always" and (restarts_on_success or failed)) or (policy == "OnFailure" and failed)
            if not wants:
                return None
        if running.next_start is not None and not running.next_start.is_over:
            return max(0.01, running.next_start.remaining.total_seconds())
        return self._start(key, pod, running, spec)

    def _start(self, key: Key, pod: Object, running: Running, spec: Object) -> float | None:
        try:
            made = self._pods.container(pod, spec)
            if made.log.exists():
                made.log.rename(made.log.with_suffix(".previous"))
            log = made.log.open("wb")
        except NotYet as reason:
            again = running.waiting[0] in ("ErrImagePull", "ImagePullBackOff")
            text = f'Back-off pulling image "{spec.get("image")}": {reason}' if again else str(reason)
            running.waiting = ("ImagePullBackOff", text) if again else (reason.reason, str(reason))
            self._note(pod, "Failed", str(reason))
            return 0.5
        except Refusal as reason:
            running.waiting = ("ContainerCreating", reason.message)
            return 0.5
        with log:
            if running.ended is not None:
                running.restarts, running.last, running.ended = running.restarts + 1, running.ended, None
            running.made = made
            running.started_at = stamp()
            try:
                files = (subprocess.DEVNULL, log.fileno(), log.fileno())
                running.group = self._processes.start(
                    made.argv(made.command), made.env, made.folder, files, self._reaper(key, running), ends_group=True
                )
            except OSError as error:
                running.ended = terminated(
                    128, "StartError", f"{made.command[0]}: {error.strerror}", running.started_at
                )
                running.next_start = _backoff(running.restarts)
                return 0.0
        running.is_ready = "readinessProbe" not in spec
        return self._probe(key, running, spec)

    def _reaper(self, key: Key, running: Running) -> Callable[[int], None]:
        def ended(code: int) -> None:
            def settle() -> None:
                running.group, running.is_ready = None, False
                for group in running.sessions:
                    send(group, signal.SIGKILL)
                running.sessions.clear()
                text = "" if running.made is None else last_words(running.made, failed=code != 0)
                reason = "Completed" if code == 0 else "Error"
                running.ended = terminated(code, reason, text, running.started_at)
                running.next_start = _backoff(running.restarts)
                self._loop.schedule(self, key)

            self._loop.call(settle)

        return ended

    def _probe(self, key: Key, running: Running, spec: Object) -> float | None:
        """Run an exec readiness probe in the background; other kinds of probe count as passed."""
        probe = spec.get("readinessProbe")
        if not probe or running.made is None:
            return None
        if "exec" not in probe:
            running.is_ready = True
            return None
        if running.probed:
            return None
        running.probed, made, group = True, running.made, running.group

        def ask() -> None:
            try:
                words, limit = made.argv(probe["exec"]["command"]), float(probe.get("timeoutSeconds", 1)) + 1.0
                passed = self._processes.run(words, made.env, made.folder, limit) == 0
            except OSError:
                passed = False

            def settle() -> None:
                running.probed = False
                before = running.is_ready
                running.misses = 0 if passed else running.misses + 1
                lasting = running.is_ready and running.misses < int(probe.get("failureThreshold", 3))
                running.is_ready = (passed or lasting) and running.group == group
                period = float(probe.get("periodSeconds", 10)) if running.is_ready else 0.2
                self._loop.schedule(self, key, period)
                if running.is_ready != before:
                    self._store.change("pods", key[0], key[1], self._report_own)

            self._loop.call(settle)

        threading.Thread(target=ask, name="probe", daemon=True).start()
        return None

    # --- the end -------------------------------------------------------------------------------------------------

    def _end(self, key: Key, pod: Object, sandbox: Sandbox) -> float | None:
        again = self._stop(sandbox, int(pod["metadata"].get("deletionGracePeriodSeconds", 0)))
        if again is None:
            self._store.delete("pods", *key, grace=0)
        return again

    def _stop(self, sandbox: Sandbox, grace_seconds: int) -> float | None:
        """Ask every container's first process to end, kill all after their grace; None when none runs any more."""
        last = Deadline.after(timedelta(seconds=grace_seconds))
        if sandbox.stopping is None:
            for one in sandbox.containers.values():
                if one.group is not None:
                    ask(one.group)
        if sandbox.stopping is None or last.ends_at_seconds < sandbox.stopping.ends_at_seconds:
            sandbox.stopping = last
        if not sandbox.is_alive:
            return None
        if sandbox.stopping.is_over and not sandbox.is_killed:
            sandbox.is_killed = True
            for group in self.groups(sandbox.uid):
                send(group, signal.SIGKILL)
        return max(0.05, sandbox.stopping.remaining.total_seconds())

    def _overdue(self, pod: Object, sandbox: Sandbox) -> float | None:
        """The seconds a pod with a deadline has left, 0.0 when they are over; None when it has none."""
        limit = pod["spec"].get("activeDeadlineSeconds")
        if limit is None:
            return None
        if sandbox.deadline is None:
            sandbox.deadline = Deadline.after(timedelta(seconds=limit))
        sandbox.is_overdue = sandbox.deadline.is_over
        return max(0.0, sandbox.deadline.remaining.total_seconds())

    def _forget(self, uid: str) -> None:
        for group in self.groups(uid):
            send(group, signal.SIGKILL)
        sandbox = self._sandboxes.pop(uid, None)
        if sandbox is not None:
            shutil.rmtree(self._pods.folder({"metadata": {"uid": uid}}), ignore_errors=True)

    def close(self) -> None:
        """Kill every process of every pod."""
        for uid in list(self._sandboxes):
            for group in self.groups(uid):
                send(group, signal.SIGKILL)

    # --- status --------------------------------------------------------------------------------------------------

    def _report_own(self, pod: Object) -> None:
        sandbox = self._sandboxes.get(pod["metadata"]["uid"])
        if sandbox is not None:
            report(pod, sandbox)

    def _note(self, pod: Object, reason: str, message: str) -> None:
        """Write an Event about the pod; one name per pod and reason, so that repeats do not pile up."""
        meta = pod["metadata"]
        about = {
            "kind": "Pod",
            "apiVersion": "v1",
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
        }
        event: dict[str, Any] = {
            "metadata": {"name": f"{meta['name']}.{reason.lower()}", "namespace": meta["namespace"]}
        }
        event |= {"involvedObject": about, "reason": reason, "message": message, "type": "Warning", "count": 1}
        event |= {"source": {"component": "kubelet"}, "firstTimestamp": stamp(), "lastTimestamp": stamp()}
        with contextlib.suppress(Refusal):
            self._store.create("events", event)


def _backoff(restarts: int) -> Deadline:
    return Deadline.after(timedelta(seconds=_BACKOFF_SECONDS[min(restarts, len(_BACKOFF_SECONDS) - 1)]))


def last_words(container: Container, *, failed: bool) -> str:
    """The termination message: the container's file, or by its policy after a failure the end of its log."""
    with contextlib.suppress(OSError):
        text = container.termination.read_bytes()[:MESSAGE_LIMIT_BYTES]
        if not text and failed and container.tells_log:
            text = b"".join(container.log.read_bytes()[-LOG_LIMIT_BYTES:].splitlines(keepends=True)[-LOG_LIMIT_LINES:])
        return text.decode(errors="replace")
    return ""
