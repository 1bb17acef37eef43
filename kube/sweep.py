"""The sweep: what runs made for a time and left in the cluster is found by label and removed, with its data.

One run is swept whoever asks, alive or not. Without a run only dead ones are (`kube.runs` says which). Order matters:
movers let go of claims, claims of exposed snapshots, these of the cuts they point to; the run's lease goes last.

What a recovery has filled is not temporary: while the data is on its way to the application's claim it is kept when a
run sweeps itself (``keep_filled``), and the next recovery from the same point goes on with it. A sweep by hand gives it
up; a volume that reached the application's claim stays there (`kube.handover`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from kube.cluster import Cluster
from kube.discarding import (
    ask_discard,
    ask_discard_content,
    ask_discard_group,
    ask_discard_members,
    ask_release_member,
    reference_to,
    wait_gone,
)
from kube.exposure import ask_reclaim, ask_remove_claim, ask_unbind
from kube.handover import abandon_volume
from kube.home import HOME, run_of_name
from kube.isolation import drill_mark
from kube.marks import FILLED, FOR_CLAIM, RECOVERY, annotations_of, labels_of
from kube.membership import CLAIM
from kube.mover_job import JOB, SECRET
from kube.runs import LEASE, dead_runs, leave
from kube.snapshot_objects import CONTENT, GROUP, GROUP_CONTENT, GROUP_LABEL, SNAPSHOT
from refloat.application import RUN_LABEL
from refloat.errors import ObjectMissing, RefloatError
from refloat.recovery_point import ObjectRef

POD, VOLUME, NAMESPACE = "Pod", "PersistentVolume", "Namespace"
LABEL_OF, MARKS_OF = "Label of", "Marks of"
"""What goes from an object of the application's own that stays."""
GONE_WITHIN = timedelta(minutes=5)
"""A volume goes once it is detached from its node; clouds take minutes."""
Object = Mapping[str, Any]
Ask = Callable[[Cluster, Object], list[ObjectRef]]


@dataclass(frozen=True)
class Leftover:
    """One object a run left, and how it is asked to go."""

    run: str
    ref: ObjectRef
    obj: Object
    ask: Ask


def sweep(
    cluster: Cluster,
    *,
    run: str | None,
    dry_run: bool,
    keep_filled: bool = False,
    within: timedelta = GONE_WITHIN,
) -> list[ObjectRef]:
    """Remove what one run left, or what all dead runs left; wait until it is gone.

    Args:
        cluster: Where.
        run: The run's id; None: every run that is dead.
        dry_run: Only say what would be removed.
        keep_filled: Leave claims and volumes a recovery has filled to the next recovery, and a drill's namespaces.
        within: How long each phase may take to be gone.

    Returns:
        What was, or would be, removed.

    Raises:
        NotReady: Something would not go; the message names it and what holds it.
    """
    phases = [
        [each for each in found if run in (None, each.run)] for found in leftovers(cluster, drills=not keep_filled)
    ]
    if run is None:
        newest: dict[str, datetime] = {}
        for each in (one for phase in phases for one in phase):
            made = datetime.fromisoformat(each.obj["metadata"]["creationTimestamp"])
            newest[each.run] = max(made, newest.get(each.run, made))
        dead = dead_runs(cluster, newest)
        phases = [[each for each in phase if each.run in dead] for phase in phases]
    if keep_filled:
        phases = [[each for each in phase if not is_filled(each.obj)] for phase in phases]
    if not dry_run:
        if run is not None:
            leave(cluster, run)
        remove(cluster, phases, within)
    return list(dict.fromkeys(each.ref for phase in phases for each in phase))


def remove(cluster: Cluster, phases: list[list[Leftover]], within: timedelta) -> None:
    """Phase by phase: ask everything to go, then wait for all of it; a failure does not keep the rest."""
    failures: list[RefloatError] = []
    for phase in phases:
        going: list[ObjectRef] = []
        for each in phase:
            try:
                going += each.ask(cluster, each.obj)
            except ObjectMissing:
                continue
            except RefloatError as failure:
                failures.append(failure)
        try:
            wait_gone(cluster, dict.fromkeys(going), within=within)
        except RefloatError as failure:
            failures.append(failure)
    if failures:
        first, *others = failures
        for other in others:
            first.add_note(f"also: {other.message}")
        raise first


# ---- finding


