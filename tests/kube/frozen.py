"""A pod that something left frozen, for tests of those who let go: its engine stands still while a lock file is there.

Nothing of the hold is alive: no session, no holder, no watchdog. Only the record on the lease tells how to thaw it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from kube.cluster import Cluster
from kube.hold_record import HeldPlace, HoldRecord
from kube.home import HOME
from kube.runs import LEASE
from kube.thawing import lease_of, name_of_lease
from refloat.clock import now
from tests.contract.given import Object, pod, run_pod, sh, until_gone

ENGINE = (
    "trap 'exit 0' TERM; while :; do [ -e /work/locked ] || echo w >> /work/writes; "
    "echo alive > /work/alive; sleep 0.05; done"
)
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Frozen:
    """One such pod."""

    cluster: Cluster
    namespace: str
    name: str

    def start(self) -> Frozen:
        """Create it and freeze its engine."""
        run_pod(self.cluster, pod(self.namespace, self.name, ENGINE))
        sh(self.cluster, self.namespace, self.name, "touch /work/locked")
        return self

    def replace(self) -> None:
        """Another pod of the same name, frozen by somebody else."""
        self.cluster.delete("Pod", self.name, self.namespace, grace_seconds=0)
        until_gone(self.cluster, "Pod", self.name, self.namespace)
        self.start()

    @property
    def is_frozen(self) -> bool:
        """Whether its engine takes no writes."""
        return "yes" in sh(self.cluster, self.namespace, self.name, "[ ! -e /work/locked ] || echo yes")

    @property
    def place(self) -> HeldPlace:
        """As the record has it."""
        uid = self.cluster.get("Pod", self.name, self.namespace)["metadata"]["uid"]
        thaw = ("rm", "-f", "/work/locked")
        return HeldPlace(
            namespace=self.namespace, pod=self.name, uid=uid, container="main", engine="lock-file", thaw=thaw
        )


def record(run: str, *places: HeldPlace, at: datetime | None = None, over_after: timedelta = MINUTE) -> HoldRecord:
    """The record of a hold of these."""
    begun = at or now()
    return HoldRecord(run=run, recorded_at=begun, deadline=begun + over_after, over_after=over_after, parts=places)


def say_renewed(cluster: Cluster, application: str, at: datetime) -> None:
    """Write a lease's renewal as a process whose clock shows this instant would."""
    spec = {"spec": {"renewTime": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}}
    cluster.patch(LEASE, name_of_lease(application), HOME, spec)


def lease(cluster: Cluster, application: str) -> Object:
    """The application's lease, which must be there."""
    found = lease_of(cluster, application)
    assert found is not None
    return dict(found)


def events(cluster: Cluster, namespace: str, reason: str) -> list[str]:
    """The messages of the Events of a reason."""
    return [str(each["message"]) for each in cluster.list("Event", namespace) if each["reason"] == reason]
