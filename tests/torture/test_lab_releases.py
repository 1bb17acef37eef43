"""Bar 3 on the lab: three nodes, six servers of three engines held together; any fault at any step, and all go on.

Needs the lab (tests/e2e/README.md) and REFLOAT_TORTURE=1. Each run is one hold of all six, so it counts once for each
engine; REFLOAT_LAB_RUNS says how many there are (80 when omitted, an hour). Every pod has a writer of its own that goes
on whatever happens to the cluster, and says when each write was acknowledged.
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from kube.cluster import Cluster
from kube.node_agent import is_ready
from refloat.clock import monotonic_seconds, pause
from refloat.recovery_point import new_id
from tests.e2e.given import environment
from tests.e2e.ledger import Ledger, document
from tests.e2e.shop import remove_namespace
from tests.e2e.watched import (
    FAULT_SECONDS,
    IN_FLIGHT_SECONDS,
    LEASE_SECONDS,
    PODS,
    SESSION_SECONDS,
    cable,
    component,
    run_in,
    seen_in,
    wait_released,
    watch,
)
from tests.torture.letting_go import Victim, until
from tests.torture.release_faults import STEPS

NAMESPACE = "shop-e2e-torture"
MOST_SECONDS = 30.0
SHARES = {
    "SIGKILL": 3, "SIGSTOP": 3, "reset": 2, "cable": 2, "kubelet": 1, "kube-apiserver": 1, "pod deleted": 1,
}  # fmt: skip
"""How often each fault comes at each step, one with the other."""
REPORT = Path("build/lab-releases.json")
HELD_ALREADY = STEPS[STEPS.index("held") :]
LEFT_IN_PG = "select count(*) from pg_stat_activity where application_name in ('refloat-hold', 'refloat-probe')"
pytestmark = pytest.mark.skipif(
    not os.environ.get("REFLOAT_TORTURE") or not os.environ.get("REFLOAT_E2E_LAB"),
    reason="NOT RUN: REFLOAT_TORTURE and REFLOAT_E2E_LAB not set (an hour on the lab)",
)


@dataclass(frozen=True)
class Order:
    """One run that is to be."""

    fault: str
    step: str
    seed: int


@dataclass
class Scene:
    """A victim that stands at its step."""

    ledger: Ledger
    victim: Victim
    rng: random.Random


@dataclass(frozen=True)
class Struck:
    """A fault that has happened: how soon all must go on, what must be put right, and which pod is another one now."""

    limit: float
    mend: Callable[[], None] | None = None
    replaced: str | None = None
    lasts_seconds: float = 0.0


def killed(scene: Scene) -> Struck:
    """SIGKILL of refloat."""
    scene.victim.send(signal.SIGKILL)
    assert scene.victim.ended(10) == -signal.SIGKILL
    return Struck(SESSION_SECONDS)


def stopped(scene: Scene) -> Struck:
    """SIGSTOP of refloat, for longer than the lease."""
    scene.victim.send(signal.SIGSTOP)
    until("the victim is stopped", lambda: scene.victim.is_stopped)
    return Struck(LEASE_SECONDS, mend=lambda: scene.victim.send(signal.SIGCONT), lasts_seconds=FAULT_SECONDS)


def reset(scene: Scene) -> Struck:
    """Every connection of refloat is broken by the kernel (ss -K); it goes on at once."""
    pid = scene.victim.pid
    lines = subprocess.run(["ss", "-tnpH"], capture_output=True, text=True, check=True).stdout.splitlines()
    ports = [line.split()[3].rpartition(":")[2] for line in lines if f"pid={pid}," in line]
    assert len(ports) >= len(PODS), f"the fault cannot fire: {len(ports)} connections"
    for port in ports:
        subprocess.run(["ss", "-K", "sport", "=", port], capture_output=True, check=True)
    scene.victim.go_on()
    return Struck(SESSION_SECONDS)


def cut(scene: Scene) -> Struck:
    """The cable of a node with servers is pulled."""
    mend = cable(scene.ledger)
    scene.victim.go_on()
    return Struck(LEASE_SECONDS + 1, mend=mend, lasts_seconds=FAULT_SECONDS)


def dies(name: str) -> Callable[[Scene], Struck]:
    """SIGKILL of a component of the cluster."""

    def kill(scene: Scene) -> Struck:
        mend = component(name)(scene.ledger)
        scene.victim.go_on()
        return Struck(LEASE_SECONDS + 1, mend=mend, lasts_seconds=FAULT_SECONDS)

    return kill


def deleted(scene: Scene) -> Struck:
    """One of the six pods is deleted; its set makes another."""
    pod, cluster = scene.rng.choice(PODS), scene.ledger.cluster
    uid = cluster.get("Pod", pod, NAMESPACE)["metadata"]["uid"]
    cluster.delete("Pod", pod, NAMESPACE, grace_seconds=0)
    scene.victim.go_on()
    cluster.wait(
        "Pod", pod, NAMESPACE, lambda obj: bool(obj and obj["metadata"]["uid"] != uid and is_ready(obj)),
        timeout=timedelta(seconds=MOST_SECONDS), what=f"another {pod}",
    )  # fmt: skip
    return Struck(LEASE_SECONDS, replaced=pod)


FAULTS: dict[str, Callable[[Scene], Struck]] = {
    "SIGKILL": killed, "SIGSTOP": stopped, "reset": reset, "cable": cut, "kubelet": dies("kubelet"),
    "kube-apiserver": dies("kube-apiserver"), "pod deleted": deleted,
}  # fmt: skip


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    """Six servers of this test's own."""
    cluster = Cluster.open(kubeconfig=environment("REFLOAT_E2E_KUBECONFIG"))
    yield Ledger(cluster, NAMESPACE).start(environment("REFLOAT_E2E_POSTGRES_IMAGE"))
    remove_namespace(cluster, NAMESPACE)


