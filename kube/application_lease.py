"""The application's lease: at most one run at a time on one application, and where its hold is on record.

One Lease per application in refloat's namespace, made by whoever comes first, renewed in the background, removed at
the run's end. A lease of a dead run is taken over by exactly one, after what its hold left was let go. Who took over
counts ``leaseTransitions`` up; a run knows its lease by the object's uid and that number, never by a clock.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from kube.cluster import Cluster
from kube.held_part import PlannedPart
from kube.hold_record import (
    HOLD,
    THAWED,
    HoldRecord,
    Object,
    check_size,
    labels_of_application,
    places_of,
    planned_record,
    record_of,
)
from kube.holding import ARM_SECONDS, FREEZE_SECONDS
from kube.home import HOME, ensure_home
from kube.hooks import PlannedHook, signals_ignored
from kube.marks import annotations_of
from kube.runs import LAPSES_AFTER, LEASE, RENEW_EVERY, WATCHED_FOR, is_fresh
from kube.thawing import TRIES, lease_of, name_of_lease, renewed, thaw
from refloat import clock
from refloat.application import HoldRules
from refloat.errors import Conflict, LeaseHeld, ObjectExists, ObjectMissing, RefloatError

GUIDANCE = "Wait for that run to end; a dead run's lease lapses a minute after its last word."


@dataclass
class ApplicationLease:
    """One application, this run's alone until the block of ``hold_application`` ends."""

    cluster: Cluster
    application: str
    run: str
    mine: tuple[str, int]
    """Uid and number of transitions of the lease as this run took it."""
    lost: str | None = None
    """Who has it, once it was noticed that somebody else does."""
    over: threading.Event = field(default_factory=threading.Event)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def check_held(self) -> None:
        """Renew it now. To be called before anything is frozen.

        Raises:
            LeaseHeld: Another run took it, or somebody removed it; nothing may be frozen any more.
            Unreachable: The server does not answer.
        """
        with self.guard:
            self._change({"spec": {"renewTime": instant()}})

    def record_hold(
        self, parts: Sequence[PlannedPart], rules: HoldRules, hooks: Sequence[PlannedHook] = ()
    ) -> HoldRecord:
        """Write down what is about to be frozen and by when it must be free; the lease is renewed with it.

        The time allowed is that of arming, of freezing rank by rank, the hard budget, and of all hooks. What lets a
        pod go that a pre-hook brought to rest is its post-hook.

        Raises:
            LeaseHeld: As ``check_held``.
            QuiesceFailed: The record is too large; nothing was frozen.
        """
        ranks = len({part.rank for part in parts})
        over_after = timedelta(seconds=ARM_SECONDS + ranks * FREEZE_SECONDS) + rules.hard_budget
        over_after += sum((hook.command.timeout for hook in hooks), timedelta(0))
        record = planned_record(self.run, parts, at=clock.now(), over_after=over_after)
        return self.record(record.model_copy(update={"parts": (*record.parts, *places_of(hooks))}))

    def record(self, record: HoldRecord) -> HoldRecord:
        """The same for a record that is made already."""
        text = record.model_dump_json()
        with self.guard:
            notes = {HOLD: text, THAWED: None}
            self._change({"metadata": {"annotations": notes}, "spec": {"renewTime": instant()}}, holds=text)
        return record

    def hold_is_over(self) -> None:
        """Take the record off: every part was let go and has confirmed it.

        Raises:
            LeaseHeld: As ``check_held``.
        """
        with self.guard:
            self._change({"metadata": {"annotations": {HOLD: None}}})

    def renew_until_over(self, every: timedelta) -> None:
        """Renew in the background; a server that does not answer is asked again."""
        while not clock.pause(every, until=self.over):
            try:
                self.check_held()
            except LeaseHeld:
                return
            except RefloatError:
                continue

    def leave(self) -> None:
        """Remove it, unless it is somebody else's or still tells of a hold that nobody has let go.

        A lease that cannot be removed lapses, and the next run takes it over.
        """
        self.over.set()
        with self.guard, suppress(LeaseHeld):
            for _ in range(TRIES):
                lease = self._read()
                if HOLD in annotations_of(lease):
                    return
                about = lease["metadata"]
                try:
                    version = about["resourceVersion"]
                    self.cluster.delete(LEASE, about["name"], HOME, uid=about["uid"], resource_version=version)
                except Conflict:
                    continue
                return

    def _change(self, change: dict[str, Any], *, holds: str = "") -> None:
        """Patch the lease as long as it is this run's, whoever else writes onto it meanwhile."""
        for attempt in range(TRIES):
            lease = self._read()
            if holds:
                check_size(lease, holds)
            about = {"resourceVersion": lease["metadata"]["resourceVersion"], "uid": lease["metadata"]["uid"]}
            patch = {**change, "metadata": {**change.get("metadata", {}), **about}}
            try:
                self.cluster.patch(LEASE, name_of_lease(self.application), HOME, patch)
            except (Conflict, ObjectMissing):
                if attempt == TRIES - 1:
                    raise
            else:
                return

    def _read(self) -> Object:
        """The lease as it is now.

        Raises:
            LeaseHeld: It is not this run's any more.
        """
        if self.lost is None:
            lease = lease_of(self.cluster, self.application)
            if lease is not None and identity(lease) == self.mine:
                return lease
            self.lost = f"run {holder(lease)} has it" if lease else "somebody removed it"
        raise LeaseHeld(
            f"run {self.run} lost the lease of {self.application}: {self.lost}",
            guidance="Run again: this run was silent for so long that it counted as dead.",
            application=self.application,
        )


