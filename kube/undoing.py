"""Undoing: what one recovery run created is found by its marks and removed, and nothing else is.

An object is the run's when its annotation says so; that it was changed since does not make it somebody else's. The
namespaces that the run created go last, and only when nothing is in them that somebody else put there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from typing import Any

from kube.cluster import Cluster
from kube.discarding import wait_gone
from kube.home import HOME
from kube.levels import NAMESPACES, level_of
from kube.marks import RECOVERED_BY, RECOVERED_FROM, annotations_of
from kube.membership import CLAIM
from kube.runs import LEASE, is_fresh, name_of_lease
from kube.side_by_side import in_parallel
from refloat.errors import Conflict, Forbidden, LeaseHeld, RefloatError
from refloat.plan import RecoveryPlan
from refloat.recovery_point import ObjectRef

GONE_WITHIN = timedelta(minutes=5)
"""For one level: pods end in their own time, volumes are detached from their nodes."""
OF_EVERY_NAMESPACE = {("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt")}
BY_THE_CLUSTER = {"Event", "Event.events.k8s.io", "Endpoints", "EndpointSlice.discovery.k8s.io"}
"""Kinds that the cluster itself writes about what is there."""
Object = dict[str, Any]


@dataclass(frozen=True)
class Made:
    """One object that the run created."""

    ref: ObjectRef
    uid: str
    point_id: str
    stays: str = ""
    """A volume that outlives its claim, since its reclaim policy says so."""


def made_by(cluster: Cluster, plan: RecoveryPlan, run: str) -> list[Made]:
    """What there is of the plan's objects and claims that the run created, in the order in which it goes.

    Raises:
        LeaseHeld: The run is still at work.
    """
    lease = cluster.find(LEASE, name_of_lease(run), HOME)
    if lease is not None and is_fresh(str(lease["spec"].get("renewTime") or "")):
        raise LeaseHeld(f"run {run} is still at work", guidance="Wait until it has ended, or interrupt it.")
    refs = [step.ref for step in plan.objects]
    refs += [ObjectRef(kind=CLAIM, namespace=each.namespace, name=each.claim) for each in plan.volumes]
    found = in_parallel(lambda ref: look(cluster, ref, run), list(dict.fromkeys(refs)))
    made = [each for each in found if each is not None]
    return sorted(made, key=lambda each: (-level_of(each.ref.kind), str(each.ref)))


def look(cluster: Cluster, ref: ObjectRef, run: str) -> Made | None:
    """The object, if it is there and the run created it."""
    live = cluster.find(ref.kind, ref.name, ref.namespace or None) if cluster.serves(ref.kind) else None
    if live is None or annotations_of(live).get(RECOVERED_BY) != run:
        return None
    stays = ""
    if ref.kind == CLAIM and live["spec"].get("volumeName"):
        volume = cluster.find("PersistentVolume", live["spec"]["volumeName"])
        if volume and volume["spec"].get("persistentVolumeReclaimPolicy") != "Delete":
            stays = volume["metadata"]["name"]
    return Made(ref, live["metadata"]["uid"], annotations_of(live).get(RECOVERED_FROM, ""), stays)


def strangers(cluster: Cluster, namespace: str, made: Sequence[Made]) -> list[str]:
    """What else is in a namespace, in words: what the run did not create, nor the cluster by itself.

    What an object of the run owns goes with it. A kind that may not be listed counts as there.
    """
    ours = {each.uid for each in made}
    kinds = [kind for kind in cluster.kinds() if kind.namespaced and {"list", "delete"} <= kind.verbs]

    def others(name: str) -> list[str]:
        try:
            objects = list(cluster.list(name, namespace))
        except Forbidden:
            return [f"{name}, which may not be listed"]
        return [
            f"{name} {namespace}/{each['metadata']['name']}"
            for each in objects
            if each["metadata"]["uid"] not in ours
            and not each["metadata"].get("ownerReferences")
            and (name, each["metadata"]["name"]) not in OF_EVERY_NAMESPACE
        ]

    found = in_parallel(others, [kind.name for kind in kinds if kind.name not in BY_THE_CLUSTER])
    return sorted(each for of_kind in found for each in of_kind)


def undo(
    cluster: Cluster, made: Sequence[Made], *, on_done: Callable[[str], None], within: timedelta = GONE_WITHIN
) -> list[ObjectRef]:
    """Remove them, level by level, each only while it is the very object that was found; gives what was removed.

    Args:
        cluster: Where.
        made: As ``made_by`` gave them.
        on_done: Told one line about each object, and why a namespace stays.
        within: How long each level may take to be gone.

    Raises:
        NotReady: Something would not go; the message names it and what holds it. Run again, it goes on.
        ClusterError: The server refused a deletion; the others of its level were asked to go.
    """
    gone: list[ObjectRef] = []
    for level, group in groupby(made, key=lambda each: level_of(each.ref.kind)):
        going = [each for each in group if level != NAMESPACES or is_empty(cluster, each, made, on_done)]
        failures = [failure for failure in in_parallel(lambda each: remove(cluster, each), going) if failure]
        if failures:
            raise failures[0]
        refs = [each.ref for each in going]
        wait_gone(cluster, refs, within=within)
        for each in going:
            on_done(f"{each.ref} removed" + (f"; its volume {each.stays} stays" if each.stays else ""))
        gone += refs
    return gone


def is_empty(cluster: Cluster, namespace: Made, made: Sequence[Made], on_done: Callable[[str], None]) -> bool:
    """Whether a namespace may go; told when not."""
    others = strangers(cluster, namespace.ref.name, made)
    if others:
        on_done(f"{namespace.ref} stays, for it has {', '.join(others)}")
    return not others


def remove(cluster: Cluster, made: Made) -> RefloatError | None:
    """Ask one to go, with what it owns; gives why it would not."""
    ref = made.ref
    try:
        cluster.delete(ref.kind, ref.name, ref.namespace or None, propagation="Foreground", uid=made.uid)
    except Conflict:
        return None  # another object bears the name by now: it is not ours
    except RefloatError as failure:
        return failure
    return None