def orders(runs: int, seed: int) -> list[Order]:
    """Every fault at every step before any comes again, in an order of the seed's."""
    rng = random.Random(seed)
    turns = [(fault, turn) for fault, share in SHARES.items() for turn in range(share)]
    whole = [Order(fault, step, rng.randrange(1 << 32)) for fault, _ in turns for step in STEPS]
    first = {(each.fault, each.step): each for each in whole}
    rest = [each for each in whole if first[each.fault, each.step] is not each]
    rng.shuffle(rest)
    return [*rng.sample(list(first.values()), len(first)), *rest][:runs]


def carry_out(ledger: Ledger, order: Order) -> dict[str, float]:
    """One hold and one fault; per pod, seconds from the fault until a write was acknowledged."""
    rng = random.Random(order.seed)
    for pod in PODS:
        watch(ledger, pod)
    application = yaml.safe_load(document(NAMESPACE, "always"))
    asked = {
        "kubeconfig": os.environ["REFLOAT_E2E_KUBECONFIG"], "application": application, "rules": {},
        "run": f"t{new_id()}", "cut_seconds": 1.0,
    }  # fmt: skip
    victim = Victim(asked, order.step)
    struck: Struck | None = None
    try:
        victim.wait_for_step()
        pause(timedelta(seconds=rng.uniform(0.1, 1.0)))
        since = time.time()
        struck = FAULTS[order.fault](Scene(ledger, victim, rng))
        if struck.replaced:
            watch(ledger, struck.replaced)
        if order.fault in ("SIGSTOP", "SIGKILL"):
            wait_released(ledger, since, MOST_SECONDS)  # nobody has put anything right yet
        if struck.mend:
            pause(timedelta(seconds=max(0.0, struck.lasts_seconds - (time.time() - since))))
            struck.mend()
        victim.go_on()
        wait_released(ledger, since, MOST_SECONDS)
        if order.fault != "SIGKILL":
            assert victim.ended() == 0 and victim.end is not None
    finally:
        victim.destroy()
    seen = {pod: seen_in(ledger, pod) for pod in PODS}
    check_held(order, victim, seen, since, struck)
    for pod in ("pg-0", "pg-1"):
        left = run_in(ledger, pod, f'psql -h /tmp -U postgres -Atqc "{LEFT_IN_PG}"').strip()
        assert left == "0", f"{left} sessions of the hold are left in {pod}"
    return {pod: min(at for at in each if at > since) - since for pod, each in seen.items()}


def check_held(order: Order, victim: Victim, seen: dict[str, list[float]], since: float, struck: Struck) -> None:
    """Nothing was acknowledged from the last "held" to the fault; and a broken hold is not certified."""
    wall = time.time() - monotonic_seconds()
    if order.step in HELD_ALREADY and order.step != "release sent":
        begin = victim.marks["held"] + wall + IN_FLIGHT_SECONDS
        slipped = [pod for pod, each in seen.items() if any(begin < at < since for at in each)]
        assert not slipped, f"writes were acknowledged while it was held: {slipped}"
    if victim.end is None or order.step == "release sent":
        return
    is_broken = bool(victim.end["error"] or any(victim.end["broken"]))
    may_outlive = order.fault == "SIGSTOP" and order.step == "armed"  # nothing is held: holders wait for longer
    assert is_broken or may_outlive, f"the fault did not reach the hold: {victim.end}"
    if not may_outlive:
        assert victim.end["verdict"] != "application-consistent", victim.end


def test_every_pod_takes_writes_again(ledger: Ledger, seed: int) -> None:
    """In 2 s where sessions end, by the lease else, in 30 s always; no folder, no session left, none certified."""
    runs = orders(int(os.environ.get("REFLOAT_LAB_RUNS", "80")), seed)
    took: dict[str, list[float]] = defaultdict(list)
    failures: list[str] = []
    for number, order in enumerate(runs, 1):
        words = f"{number}/{len(runs)} {order.fault} at {order.step} (seed {order.seed})"
        try:
            seconds = carry_out(ledger, order)
        except Exception as failure:  # noqa: BLE001 - a run that could not be carried out is a failure as well
            failures.append(f"{words}: {failure}")
            print(failures[-1], flush=True)
            if len(failures) == 3:
                break
            ledger.wait_ready()
            continue
        print(f"{words}: {json.dumps({pod: round(each, 2) for pod, each in seconds.items()})}", flush=True)
        took[order.fault] += seconds.values()
        late = {pod: each for pod, each in seconds.items() if each > limit_of(order.fault, pod, seconds)}
        if late:
            failures.append(f"{words}: late {late}")
    report(took, len(runs), seed)
    assert not failures, "; ".join(failures)


def limit_of(fault: str, pod: str, seconds: dict[str, float]) -> float:
    """For one pod: the deleted one, the slowest, has to start anew."""
    if fault == "pod deleted" and pod == max(seconds, key=lambda each: seconds[each]):
        return MOST_SECONDS
    return {"SIGKILL": SESSION_SECONDS, "reset": SESSION_SECONDS}.get(fault, LEASE_SECONDS + 1)


def report(took: dict[str, list[float]], runs: int, seed: int) -> None:
    """Print and write down what was measured, per fault over all pods."""
    rows = {
        fault: {"pods": len(each), "p50": round(statistics.median(each), 2), "max": round(max(each), 2)}
        for fault, each in took.items()
    }
    print(json.dumps({"runs": runs, "seed": seed, **rows}, indent=1), flush=True)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps({"runs": runs, "seed": seed, "seconds until a write": rows}, indent=1) + "\n")
