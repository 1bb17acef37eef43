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

from refloat.clock import Deadline
from refloat.errors import RefloatError
from tests.e2e.command import Refloat
from tests.e2e.given import Site, environment
from tests.e2e.ledger import SETS, Ledger
from tests.e2e.shop import remove_namespace

NAMESPACE = "shop-e2e-faults"
SESSION_SECONDS, LEASE_SECONDS = 2.0, 12.0
"""How soon, where the holder's input ends, and where only silence tells."""
PODS = tuple(f"{name}-{k}" for name in SETS for k in range(2))
HELD_SECONDS = 1.0
"""Held before anything breaks, while every watcher tries to write."""
FAULT_SECONDS = LEASE_SECONDS + 2
"""How long a fault lasts: mended earlier, refloat would let go itself."""
SHORT = timedelta(seconds=10)
BACK = timedelta(minutes=2)
STOP_WATCHING = "touch /dev/shm/enough; for i in $(seq 80); do [ -e /dev/shm/ended ] && exit; sleep 0.1; done; exit 1"
WROTE_SINCE = 'for i in $(seq {}); do [ -n "$(find /dev/shm/acks -newermt @{})" ] && exit; sleep 0.2; done; exit 1'
IN_FLIGHT_SECONDS = 0.5
"""A write from before the hold may be written down by its watcher so much later."""


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


def run_in(ledger: Ledger, pod: str, script: str) -> str:
    """A shell script in a server's pod, asked for until the cluster is back."""
    deadline = Deadline.after(BACK)
    while True:
        try:
            done = ledger.cluster.exec(NAMESPACE, pod, "server", ("sh", "-c", script), timeout=SHORT)
            if done.exit_code == 0:
                return done.stdout.decode()
            failure = f"{done.exit_code}: {done.stderr.decode()}"
        except RefloatError as away:
            failure = away.message
        assert not deadline.is_over, f"{script} in {pod}: {failure}"
        time.sleep(0.2)


@contextmanager
def holding(ledger: Ledger, kubeconfig: str) -> Iterator[Holder]:
    """All six servers held by a process of its own, watched; at the end every watcher's instants are read."""
    for pod in PODS:
        name = pod.partition("-")[0]
        run_in(ledger, pod, f"setsid sh /start/watch.sh {name} </dev/null >/dev/null 2>&1 &")
    words = (sys.executable, "-m", "tests.e2e.holder_alone", kubeconfig, NAMESPACE)
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    holder = Holder(ledger, process)
    try:
        assert len(holder.step("planned")["parts"]) == len(PODS)
        holder.step("held")
        holder.held_at = time.time()
        time.sleep(HELD_SECONDS)
        yield holder
        for pod in PODS:
            run_in(ledger, pod, STOP_WATCHING)
            acks = run_in(ledger, pod, "cat /dev/shm/acks; rm -f /dev/shm/acks /dev/shm/ended /dev/shm/enough")
            holder.acknowledged[pod] = [float(at) for at in acks.split()]
            left = run_in(ledger, pod, "ls -d /dev/shm/refloat-* /tmp/refloat-* 2>/dev/null || true")
            assert not left, f"a holder's folder is left in {pod}: {left}"
    finally:
        process.kill()
        process.wait()


def lab(*words: str) -> None:
    """A command of the lab, which must succeed."""
    subprocess.run([environment("REFLOAT_E2E_LAB"), *words], check=True, capture_output=True, timeout=120)


def wait_released(ledger: Ledger, since: float, seconds: float) -> None:
    """Until every pod's watcher wrote after an instant, looked at from within; the cluster may be away meanwhile."""
    for pod in PODS:
        run_in(ledger, pod, WROTE_SINCE.format(int(seconds * 5), since + IN_FLIGHT_SECONDS))


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


def cable(ledger: Ledger) -> Callable[[], None]:
    """Pull the cable of a node where servers run but not the API server; returns what mends it."""
    nodes = {ledger.cluster.get("Pod", pod, NAMESPACE)["spec"]["nodeName"] for pod in PODS}
    node = next(name for name in sorted(nodes, reverse=True) if not name.endswith("1"))
    host = f"a{node[-1]}"
    lab("cut", host)
    return lambda: lab("cut", host, "--heal")


def component(name: str) -> Callable[[Ledger], Callable[[], None]]:
    """SIGKILL of a component of site a; ``lab up`` starts it again."""

    def kill(_: Ledger) -> Callable[[], None]:
        lab("kill", "a", name)
        return lambda: lab("up", "a", "--nodes", "3")

    return kill


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
            time.sleep(FAULT_SECONDS)
        finally:
            mend()
        wait_released(ledger, broke, LEASE_SECONDS)
        assert holder.let_go(), "no part broke: the fault did not reach the hold"
    assert holder.wrote_within(holder.held_at + IN_FLIGHT_SECONDS, broke) == []
    late = {pod: seconds for pod, seconds in holder.waited(broke).items() if seconds > LEASE_SECONDS + 1}
    print(json.dumps(holder.waited(broke)))
    assert not late, late
