"""Six servers watched from within: who writes to them all the time, when that was acknowledged, and what breaks."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import timedelta

from refloat.clock import Deadline, pause
from refloat.errors import RefloatError
from tests.e2e.given import environment
from tests.e2e.ledger import SETS, Ledger

SESSION_SECONDS, LEASE_SECONDS = 2.0, 12.0
"""How soon, where the holder's input ends, and where only silence tells."""
PODS = tuple(f"{name}-{k}" for name in SETS for k in range(2))
FAULT_SECONDS = LEASE_SECONDS + 2
"""How long a fault lasts: mended earlier, refloat would let go itself."""
SHORT = timedelta(seconds=10)
BACK = timedelta(minutes=2)
LOOK = timedelta(seconds=0.2)
STOP_WATCHING = "touch /dev/shm/enough; for i in $(seq 80); do [ -e /dev/shm/ended ] && exit; sleep 0.1; done; exit 1"
WROTE_SINCE = 'for i in $(seq {}); do [ -n "$(find /dev/shm/acks -newermt @{})" ] && exit; sleep 0.2; done; exit 1'
IN_FLIGHT_SECONDS = 0.5
"""A write from before the hold may be written down by its watcher so much later."""


def run_in(ledger: Ledger, pod: str, script: str) -> str:
    """A shell script in a server's pod, asked for until the cluster is back."""
    deadline = Deadline.after(BACK)
    while True:
        try:
            done = ledger.cluster.exec(ledger.namespace, pod, "server", ("sh", "-c", script), timeout=SHORT)
            if done.exit_code == 0:
                return done.stdout.decode()
            failure = f"{done.exit_code}: {done.stderr.decode()}"
        except RefloatError as away:
            failure = away.message
        assert not deadline.is_over, f"{script} in {pod}: {failure}"
        pause(LOOK)


def watch(ledger: Ledger, pod: str) -> None:
    """Begin to write there, one entry after the other, whatever happens to the cluster."""
    name = pod.partition("-")[0]
    run_in(ledger, pod, f"setsid sh /start/watch.sh {name} </dev/null >/dev/null 2>&1 &")


def seen_in(ledger: Ledger, pod: str) -> list[float]:
    """End it; the instants (seconds since 1970) at which writes were acknowledged. No holder's folder may be left."""
    run_in(ledger, pod, STOP_WATCHING)
    acks = run_in(ledger, pod, "cat /dev/shm/acks; rm -f /dev/shm/acks /dev/shm/ended /dev/shm/enough")
    left = run_in(ledger, pod, "ls -d /dev/shm/refloat-* /tmp/refloat-* 2>/dev/null || true")
    assert not left, f"a holder's folder is left in {pod}: {left}"
    return [float(at) for at in acks.split()]


def wait_released(ledger: Ledger, since: float, seconds: float) -> None:
    """Until every pod's watcher wrote after an instant, looked at from within; the cluster may be away meanwhile."""
    for pod in PODS:
        run_in(ledger, pod, WROTE_SINCE.format(int(seconds * 5), since + IN_FLIGHT_SECONDS))


def lab(*words: str) -> None:
    """A command of the lab, which must succeed."""
    subprocess.run([environment("REFLOAT_E2E_LAB"), *words], check=True, capture_output=True, timeout=120)


def cable(ledger: Ledger) -> Callable[[], None]:
    """Pull the cable of a node where servers run but not the API server; returns what mends it."""
    nodes = {ledger.cluster.get("Pod", pod, ledger.namespace)["spec"]["nodeName"] for pod in PODS}
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
