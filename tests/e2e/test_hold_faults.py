"""What lets go when refloat, a node's cable, a kubelet or the API server is gone: writes go through again, in time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from refloat.clock import pause
from tests.e2e.command import Refloat
from tests.e2e.given import Site, environment
from tests.e2e.ledger import Ledger
from tests.e2e.shop import remove_namespace
from tests.e2e.watched import (
    FAULT_SECONDS,
    IN_FLIGHT_SECONDS,
    LEASE_SECONDS,
    PODS,
    SESSION_SECONDS,
    cable,
    component,
    seen_in,
    wait_released,
    watch,
)

NAMESPACE = "shop-e2e-faults"
HELD_SECONDS = 1.0
"""Held before anything breaks, while every watcher tries to write."""


@pytest.fixture(scope="module")
def ledger(site_a: Site, refloat: Refloat) -> Iterator[Ledger]:
    """A ledger of these tests' own."""
    assert refloat
    ledger = Ledger(site_a.cluster, NAMESPACE).start(environment("REFLOAT_E2E_POSTGRES_IMAGE"))
    before = ledger.checkpointers()
    yield ledger
    assert ledger.checkpointers() == before, "what a holder left was taken for a crashed server"
    remove_namespace(site_a.cluster, NAMESPACE)


@dataclass
class Holder:
    """The process that holds, and a watcher in every pod that goes on writing whatever happens to the cluster."""

    ledger: Ledger
    process: subprocess.Popen[str]
    held_at: float = 0.0
    acknowledged: dict[str, list[float]] = field(default_factory=dict)

    def step(self, word: str) -> dict[str, Any]:
        """Its next line, which must be this step."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        said: dict[str, Any] = json.loads(line) if line else {}
        assert said.get("step") == word, f"{word} expected: {said} {self.process.poll()}"
        return said

    def let_go(self) -> list[str]:
        """Tell it to end the hold; why parts broke meanwhile."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return list(self.step("over")["broken"])

    def waited(self, since: float) -> dict[str, float]:
        """Per pod, how long after an instant the first write was acknowledged."""
        return {
            pod: min((at for at in each if at > since), default=1e12) - since for pod, each in self.acknowledged.items()
        }

    def wrote_within(self, begin: float, end: float) -> list[str]:
        """Pods that acknowledged a write between two instants."""
        return [pod for pod, each in self.acknowledged.items() if any(begin < at < end for at in each)]


@contextmanager
def holding(ledger: Ledger, kubeconfig: str) -> Iterator[Holder]:
    """All six servers held by a process of its own, watched; at the end every watcher's instants are read."""
    for pod in PODS:
        watch(ledger, pod)
    words = (sys.executable, "-m", "tests.e2e.holder_alone", kubeconfig, NAMESPACE)
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    holder = Holder(ledger, process)
    try:
        assert len(holder.step("planned")["parts"]) == len(PODS)
        holder.step("held")
        holder.held_at = time.time()
        pause(timedelta(seconds=HELD_SECONDS))
        yield holder
        holder.acknowledged = {pod: seen_in(ledger, pod) for pod in PODS}
    finally:
        process.kill()
        process.wait()


def test_killed(ledger: Ledger, site_a: Site) -> None:
    """SIGKILL of refloat: the sessions end with it."""
    with holding(ledger, site_a.kubeconfig) as holder:
        killed = time.time()
        os.killpg(holder.process.pid, signal.SIGKILL)
        holder.process.wait()
        wait_released(ledger, killed, LEASE_SECONDS)
    assert holder.wrote_within(holder.held_at + IN_FLIGHT_SECONDS, killed) == []
    assert max(holder.waited(killed).values()) < SESSION_SECONDS, holder.waited(killed)


def test_stopped(ledger: Ledger, site_a: Site) -> None:
    """SIGSTOP of refloat: connections stay, so only silence tells; when it goes on it knows that it lost the hold."""
    with holding(ledger, site_a.kubeconfig) as holder:
        stopped = time.time()
        os.kill(holder.process.pid, signal.SIGSTOP)
        wait_released(ledger, stopped, LEASE_SECONDS + 3)
        os.kill(holder.process.pid, signal.SIGCONT)
        assert len(holder.let_go()) == len(PODS)
    assert holder.wrote_within(holder.held_at + IN_FLIGHT_SECONDS, stopped) == []
    assert max(holder.waited(stopped).values()) < LEASE_SECONDS, holder.waited(stopped)


WHOLE = pytest.mark.skipif(not os.environ.get("REFLOAT_TORTURE"), reason="NOT RUN: only with REFLOAT_TORTURE=1")


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(cable, id="cable"),
        pytest.param(component("kubelet"), id="kubelet", marks=WHOLE),
        pytest.param(component("kube-apiserver"), id="kube-apiserver"),
    ],
)
def test_the_cluster_breaks(ledger: Ledger, site_a: Site, fault: Callable[[Ledger], Callable[[], None]]) -> None:
    """A node's cable pulled, a kubelet killed, the API server killed: each pod lets go by itself within the lease."""
    environment("REFLOAT_E2E_LAB")
    with holding(ledger, site_a.kubeconfig) as holder:
        broke = time.time()
        mend = fault(ledger)
        try:
            pause(timedelta(seconds=FAULT_SECONDS))
        finally:
            mend()
        wait_released(ledger, broke, LEASE_SECONDS)
        assert holder.let_go(), "no part broke: the fault did not reach the hold"
    assert holder.wrote_within(holder.held_at + IN_FLIGHT_SECONDS, broke) == []
    late = {pod: seconds for pod, seconds in holder.waited(broke).items() if seconds > LEASE_SECONDS + 1}
    print(json.dumps(holder.waited(broke)))
    assert not late, late