@contextmanager
def hold_application(
    cluster: Cluster,
    application: str,
    run: str,
    *,
    every: timedelta = RENEW_EVERY,
    watched_for: timedelta = WATCHED_FOR,
) -> Iterator[ApplicationLease]:
    """Have the application to oneself while the block runs.

    Args:
        cluster: Where it runs.
        application: Its name.
        run: The run's id.
        every: How often the lease is renewed.
        watched_for: How long one that looks lapsed is watched: longer than anybody's ``every``.

    Raises:
        LeaseHeld: Another run has it; the message says which, and since when.
        ThawUnconfirmed: A dead run left something frozen that would not be let go; the command is in the message.
        Forbidden: This identity may not write leases in refloat's namespace.
    """
    ensure_home(cluster)
    mine = ApplicationLease(cluster, application, run, identity(take(cluster, application, run, watched_for)))
    thread = threading.Thread(target=mine.renew_until_over, args=(every,), name=f"lease {application}", daemon=True)
    thread.start()
    try:
        yield mine
    finally:
        with signals_ignored(), suppress(RefloatError):
            mine.leave()
        thread.join()


def take(cluster: Cluster, application: str, run: str, watched_for: timedelta) -> Object:
    """The lease, made or taken over by this run."""
    about = {"name": name_of_lease(application), "namespace": HOME, "labels": labels_of_application(application)}
    new = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": about, "spec": spec_of(run, 0)}
    for _ in range(TRIES):
        try:
            return cluster.create(new)
        except ObjectExists:
            found = lease_of(cluster, application)
        if found is not None:
            return take_over(cluster, application, run, found, watched_for)
    raise LeaseHeld(f"the lease of {application} comes and goes: other runs are at work", guidance=GUIDANCE)


def take_over(cluster: Cluster, application: str, run: str, found: Object, watched_for: timedelta) -> Object:
    """The lease of a dead run, after its hold was let go.

    Raises:
        LeaseHeld: That run lives, or another one was faster.
    """
    if is_fresh(renewed(found)):
        raise busy(application, found)
    clock.pause(watched_for)
    seen = (identity(found), renewed(found))
    lease = lease_of(cluster, application)
    if lease is None or (identity(lease), renewed(lease)) != seen:
        raise busy(application, lease or found)
    record = record_of(lease)
    if record is not None:
        thaw(cluster, application, record, by=f"run {run}")
        lease = lease_of(cluster, application)
        if lease is None or (identity(lease), renewed(lease)) != seen:
            raise busy(application, lease or found)
    about = {"resourceVersion": lease["metadata"]["resourceVersion"], "uid": lease["metadata"]["uid"]}
    spec = spec_of(run, identity(lease)[1] + 1)
    try:
        return cluster.patch(LEASE, lease["metadata"]["name"], HOME, {"metadata": about, "spec": spec})
    except (Conflict, ObjectMissing) as faster:
        raise busy(application, lease_of(cluster, application) or lease) from faster


def busy(application: str, lease: Object) -> LeaseHeld:
    """Who has it, and since when."""
    since = str(lease["spec"].get("acquireTime") or "")[:19]
    return LeaseHeld(
        f"run {holder(lease)} is at work on {application} since {since}Z",
        guidance=GUIDANCE,
        application=application,
        run=holder(lease),
    )


def identity(lease: Object) -> tuple[str, int]:
    """What tells one holder's lease from the next one's."""
    return str(lease["metadata"]["uid"]), int(lease["spec"].get("leaseTransitions") or 0)


def holder(lease: Object) -> str:
    """The run that has it."""
    return str(lease["spec"].get("holderIdentity") or "")


def instant() -> str:
    """The present one as leases write it."""
    return clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def spec_of(run: str, transitions: int) -> dict[str, Any]:
    """A lease this run has just taken."""
    lapses = int(LAPSES_AFTER.total_seconds())
    begun = {"acquireTime": instant(), "renewTime": instant(), "leaseTransitions": transitions}
    return {"holderIdentity": run, "leaseDurationSeconds": lapses, **begun}
