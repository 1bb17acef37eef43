"""Letting go of what a run left frozen, by the record on its application's lease: the same for janitor and person.

Every act is idempotent, and what became of each part is written down on the lease and as an Event beside its pod. The
record goes when no part of it is left. Nothing here asks Prefect, the vault, or the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from kube.cluster import Cluster
from kube.hold_record import (
    HOLD,
    THAWED,
    HeldPlace,
    HoldRecord,
    Object,
    Thawed,
    application_of,
    record_of,
    text_of,
    thawed_of,
)
from kube.holding import THAW_LIMIT
from kube.home import HOME, PART_OF
from kube.marks import annotations_of
from kube.node_agent import agent_on
from kube.runs import LEASE, WATCHED_FOR, is_fresh
from kube.side_by_side import in_parallel
from refloat import clock
from refloat.application import APPLICATION_LABEL
from refloat.errors import Conflict, RefloatError, ThawUnconfirmed
from refloat.ports.quiescer import Place

THAW = "thawed"
SHOWN = 300
EVENT_BYTES = 1024
"""Of an Event's message (core/v1)."""
TRIES = 8
"""To write onto a lease that others write too."""


@dataclass(frozen=True)
class LeftHold:
    """A hold on record, as it was found."""

    application: str
    record: HoldRecord
    left: tuple[HeldPlace, ...]
    """Parts nobody has let go yet."""
    lives: bool
    """Whether its run renews its lease."""
    is_over: bool
    """Whether its deadline has passed, as far as clocks can be trusted."""

    @property
    def may_thaw(self) -> bool:
        """Whether nobody would be disturbed."""
        return self.is_over or not self.lives


def application_leases(cluster: Cluster) -> list[Object]:
    """The leases of all applications."""
    return list(cluster.list(LEASE, HOME, labels=APPLICATION_LABEL))


def left_holds(cluster: Cluster, *, watched_for: timedelta = WATCHED_FOR) -> list[LeftHold]:
    """Every hold on record, by application. A lease that looks lapsed is watched before its run is called dead.

    Raises:
        InvalidDocument: A record cannot be read.
    """
    leases = [lease for lease in application_leases(cluster) if HOLD in annotations_of(lease)]
    doubtful = {application_of(lease): renewed(lease) for lease in leases if not is_fresh(renewed(lease))}
    if doubtful:
        clock.pause(watched_for)
        leases = [lease for lease in application_leases(cluster) if HOLD in annotations_of(lease)]
    found = []
    for lease in sorted(leases, key=application_of):
        record = record_of(lease)
        if record is not None:
            fresh = is_fresh(renewed(lease))
            lives = fresh or doubtful.get(application_of(lease)) != renewed(lease)
            over = clock.now() > record.deadline and (fresh or not lives)
            found.append(LeftHold(application_of(lease), record, remaining(lease, record), lives, over))
    return found


def renewed(lease: Object) -> str:
    """When its holder renewed it last, as that one wrote it."""
    return str(lease["spec"].get("renewTime") or "")


def remaining(lease: Object, record: HoldRecord) -> tuple[HeldPlace, ...]:
    """Parts of the hold on a lease that nobody has let go yet."""
    done = {each.place.key for each in thawed_of(lease)}
    return tuple(part for part in record.parts if part.key not in done)


def thaw(cluster: Cluster, application: str, record: HoldRecord, *, by: str) -> list[Thawed]:
    """Let go of every part that is left of this very hold; of another one, or one that is over, nothing.

    Pods side by side, the parts of one pod in the record's order.

    Args:
        cluster: Where.
        application: Whose hold it is.
        record: The hold that was found.
        by: Who does it, for the record.

    Raises:
        ThawUnconfirmed: With the command for each part that would not go; the others were let go and are recorded.
    """
    lease = lease_of(cluster, application)
    if lease is None or record_of(lease) != record:
        return []
    pods: dict[str, list[HeldPlace]] = {}
    for part in remaining(lease, record):
        pods.setdefault(part.uid, []).append(part)
    done = in_parallel(lambda parts: [(part, *thaw_part(cluster, part)) for part in parts], list(pods.values()))
    outcomes, at = [outcome for of_pod in done for outcome in of_pod], clock.now()
    gone = [Thawed(place=part, what=what, by=by, at=at) for part, what, why in outcomes if why is None]
    failed = [(part, why) for part, _, why in outcomes if why is not None]
    write_down(cluster, application, record, gone)
    for each in gone:
        text = f"{each.place.engine} of run {record.run} let go by {by}: {each.what}"
        tell_pod(cluster, each.place, "Normal", "Thawed", text, at)
    if failed:
        raise unconfirmed(application, failed)
    return gone