def leftovers(cluster: Cluster, *, drills: bool) -> list[list[Leftover]]:
    """Everything temporary of any run, in the phases in which it can go; ``drills``: namespaces of drills as well."""
    home = {"namespace": HOME, "labels": RUN_LABEL}
    snapshots = [*labelled(cluster, SNAPSHOT, ask_discard, labels=RUN_LABEL)]
    exposed = [each for each in snapshots if each.ref.namespace == HOME]
    return [
        labelled(cluster, JOB, ask_end_mover, **home),
        labelled(cluster, POD, ask_delete, **home) + labelled(cluster, SECRET, ask_delete, **home),
        labelled(cluster, CLAIM, ask_remove_home_claim, **home) + volumes(cluster),
        [Leftover(each.run, each.ref, each.obj, ask_unbind_snapshot) for each in exposed],
        labelled(cluster, CONTENT, ask_unbind_content, labels=RUN_LABEL),
        labelled(cluster, GROUP, ask_discard_group, labels=RUN_LABEL),
        [each for each in snapshots if each.ref.namespace != HOME],
        members(cluster),
        contents(cluster),
        marked_claims(cluster),
        drilled(cluster) if drills else [],
        labelled(cluster, LEASE, ask_delete, **home),
    ]


def labelled(cluster: Cluster, kind: str, ask: Ask, *, namespace: str | None = None, labels: str) -> list[Leftover]:
    """Every object of a kind that bears a run's label; none where the kind is not served."""
    found = cluster.list(kind, namespace, labels=labels) if cluster.serves(kind) else ()
    return [Leftover(labels_of(each)[labels], reference_to(each, kind), each, ask) for each in found]


def drilled(cluster: Cluster) -> list[Leftover]:
    """Namespaces of drills: they bear a run's label and the name of that run's drill; a label alone is no proof."""
    found = labelled(cluster, NAMESPACE, ask_remove_namespace, labels=RUN_LABEL)
    return [each for each in found if each.ref.name.endswith(drill_mark(each.run))]


def marked_claims(cluster: Cluster) -> list[Leftover]:
    """Claims of applications that still bear a group's label."""
    found = labelled(cluster, CLAIM, ask_unlabel, labels=GROUP_LABEL)
    return [replace(each, ref=each.ref.model_copy(update={"kind": f"{LABEL_OF} {CLAIM}"})) for each in found]


def volumes(cluster: Cluster) -> list[Leftover]:
    """Volumes whose claim in refloat's namespace is gone, and volumes of handovers that were broken off."""
    found: list[Leftover] = []
    for volume in cluster.list(VOLUME):
        ref, claim = reference_to(volume, VOLUME), volume["spec"].get("claimRef") or {}
        run = labels_of(volume).get(RUN_LABEL) if RECOVERY in labels_of(volume) else run_of_name(claim.get("name", ""))
        if run and RECOVERY in labels_of(volume):
            kind = f"{MARKS_OF} {VOLUME}" if has_arrived(cluster, volume) else VOLUME
            found.append(Leftover(run, ref.model_copy(update={"kind": kind}), volume, ask_abandon))
        elif run and claim.get("namespace") == HOME and (volume.get("status") or {}).get("phase") == "Released":
            found.append(Leftover(run, ref, volume, ask_reclaim_released))
    return found


def has_arrived(cluster: Cluster, volume: Object) -> bool:
    """Whether a volume that is being handed over hangs on the application's claim already."""
    namespace, _, name = annotations_of(volume).get(FOR_CLAIM, "").partition("/")
    claim = cluster.find(CLAIM, name, namespace) if name else None
    return claim is not None and claim["spec"].get("volumeName") == volume["metadata"]["name"]


def members(cluster: Cluster) -> list[Leftover]:
    """Members of groups that are gone: the controller labels none of its own."""
    found: list[Leftover] = []
    for snapshot in cluster.list(SNAPSHOT) if cluster.serves(SNAPSHOT) and cluster.serves(GROUP) else ():
        for owner in snapshot["metadata"].get("ownerReferences") or []:
            run, namespace = run_of_name(owner["name"]), snapshot["metadata"]["namespace"]
            if run and owner["kind"] == "VolumeGroupSnapshot" and cluster.find(GROUP, owner["name"], namespace) is None:
                found.append(Leftover(run, reference_to(snapshot, SNAPSHOT), snapshot, ask_release_member))
    return found


