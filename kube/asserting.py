"""Asserting: a command in a recovered pod, within its time, and what it must say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta

from kube.cluster import Cluster
from kube.selectors import parse
from refloat.application import Assertion
from refloat.clock import monotonic_seconds
from refloat.drill import AssertionResult
from refloat.errors import RefloatError

SHOWN = 2000
"""Characters of a command's output that are kept: its end."""
SEARCHED_BYTES = 1 << 20
"""The end of the output in which the expression is looked for."""


def assess(cluster: Cluster, assertions: Sequence[Assertion], namespaces: Mapping[str, str]) -> list[AssertionResult]:
    """Try every assertion, whatever became of those before.

    Args:
        cluster: Where the application was recovered.
        assertions: In the order of the document.
        namespaces: The application's own → the drill's.
    """
    return [tried(cluster, each, namespaces) for each in assertions]


def tried(cluster: Cluster, assertion: Assertion, namespaces: Mapping[str, str]) -> AssertionResult:
    """One of them; what fails is told, and never raised."""
    begun = monotonic_seconds()
    where, why, said = "", "", ""
    try:
        where, container = pod_for(cluster, assertion, namespaces)
        if not where:
            why = f"no running pod is chosen by selector {assertion.selector!r}"
        else:
            namespace, _, pod = where.partition("/")
            done = cluster.exec(namespace, pod, container, assertion.command, timeout=assertion.timeout)
            said = (done.stdout[-SEARCHED_BYTES:]).decode(errors="replace")
            why = why_wrong(assertion, done.exit_code, said)
            if why:
                said += done.stderr[-SHOWN:].decode(errors="replace")
    except RefloatError as failure:
        why = failure.message
    took = timedelta(seconds=round(monotonic_seconds() - begun, 3))
    return AssertionResult(name=assertion.name, pod=where, passed=not why, took=took, why=why, said=said[-SHOWN:])


def why_wrong(assertion: Assertion, exit_code: int | None, said: str) -> str:
    """What is wrong with the end of a command; empty: nothing."""
    if exit_code is None:
        return f"did not end within {assertion.timeout.total_seconds():g} s"
    if exit_code != 0:
        return f"ended with {exit_code}"
    if assertion.expect and not re.search(assertion.expect, said):
        return f"did not say {assertion.expect!r}"
    return ""


def pod_for(cluster: Cluster, assertion: Assertion, namespaces: Mapping[str, str]) -> tuple[str, str]:
    """``namespace/name`` and container of the first running pod that it chooses; empty when there is none."""
    chosen = parse(assertion.selector)
    for old, new in sorted(namespaces.items()):
        if assertion.namespace not in (None, old):
            continue
        for pod in sorted(cluster.list("Pod", new), key=lambda each: str(each["metadata"]["name"])):
            is_running = (pod.get("status") or {}).get("phase") == "Running"
            if is_running and chosen(pod["metadata"].get("labels") or {}):
                container = assertion.container or pod["spec"]["containers"][0]["name"]
                return f"{new}/{pod['metadata']['name']}", str(container)
    return "", ""
