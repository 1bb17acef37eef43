"""Living runs: who is at work is told by a run lease in refloat's namespace that the run's own process renews.

The lease is made before a run's first temporary object and removed by the run's own sweep. A process that dies stops
renewing, so its run is known to be dead a minute later, whatever its movers still do. Clocks of different machines are
never trusted alone: a lease that looks lapsed is watched for longer than one renewal before its run is called dead, as
leader election does (client-go, tools/leaderelection).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from kube.cluster import Cluster
from kube.home import HOME, ensure_home, labels_in_run
from refloat import clock
from refloat.application import RUN_LABEL
from refloat.errors import ObjectExists, ObjectMissing, RefloatError

LEASE = "Lease.coordination.k8s.io"
RENEW_EVERY = timedelta(seconds=10)
LAPSES_AFTER = timedelta(seconds=60)
WATCHED_FOR = timedelta(seconds=13)
"""How long a lease that looks lapsed is watched: longer than one renewal takes."""
LONGEST_RUN = timedelta(hours=26)
"""What carries the label of a run without a lease is left alone for so long: no step waits longer."""
Object = dict[str, Any]


@dataclass
class Heartbeat:
    """One run this process is at work on."""

    cluster: Cluster
    run: str
    every: timedelta
    over: threading.Event = field(default_factory=threading.Event)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def beat(self) -> None:
        """Renew until the run is left; a server that does not answer is asked again."""
        while not clock.pause(self.every, until=self.over):
            with self.guard:
                if not self.over.is_set():
                    try:
                        renew(self.cluster, self.run)
                    except RefloatError:
                        continue


_heartbeats: dict[tuple[str, str], Heartbeat] = {}
_guard = threading.Lock()


def name_of_lease(run: str) -> str:
    """The name of a run's lease."""
    return f"run-{run}"


def attend(cluster: Cluster, run: str, *, every: timedelta = RENEW_EVERY) -> None:
    """Show that this process is at work on the run, from now until ``leave`` or its end; once is enough.

    Raises:
        Forbidden: This identity may not write leases in refloat's namespace.
    """
    with _guard:
        if (cluster.server, run) in _heartbeats:
            return
        ensure_home(cluster)
        renew(cluster, run)
        heartbeat = _heartbeats[cluster.server, run] = Heartbeat(cluster, run, every)
    threading.Thread(target=heartbeat.beat, name=f"run {run}", daemon=True).start()


def renew(cluster: Cluster, run: str) -> None:
    """Write the present instant into the run's lease; make it where there is none."""
    instant = clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": run, "leaseDurationSeconds": int(LAPSES_AFTER.total_seconds()), "renewTime": instant}
    try:
        cluster.patch(LEASE, name_of_lease(run), HOME, {"spec": spec})
    except ObjectMissing:
        about = {"name": name_of_lease(run), "namespace": HOME, "labels": labels_in_run(run)}
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": about, "spec": spec}
        try:
            cluster.create(lease)
        except ObjectExists:
            cluster.patch(LEASE, name_of_lease(run), HOME, {"spec": spec})


def leave(cluster: Cluster, run: str) -> None:
    """Show no longer that this process is at work on the run; its lease is removed by whoever sweeps it."""
    with _guard:
        heartbeat = _heartbeats.pop((cluster.server, run), None)
    if heartbeat is not None:
        with heartbeat.guard:
            heartbeat.over.set()


def dead_runs(cluster: Cluster, newest: Mapping[str, datetime]) -> set[str]:
    """Those of the runs that are certainly over.

    Args:
        cluster: Where they ran.
        newest: Run → when the newest of its temporary objects was made.
    """
    leases = run_leases(cluster)
    lapsed = {run: renewed for run, renewed in leases.items() if run in newest and not is_fresh(renewed)}
    dead = {run for run, made in newest.items() if run not in leases and clock.now() - made > LONGEST_RUN}
    if lapsed:
        clock.pause(WATCHED_FOR)
        again = run_leases(cluster)
        dead |= {run for run, renewed in lapsed.items() if again.get(run, renewed) == renewed}
    return dead


def run_leases(cluster: Cluster) -> dict[str, str]:
    """Run → when its lease was last renewed, as its own process wrote it."""
    return {
        lease["metadata"]["labels"][RUN_LABEL]: str(lease["spec"].get("renewTime", ""))
        for lease in cluster.list(LEASE, HOME, labels=RUN_LABEL)
    }


def is_fresh(renewed: str) -> bool:
    """Whether a lease renewed at this instant looks held, by this machine's clock; one from the future does not."""
    try:
        return abs(clock.now() - datetime.fromisoformat(renewed)) < LAPSES_AFTER
    except ValueError:
        return False
