"""The janitor: a small program of its own in the cluster that lets go of holds past their deadline, whoever died.

It needs nothing of the run: no Prefect, no vault, no memory. A hold is past its deadline once the janitor itself has
watched it for as long as its record allows; what the run's clock says is never believed (ADR 12). Its log is JSON
lines. What would not go a minute later becomes an alert with the command for each pod.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from kube.cluster import Cluster
from kube.hold_record import HOLD, HoldRecord, Object, application_of, record_of
from kube.marks import annotations_of
from kube.side_by_side import in_parallel
from kube.thawing import application_leases, lease_of, remaining, tell_pod, thaw
from refloat import clock
from refloat.errors import RefloatError

EVERY = timedelta(seconds=15)
ALERT_AFTER = timedelta(seconds=60)
"""After the deadline."""
Key = tuple[str, str]
"""A hold: the uid of its lease and the text of its record."""
Line = dict[str, Any]


@dataclass(frozen=True)
class Watch:
    """One hold since it was first seen, in seconds of the monotonic clock."""

    since: float
    alerted: bool = False


@dataclass(frozen=True)
class Turn:
    """What is watched after a turn, and what there is to say."""

    watched: Mapping[Key, Watch]
    said: list[Line]


def turn(cluster: Cluster, watched: Mapping[Key, Watch], instant: float, *, alert: timedelta = ALERT_AFTER) -> Turn:
    """Look at every hold once, and let go of what is past its deadline.

    Args:
        cluster: Where.
        watched: What the turn before this one gave.
        instant: The present one, in seconds of the monotonic clock.
        alert: How long after its deadline a hold becomes an alert.

    Raises:
        Unreachable, Forbidden: The leases cannot be read.
    """
    leases = [lease for lease in application_leases(cluster) if HOLD in annotations_of(lease)]
    keys = [(str(lease["metadata"]["uid"]), annotations_of(lease)[HOLD]) for lease in leases]
    before = [watched.get(key, Watch(instant)) for key in keys]
    judged = in_parallel(lambda pair: judge(cluster, *pair, instant, alert), list(zip(leases, before, strict=True)))
    after = {key: watch for key, (watch, _) in zip(keys, judged, strict=True)}
    return Turn(after, [line for _, said in judged for line in said])


def judge(cluster: Cluster, lease: Object, watch: Watch, instant: float, alert: timedelta) -> tuple[Watch, list[Line]]:
    """One hold: wait, let go, or cry for help once."""
    application, seen_for = application_of(lease), timedelta(seconds=instant - watch.since)
    try:
        record = record_of(lease)
    except RefloatError as unreadable:
        said = [] if watch.alerted else [line("error", "unreadable", application, error=unreadable.message)]
        return replace(watch, alerted=True), said
    if record is None or seen_for < record.over_after:
        return watch, []
    try:
        gone = thaw(cluster, application, record, by="janitor")
    except RefloatError as failure:
        said = [line("warning", "not thawed", application, run=record.run, error=failure.message)]
        if watch.alerted or seen_for < record.over_after + alert:
            return watch, said
        return replace(watch, alerted=True), said + alerts(cluster, application, record)
    told = [
        line("info", "thawed", application, run=record.run, pod=each.place.name, uid=each.place.uid, outcome=each.what)
        for each in gone
    ]
    return watch, told


def alerts(cluster: Cluster, application: str, record: HoldRecord) -> list[Line]:
    """For each part that is left a Warning Event and a line, both with the command a person must run."""
    try:
        lease = lease_of(cluster, application)
    except RefloatError:
        lease = None
    parts = remaining(lease, record) if lease else record.parts
    for part in parts:
        text = f"frozen by run {record.run} of refloat and not let go; run: {part.by_hand}"
        tell_pod(cluster, part, "Warning", "StillFrozen", text, clock.now())
    return [
        line("alert", "still frozen", application, run=record.run, pod=part.name, command=part.by_hand)
        for part in parts
    ]


def line(level: str, what: str, application: str = "", **facts: str) -> Line:
    """One line of the log."""
    at = clock.now().isoformat(timespec="milliseconds")
    return {"at": at, "level": level, "what": what, **({"application": application} if application else {}), **facts}


def keep_watch(
    cluster: Cluster, say: Callable[[Line], None], over: threading.Event, *, every: timedelta = EVERY
) -> None:
    """Turn after turn until ``over`` is set; a turn that fails is said, and the next one tries again."""
    watched: Mapping[Key, Watch] = {}
    while not over.is_set():
        try:
            done = turn(cluster, watched, clock.monotonic_seconds())
            watched, said = done.watched, done.said
        except RefloatError as failure:
            said = [line("error", "turn failed", error=failure.message)]
        for each in said:
            say(each)
        clock.pause(every, until=over)


def write_line(said: Line) -> None:
    """To standard output, at once."""
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Watch the cluster this process runs in, or the kubeconfig's, until SIGTERM."""
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    try:
        cluster = Cluster.open()
    except RefloatError as failure:
        write_line(line("error", "no cluster", error=failure.message))
        return failure.exit_code
    write_line(line("info", "watching", server=cluster.server))
    keep_watch(cluster, write_line, over)
    return 0


if __name__ == "__main__":
    sys.exit(main())
