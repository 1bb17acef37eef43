"""Hooks: the user's own commands before and after the cut, from the document and from Velero's annotations.

Annotations as Velero documents them (velero.io/docs, backup hooks): ``pre.hook.backup.velero.io/{command,container,
on-error,timeout}``, the same with ``post``, and keys without the prefix as an older spelling of ``pre``. An annotation
replaces the document's hooks of that phase for that pod. A command is a JSON array, or one word; no shell is added.
"""

from __future__ import annotations

import json
import shlex
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from kube.cluster import Cluster
from kube.selectors import parse
from refloat.application import MAX_HOOK, Application, HookCommand
from refloat.clock import monotonic_seconds, now
from refloat.duration import parse_duration
from refloat.errors import InvalidDocument, ObjectMissing, QuiesceFailed, RefloatError, ThawUnconfirmed
from refloat.inventory import Inventory, Pod
from refloat.recovery_point import HookRecord

Phase = Literal["pre", "post"]
VELERO = "hook.backup.velero.io"
SHOWN_STDERR = 300


@dataclass(frozen=True)
class PlannedHook:
    """The commands of one pod's container; either may be missing."""

    pod: Pod
    container: str
    source: Literal["document", "velero-annotation"]
    phase: Phase
    command: HookCommand

    @property
    def by_hand(self) -> str:
        """The same command for a person."""
        words = shlex.join(self.command.command)
        return f"kubectl exec -n {self.pod.namespace} {self.pod.name} -c {self.container} -- {words}"


def plan_hooks(application: Application, inventory: Inventory) -> list[PlannedHook]:
    """Every hook that will run, in the order of the document and of pod names.

    Raises:
        InvalidDocument: An annotation is malformed.
        ObjectMissing: A hook names a container its pod does not have, or its selector chooses no pod.
    """
    hooks: list[PlannedHook] = []
    phases: tuple[Phase, ...] = ("pre", "post")
    for pod in sorted((p for p in inventory.pods if p.phase == "Running"), key=lambda p: (p.namespace, p.name)):
        for phase in phases:
            annotated = from_annotations(pod, phase)
            hooks += [annotated] if annotated else []
    annotated_pods = {(hook.pod.uid, hook.phase) for hook in hooks}
    for index, rule in enumerate(application.hooks):
        chosen = parse(rule.selector)
        pods = [
            pod
            for pod in sorted(inventory.pods, key=lambda p: (p.namespace, p.name))
            if pod.phase == "Running" and rule.namespace in (None, pod.namespace) and chosen(pod.labels)
        ]
        if not pods:
            raise ObjectMissing(
                f"hook {index + 1} of {application.name} (selector {rule.selector!r}) chooses no running pod",
                guidance="Correct the hook's selector: a hook that never runs protects nothing.",
            )
        for pod in pods:
            for phase, command in (("pre", rule.pre), ("post", rule.post)):
                if command and (pod.uid, phase) not in annotated_pods:
                    hooks.append(
                        checked(PlannedHook(pod, rule.container or pod.containers[0], "document", phase, command))
                    )
    return hooks


def checked(hook: PlannedHook) -> PlannedHook:
    """The hook itself when its pod has the container."""
    if hook.container not in hook.pod.containers:
        raise ObjectMissing(
            f"pod {hook.pod.namespace}/{hook.pod.name} has no container {hook.container!r} for its hook"
        )
    return hook