def contents(cluster: Cluster) -> list[Leftover]:
    """Contents of cuts whose VolumeSnapshot or group somebody else removed: the controller labels none of its own."""
    found: list[Leftover] = []
    for kind, back, owner in (
        (GROUP_CONTENT, "volumeGroupSnapshotRef", GROUP),
        (CONTENT, "volumeSnapshotRef", SNAPSHOT),
    ):
        for content in cluster.list(kind) if cluster.serves(kind) else ():
            reference = content["spec"][back]
            run = run_of_name(reference.get("name", ""))
            if not run or reference.get("namespace") == HOME or RUN_LABEL in labels_of(content):
                continue
            if cluster.find(owner, reference["name"], reference["namespace"]) is None:
                found.append(Leftover(run, reference_to(content, kind), content, ask_discard_orphan))
    return found


def is_filled(obj: Object) -> bool:
    """Whether a recovery has filled this claim, or is handing this volume over."""
    return FILLED in annotations_of(obj) or (RECOVERY in labels_of(obj) and "claimRef" in obj["spec"])


# ---- asking


def kind_of(obj: Object) -> str:
    """``Kind.group`` of an object by its apiVersion."""
    group, _, version = str(obj["apiVersion"]).rpartition("/")
    return f"{obj['kind']}.{group}" if group and version else str(obj["kind"])


def ask_delete(cluster: Cluster, obj: Object) -> list[ObjectRef]:
    """Delete it."""
    ref = reference_to(obj, kind_of(obj))
    cluster.delete(ref.kind, ref.name, ref.namespace, uid=obj["metadata"]["uid"])
    return [ref]


def ask_remove_namespace(cluster: Cluster, obj: Object) -> list[ObjectRef]:
    """Delete a drill's namespace with all that is in it, and the data of its volumes whatever their class says."""
    ref = reference_to(obj, NAMESPACE)
    going = []
    for claim in cluster.list(CLAIM, ref.name):
        volume = cluster.find(VOLUME, claim["spec"].get("volumeName") or "-")
        if volume is not None:
            going.append(ask_reclaim(cluster, volume))
    cluster.delete(NAMESPACE, ref.name, uid=obj["metadata"]["uid"])
    return [ref, *going]


def ask_end_mover(cluster: Cluster, obj: Object) -> list[ObjectRef]:
    """Delete a Job, its pods first."""
    ref = reference_to(obj, JOB)
    cluster.delete(JOB, ref.name, ref.namespace, propagation="Foreground", uid=obj["metadata"]["uid"])
    return [ref]


def ask_remove_home_claim(cluster: Cluster, obj: Object) -> list[ObjectRef]:
    """Delete a claim of refloat's namespace with its volume, unless that one is being handed over."""
    return ask_remove_claim(cluster, obj["metadata"]["name"])


def ask_abandon(cluster: Cluster, obj: Object) -> list[ObjectRef]:
    """End a handover that was broken off."""
    ref = reference_to(obj, VOLUME)
    return [ref] if abandon_volume(cluster, ref.name) else []


def ask_reclaim_released(cluster: Cluster, obj: Object) -> list[ObjectRef]:
    """Let the data of a released volume go."""
    return [ask_reclaim(cluster, obj)]


def ask_unbind_snapshot(cluster: Cluster, obj: Object) -> list[ObjectRef]:
    """Delete an exposed snapshot and its content; the cut stays."""
    return ask_unbind(cluster, obj["metadata"]["name"])


def ask_unbind_content(cluster: Cluster, obj: Object) -> list[ObjectRef]:
    """The same, by the content."""
    return ask_unbind(cluster, obj["metadata"]["name"])


def ask_discard_orphan(cluster: Cluster, obj: Object) -> list[ObjectRef]:
    """Delete a content that lost its snapshot or group, with its data; a group's with those of its members."""
    going = ask_discard_content(cluster, kind_of(obj), obj)
    return going + (ask_discard_members(cluster, obj) if kind_of(obj) == GROUP_CONTENT else [])


def ask_unlabel(cluster: Cluster, obj: Object) -> list[ObjectRef]:
    """Take a group's label off a claim of the application."""
    ref = reference_to(obj, CLAIM)
    cluster.patch(CLAIM, ref.name, ref.namespace, {"metadata": {"labels": {GROUP_LABEL: None}}})
    return []