def unconfirmed(application: str, failed: Sequence[tuple[HeldPlace, str]]) -> ThawUnconfirmed:
    """With the reason and the command for each part."""
    reasons = "; ".join(f"{part.name}: {why}" for part, why in failed)
    commands = "; ".join(part.by_hand for part, _ in failed)
    return ThawUnconfirmed(
        f"of {application} may still be frozen: {reasons}; by hand: {commands}",
        guidance="Act now: run the commands above, see that the pods accept writes, then run refloat thaw again.",
        application=application,
    )


def thaw_part(cluster: Cluster, part: HeldPlace) -> tuple[str, str | None]:
    """What became of it, and why it failed if it did. A pod that was replaced or has ended holds nothing."""
    try:
        if why := why_nothing_is_held(cluster.find("Pod", part.pod, part.namespace), part):
            return why, None
        own = Place(part.namespace, part.pod, part.uid, part.container)
        place = agent_on(cluster, part.node) if part.node else own
        done = cluster.exec(place.namespace, place.pod, place.container, part.thaw, timeout=THAW_LIMIT)
    except RefloatError as failure:
        return "", failure.message
    if done.exit_code is None:
        return "", f"the command did not end in {THAW_LIMIT.seconds} s"
    if done.exit_code:
        return "", f"exit status {done.exit_code}: {done.stderr.decode(errors='replace').strip()[:SHOWN]}"
    return THAW, None


def why_nothing_is_held(pod: Object | None, part: HeldPlace) -> str:
    """Why there is nothing to let go in this pod; empty when there may be."""
    if pod is None:
        return "its pod is gone"
    if pod["metadata"]["uid"] != part.uid:
        return "its pod was replaced"
    return "its pod has ended" if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed") else ""


def write_down(cluster: Cluster, application: str, record: HoldRecord, gone: Sequence[Thawed]) -> None:
    """Add to what was let go of this hold, and take its record off once no part is left.

    Raises:
        Conflict: Others wrote onto the lease all the time.
    """
    for attempt in range(TRIES):
        lease = lease_of(cluster, application)
        if lease is None or record_of(lease) != record:
            return
        known = thawed_of(lease)
        new = [each for each in gone if each.place.key not in {old.place.key for old in known}]
        missing = {part.key for part in record.parts} - {each.place.key for each in (*known, *new)}
        if not new and missing:
            return
        notes: dict[str, str | None] = {THAWED: text_of((*known, *new)), **({} if missing else {HOLD: None})}
        try:
            annotate(cluster, lease, notes)
        except Conflict:
            if attempt == TRIES - 1:
                raise
        else:
            return


def annotate(cluster: Cluster, lease: Object, notes: dict[str, str | None]) -> Object:
    """Change annotations of a lease as it was seen; ``Conflict`` when it has changed since."""
    about = lease["metadata"]
    change = {"metadata": {"resourceVersion": about["resourceVersion"], "uid": about["uid"], "annotations": notes}}
    return cluster.patch(LEASE, about["name"], HOME, change)


def lease_of(cluster: Cluster, application: str) -> Object | None:
    """An application's lease."""
    return cluster.find(LEASE, name_of_lease(application), HOME)


def name_of_lease(application: str) -> str:
    """Its name."""
    return f"application-{application}"


def tell_pod(cluster: Cluster, place: HeldPlace, kind: str, reason: str, text: str, at: datetime) -> None:
    """An Event of the pod; where none may be written, the lease still tells."""
    instant = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    pod = {"apiVersion": "v1", "kind": "Pod", "namespace": place.namespace, "name": place.pod, "uid": place.uid}
    event = {
        "apiVersion": "v1", "kind": "Event", "type": kind, "reason": reason, "involvedObject": pod,
        "metadata": {"generateName": "refloat-thaw-", "namespace": place.namespace, "labels": PART_OF},
        "message": text.encode()[:EVENT_BYTES].decode(errors="ignore"), "source": {"component": "refloat"},
        "firstTimestamp": instant, "lastTimestamp": instant, "count": 1,
    }  # fmt: skip
    with suppress(RefloatError):
        cluster.create(event)