def from_annotations(pod: Pod, phase: Phase) -> PlannedHook | None:
    """The hook Velero's annotations declare on a pod, or None."""
    prefixes = [f"{phase}.{VELERO}/", f"{VELERO}/"] if phase == "pre" else [f"{phase}.{VELERO}/"]
    prefix = next((p for p in prefixes if f"{p}command" in pod.annotations), None)
    if prefix is None:
        return None
    found: Mapping[str, str] = {k[len(prefix) :]: v for k, v in pod.annotations.items() if k.startswith(prefix)}
    try:
        text = found["command"]
        words = json.loads(text) if text.lstrip().startswith("[") else [text]
        command = HookCommand(
            command=tuple(words),
            timeout=min(MAX_HOOK, parse_duration(found.get("timeout", "30s"))),
            on_error="continue" if found.get("on-error", "Fail") == "Continue" else "fail",
        )
    except ValueError as wrong:
        raise InvalidDocument(f"hook annotation of pod {pod.namespace}/{pod.name} ({prefix}…): {wrong}") from wrong
    return checked(PlannedHook(pod, found.get("container") or pod.containers[0], "velero-annotation", phase, command))


def run_pre(cluster: Cluster, hooks: Sequence[PlannedHook]) -> list[HookRecord]:
    """Run the pre-hooks in order. When one that must succeed does not, every pod touched is released first.

    Raises:
        QuiesceFailed: A pre-hook failed or ran out of time.
        ThawUnconfirmed: And a post-hook failed while releasing.
    """
    records: list[HookRecord] = []
    touched: set[str] = set()
    try:
        for hook in hooks:
            if hook.phase == "pre":
                touched.add(hook.pod.uid)
                record, failure = run(cluster, hook)
                records.append(record)
                if failure and hook.command.on_error == "fail":
                    raise QuiesceFailed(f"pre-hook of {failure}", pod=f"{hook.pod.namespace}/{hook.pod.name}")
    except BaseException as first:
        try:
            release(cluster, [hook for hook in hooks if hook.pod.uid in touched])
        except RefloatError as second:
            raise second from first
        raise
    return records


def release(cluster: Cluster, hooks: Sequence[PlannedHook]) -> list[HookRecord]:
    """Run every post-hook, in reverse order, whatever happens to the others; signals wait until it is done.

    Raises:
        ThawUnconfirmed: One that must succeed failed; the message holds the command to run by hand.
    """
    records: list[HookRecord] = []
    failures: list[str] = []
    with signals_ignored():
        for hook in reversed([each for each in hooks if each.phase == "post"]):
            record, failure = run(cluster, hook)
            records.append(record)
            if failure and hook.command.on_error == "fail":
                failures.append(f"post-hook of {failure}; by hand: {hook.by_hand}")
    if failures:
        raise ThawUnconfirmed("; ".join(failures))
    return records


def run(cluster: Cluster, hook: PlannedHook) -> tuple[HookRecord, str | None]:
    """One hook: its record, and what went wrong (None: nothing did)."""
    where, name = f"{hook.pod.namespace}/{hook.pod.name}", hook.command.command[0]
    started, begun = now(), monotonic_seconds()
    code: int | None = None
    failure: str | None
    try:
        result = cluster.exec(
            hook.pod.namespace, hook.pod.name, hook.container, hook.command.command, timeout=hook.command.timeout
        )
        code = result.exit_code
        tail = result.stderr[-SHOWN_STDERR:].decode(errors="replace").strip()
        if code is None:
            limit = hook.command.timeout.total_seconds()
            failure = f"{where}: {name} did not end within {limit:.0f} s and may still be running in the pod"
        else:
            failure = None if code == 0 else f"{where}: {name} ended with {code}" + (f": {tail}" if tail else "")
    except RefloatError as broken:
        failure = f"{where}: {name} could not be run: {broken.message}"
    record = HookRecord(
        phase=hook.phase,
        namespace=hook.pod.namespace,
        pod=hook.pod.name,
        pod_uid=hook.pod.uid,
        container=hook.container,
        source=hook.source,
        started_at=started,
        duration=timedelta(seconds=monotonic_seconds() - begun),
        exit_code=code,
        allowed_to_fail=hook.command.on_error == "continue",
    )
    return record, failure


@contextmanager
def signals_ignored() -> Iterator[None]:
    """Let SIGTERM and SIGINT pass while the block runs: a second signal would abort the release half-way."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
