"""Planning: from a recovery point and a target cluster to all that a recovery would do. No side effects.

An object is created, kept (it equals the point's, or this recovery made it), or in conflict. What would make the
recovery fail later is a blocker now: see ``kube.obstacles``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from kube.cluster import Cluster
from kube.comparing import difference
from kube.handover import was_handed_over
from kube.levels import level_of
from kube.marks import is_recovered_from
from kube.membership import CLAIM
from kube.obstacles import Hidden, Wanted, find_obstacles, what_is_hidden
from kube.rewriting import mentions, rewrite
from kube.sanitise import is_plain_default
from refloat.errors import IntegrityError
from refloat.plan import Blocker, Mappings, ObjectStep, RecoveryPlan, VolumeStep
from refloat.recovery_point import CataloguedPoint, ObjectRef, RecoveryPoint, VolumeCopy

Object = Mapping[str, Any]
SIDE_BY_SIDE = 8
IS_OURS = "made by a recovery from this point"
BEING_DELETED = "is being deleted"


def make_plan(
    cluster: Cluster, chosen: CataloguedPoint, manifests: Mapping[str, bytes], mappings: Mappings
) -> RecoveryPlan:
    """Everything the recovery would do; asked twice of an unchanged target, the same plan.

    Args:
        cluster: The target.
        chosen: The recovery point.
        manifests: The point's manifests by path inside its tree.
        mappings: New names.

    Raises:
        IntegrityError: The point names a manifest it does not hold.
        Unreachable: The target does not answer.
    """
    point = chosen.point
    sources, shared = wanted_of(point, manifests, mappings)
    blockers, warnings = duplicates(sources), [f"{ref} is not of one namespace and is not created" for ref in shared]
    sources = list({each.ref: each for each in reversed(sources)}.values())[::-1]
    hidden = what_is_hidden(cluster, sources)
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        steps = list(pool.map(lambda each: step_of(cluster, point.id, each, mappings, hidden), sources))
    objects = sorted((s for s in steps if isinstance(s, ObjectStep)), key=lambda s: (s.level, str(s.ref), s.ref.kind))
    volumes = sorted((s for s in steps if isinstance(s, VolumeStep)), key=lambda s: (s.namespace, s.claim))
    decided = [replace(each, action=step.action) for each, step in zip(sources, steps, strict=True)]
    found = find_obstacles(cluster, point, decided, mappings, hidden)
    blockers += [*hidden.blockers, *found.blockers, *conflicts(objects, volumes), *devices(sources)]
    warnings += [*found.warnings, *texts(sources, mappings)]
    return RecoveryPlan(
        point_id=point.id,
        snapshot_id=chosen.snapshot_id,
        application=point.application,
        cluster=cluster.name,
        mappings=mappings,
        namespaces=tuple(sorted({each.namespace for each in sources})),
        objects=tuple(objects),
        volumes=tuple(volumes),
        blockers=tuple(sorted(set(blockers), key=lambda b: (b.subject, b.reason))),
        warnings=tuple(sorted(set(warnings))),
    )


def wanted_of(
    point: RecoveryPoint, manifests: Mapping[str, bytes], mappings: Mappings
) -> tuple[list[Wanted], list[ObjectRef]]:
    """The point's objects under their target names, and those that belong to the whole cluster.

    Raises:
        IntegrityError: A manifest is missing or is none, or a volume has no claim.
    """
    volumes = {(volume.namespace, volume.claim): volume for volume in point.volumes}
    wanted, shared = [], []
    for copy in point.objects:
        if copy.path not in manifests:
            raise IntegrityError(f"recovery point {point.id} does not hold {copy.path}, which it names")
        if not copy.ref.namespace and copy.ref.kind != "Namespace":
            shared.append(copy.ref)
            continue
        manifest = rewrite(manifests[copy.path], mappings)
        volume = volumes.pop((copy.ref.namespace, copy.ref.name), None) if copy.ref.kind == CLAIM else None
        meta = manifest["metadata"]
        ref = ObjectRef(kind=copy.ref.kind, namespace=meta.get("namespace", ""), name=meta["name"])
        wanted.append(Wanted(ref, copy, manifest, volume))
    if volumes:
        names = ", ".join(f"{namespace}/{claim}" for namespace, claim in volumes)
        raise IntegrityError(f"recovery point {point.id} holds data of {names} and no manifest of the claim")
    return wanted, shared


def duplicates(sources: Sequence[Wanted]) -> list[Blocker]:
    """Objects of two namespaces that would become one; namespaces themselves may be merged."""
    first: dict[ObjectRef, Wanted] = {}
    blockers = []
    for each in sources:
        other = first.setdefault(each.ref, each)
        if other is not each and each.ref.kind != "Namespace":
            reason = f"{other.copy.ref} and {each.copy.ref} would both become it"
            do = "Map the two namespaces to two."
            blockers.append(Blocker(subject=str(each.ref), reason=reason, do=do))
    return blockers


def devices(sources: Sequence[Wanted]) -> list[Blocker]:
    """Raw block volumes: no mover Job mounts a device yet, and a folder of the same bytes would be something else."""
    reason = "is a raw block volume, which recover cannot fill yet"
    do = "Bring it back with refloat extract --volume CLAIM --to DEVICE."
    return [
        Blocker(subject=str(each.ref), reason=reason, do=do)
        for each in sources
        if each.volume is not None and each.volume.mode == "device"
    ]


def step_of(
    cluster: Cluster, point_id: str, source: Wanted, mappings: Mappings, hidden: Hidden
) -> ObjectStep | VolumeStep:
    """What happens to one object; one that may not be looked at counts as absent (and is a blocker already)."""
    ref = source.ref
    live = None if source in hidden else cluster.find(ref.kind, ref.name, ref.namespace or None)
    if source.volume is not None:
        return volume_step(cluster, point_id, source, source.volume, mappings, live)
    action, detail = object_action(cluster, point_id, source, live)
    return ObjectStep.model_validate(
        {
            "ref": ref,
            "action": action,
            "level": level_of(ref.kind),
            "source_path": source.copy.path,
            "detail": detail,
        }
    )


def object_action(cluster: Cluster, point_id: str, source: Wanted, live: Object | None) -> tuple[str, str]:
    """(create, keep or conflict; why) of one object beside what is there under its name."""
    if live is None:
        return "create", ""
    if source.ref.kind == "Namespace":
        return "keep", "exists"
    if "deletionTimestamp" in live["metadata"]:
        return "conflict", BEING_DELETED
    if is_recovered_from(live, point_id):
        return "keep", IS_OURS
    if is_plain_default(live):
        return "create", "completes the namespace's own account"
    where = difference(cluster, source.manifest, live)
    return ("conflict", f"differs in {where}") if where else ("keep", "equal")


def volume_step(
    cluster: Cluster,
    point_id: str,
    source: Wanted,
    volume: VolumeCopy,
    mappings: Mappings,
    live: Object | None,
) -> VolumeStep:
    """What happens to one claim with data. Only what this recovery itself filled is kept."""
    action, detail = "hydrate", ""
    if live is not None and "deletionTimestamp" in live["metadata"]:
        action, detail = "conflict", BEING_DELETED
    elif live is not None and not is_recovered_from(live, point_id):
        action, detail = "conflict", "exists, and its data is not from this recovery point"
    elif live is not None:
        is_over = was_handed_over(cluster, live, point_id)
        action, detail = ("keep", "filled by a recovery from this point") if is_over else ("hydrate", "goes on")
    return VolumeStep.model_validate(
        {
            "namespace": source.ref.namespace,
            "claim": source.ref.name,
            "action": action,
            "manifest_path": source.copy.path,
            "source_path": volume.path,
            "tree": volume.tree,
            "top": volume.top,
            "storage_class": mapped_class(volume.storage_class, mappings),
            "requested_bytes": volume.requested_bytes,
            "data_bytes": volume.data_bytes,
            "access_modes": volume.access_modes,
            "detail": detail,
        }
    )


def mapped_class(name: str | None, mappings: Mappings) -> str | None:
    """The class a claim of the point gets; None is the target's default class."""
    return name if name is None else mappings.storage_classes.get(name, name)


def conflicts(objects: Sequence[ObjectStep], volumes: Sequence[VolumeStep]) -> list[Blocker]:
    """What exists and may not be touched."""
    named = [(str(step.ref), step.detail) for step in objects if step.action == "conflict"]
    named += [(f"{CLAIM} {s.namespace}/{s.claim}", s.detail) for s in volumes if s.action == "conflict"]
    other = "Recover into another namespace (--to-namespace NAME), or remove it first."
    wait = "Wait until it is gone, then run again."
    return [
        Blocker(subject=subject, reason=detail, do=wait if detail == BEING_DELETED else other)
        for subject, detail in named
    ]


def texts(sources: Sequence[Wanted], mappings: Mappings) -> list[str]:
    """Host names in free text that still name an old namespace: they are the application's own, and not rewritten."""
    return [
        f"{each.ref} still names hosts of namespace {old} in its text; refloat does not change text"
        for each in sources
        for old in mentions(each.manifest, mappings)
    ]
