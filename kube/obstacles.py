"""Obstacles: what on the target would make a recovery fail, found by looking and by dry runs, before it begins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from kube.cluster import Cluster
from kube.home import HOME
from kube.marks import annotations_of
from kube.membership import BINDING, CLAIM
from kube.references import template_of
from kube.rights import Right, missing_rights
from refloat.errors import Forbidden, RefloatError, Rejected
from refloat.plan import Blocker, Mappings
from refloat.recovery_point import ObjectCopy, ObjectRef, RecoveryPoint, VolumeCopy

Object = dict[str, Any]
STORAGE_CLASS = "StorageClass.storage.k8s.io"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
NO_PROVISIONER = "kubernetes.io/no-provisioner"
INGRESS_CLASS = "IngressClass.networking.k8s.io"
PRIORITY_CLASS = "PriorityClass.scheduling.k8s.io"
RUNTIME_CLASS = "RuntimeClass.node.k8s.io"
CLUSTER_ROLE = "ClusterRole.rbac.authorization.k8s.io"
CRON_JOB = "CronJob.batch"
VOLUME = "PersistentVolume"
GRANT = "Grant them to this identity (deployments/manifests/ holds the roles refloat needs)."
SIDE_BY_SIDE = 8
ADMISSION = ("admission webhook", "exceeded quota", "attempting to grant RBAC permissions", "ValidatingAdmissionPolicy")
"""Words of a 403 that is an admission's judgement of the object, and not a missing right."""
NO_DRY_RUN = "does not support dry run"
DEPENDS = {"Pod", BINDING}
"""Kinds the server admits only after others of the plan exist (service account, Role): no dry run proves anything."""


@dataclass(frozen=True)
class Wanted:
    """One object of the point under its target name, and what the plan does to it; ``volume``: a claim's data."""

    ref: ObjectRef
    copy: ObjectCopy
    manifest: Object = field(repr=False)
    volume: VolumeCopy | None = None
    action: str = ""

    @property
    def namespace(self) -> str:
        """The target namespace it is in, or is."""
        return self.ref.namespace or self.ref.name

    @property
    def is_made(self) -> bool:
        """Whether the plan creates it."""
        return self.action in ("create", "hydrate")


@dataclass(frozen=True)
class Hidden:
    """(kind, namespace) the target does not serve or show, and the blockers that say so."""

    places: frozenset[tuple[str, str]]
    blockers: tuple[Blocker, ...]

    def __contains__(self, wanted: Wanted) -> bool:
        return (wanted.ref.kind, wanted.ref.namespace) in self.places


@dataclass
class Obstacles:
    """What was found."""

    blockers: list[Blocker] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def block(self, subject: str, reason: str, do: str) -> None:
        """Note one blocker."""
        self.blockers.append(Blocker(subject=subject, reason=reason, do=do))


def what_is_hidden(cluster: Cluster, sources: Sequence[Wanted]) -> Hidden:
    """Kinds the target does not serve as the point holds them, or does not let this identity read."""
    blockers, places, readable = [], set(), set()
    served = {kind.name: kind for kind in cluster.kinds()}
    for each in sources:
        ref, place = each.ref, (each.ref.kind, each.ref.namespace)
        kind = served.get(ref.kind)
        if kind is None or kind.api_version != each.manifest["apiVersion"]:
            reason = "the target serves no such kind" if kind is None else f"the target serves it as {kind.api_version}"
            do = "Install what brings this kind, or protect the application without it."
            subject = f"kind {ref.kind} ({each.manifest['apiVersion']})"
            blockers.append(Blocker(subject=subject, reason=reason, do=do))
            places.add(place)
        else:
            readable.add(place)
    needed = [Right("get", kind, namespace or None) for kind, namespace in sorted(readable)]
    if any(each.volume for each in sources):
        needed.append(Right("get", VOLUME))
    missing = missing_rights(cluster, needed)
    places |= {(right.kind, right.namespace or "") for right in missing}
    if any(right.kind == VOLUME for right in missing):
        places |= {(each.ref.kind, each.ref.namespace) for each in sources if each.volume}
    return Hidden(frozenset(places), (*blockers, *lacking(missing)))


def lacking(missing: Sequence[Right]) -> list[Blocker]:
    """One blocker for all missing rights."""
    reason = "this identity lacks: " + "; ".join(str(right) for right in missing)
    return [Blocker(subject="rights", reason=reason, do=GRANT)] if missing else []


def find_obstacles(
    cluster: Cluster, point: RecoveryPoint, decided: Sequence[Wanted], mappings: Mappings, hidden: Hidden
) -> Obstacles:
    """Everything that would stop the plan, and what a person should know."""
    found = Obstacles()
    check_mappings(point, mappings, found)
    there = check_namespaces(cluster, decided, hidden, found)
    check_rights(cluster, decided, there, found)
    check_storage(cluster, decided, found)
    check_classes(cluster, decided, found)
    check_admission(cluster, [each for each in decided if each.namespace in there and each not in hidden], found)
    return found


def check_mappings(point: RecoveryPoint, mappings: Mappings, found: Obstacles) -> None:
    """A mapping from a name the point does not know is a misspelt one."""
    namespaces = {copy.ref.namespace or copy.ref.name for copy in point.objects}
    for name in sorted(set(mappings.namespaces) - namespaces):
        reason = f"it is mapped, and the point has only {', '.join(sorted(namespaces))}"
        found.block(f"namespace {name}", reason, "Correct the name in the mapping.")
    classes = {volume.storage_class for volume in point.volumes}
    for name in sorted(set(mappings.storage_classes) - {each for each in classes if each is not None}):
        found.warnings.append(f"storage class {name} is mapped, and no volume of the point uses it")


def check_namespaces(cluster: Cluster, decided: Sequence[Wanted], hidden: Hidden, found: Obstacles) -> set[str]:
    """The target namespaces that exist and take objects."""
    there = set()
    for name in sorted({each.namespace for each in decided}):
        if name == HOME:
            found.block(f"namespace {name}", "it is refloat's own", "Recover into another namespace.")
        live = None if ("Namespace", "") in hidden.places else cluster.find("Namespace", name)
        if live is not None and "deletionTimestamp" in live["metadata"]:
            found.block(f"namespace {name}", "it is Terminating", "Wait until it is gone, then run again.")
        elif live is not None:
            there.add(name)
    return there


def check_rights(cluster: Cluster, decided: Sequence[Wanted], there: set[str], found: Obstacles) -> None:
    """The identity in use may do all that the recovery will ask for."""
    served = {kind.name for kind in cluster.kinds()}
    needed = dict.fromkeys(right for right in needed_rights(decided, there) if right.kind in served)
    found.blockers += lacking(missing_rights(cluster, list(needed)))


def needed_rights(decided: Sequence[Wanted], there: Iterable[str]) -> Iterator[Right]:
    """What creating, filling, waiting and explaining ask of the API server."""
    made = [each for each in decided if each.is_made]
    namespaces = sorted({each.namespace for each in decided})
    if set(namespaces) - set(there):
        yield Right("create", "Namespace")
    for each in made:
        yield Right("create", each.ref.kind, each.ref.namespace or None)
        if each.ref.kind == CRON_JOB:
            yield Right("patch", CRON_JOB, each.ref.namespace)
    for namespace in namespaces:
        for kind in ("Pod", "Event"):
            yield Right("list", kind, namespace)
    if any(each.action == "hydrate" for each in made):
        yield from filling_rights(sorted({each.namespace for each in made if each.action == "hydrate"}))


def filling_rights(namespaces: Sequence[str]) -> Iterator[Right]:
    """What filling claims in refloat's namespace, and handing their volumes over, asks for."""
    at_home = {
        CLAIM: ("get", "create", "patch", "delete", "list", "watch"),
        "Job.batch": ("get", "create", "patch", "delete", "list", "watch"),
        "Secret": ("create", "delete"),
        "Pod": ("list", "watch", "delete"),
        "Lease.coordination.k8s.io": ("create", "patch", "list", "delete"),
    }
    for kind, verbs in at_home.items():
        yield from (Right(verb, kind, HOME) for verb in verbs)
    yield Right("get", "Pod", HOME, subresource="log")
    yield from (Right(verb, VOLUME) for verb in ("get", "list", "patch"))
    for namespace in namespaces:
        yield from (Right(verb, CLAIM, namespace) for verb in ("create", "watch", "delete"))


def check_storage(cluster: Cluster, decided: Sequence[Wanted], found: Obstacles) -> None:
    """Every claim to be made gets a class that can provision."""
    claims = [each for each in decided if each.ref.kind == CLAIM and each.is_made]
    if not claims:
        return
    try:
        classes = {each["metadata"]["name"]: each for each in cluster.list(STORAGE_CLASS)}
    except Forbidden:
        found.blockers += lacking([Right("list", STORAGE_CLASS)])
        return
    known = ", ".join(sorted(classes)) or "none"
    for each in claims:
        name, subject = each.manifest["spec"].get("storageClassName"), f"{CLAIM} {each.ref.namespace}/{each.ref.name}"
        old = each.volume.storage_class if each.volume else name
        do = f"Map it to a class of the target (--storage-class {old or 'OLD'}=NEW); there are: {known}."
        if name is None and not any(annotations_of(c).get(DEFAULT_CLASS) == "true" for c in classes.values()):
            found.block(subject, "it names no storage class and the target has no default one", "Make one the default.")
        elif name == "":
            found.block(subject, "it asks for a volume made by hand, which nobody provisions", do)
        elif name is not None and name not in classes:
            found.block(subject, f"storage class {name} does not exist", do)
        elif name and classes[name].get("provisioner") == NO_PROVISIONER:
            found.block(subject, f"storage class {name} provisions nothing", do)
        if each.volume is None:
            found.warnings.append(f"{subject} is created empty: the point holds no data of it")
        elif each.volume.data_bytes > each.volume.requested_bytes:
            found.warnings.append(f"{subject} asks for less than its data: its volume becomes larger")


def check_classes(cluster: Cluster, decided: Sequence[Wanted], found: Obstacles) -> None:
    """Cluster-scoped objects that what is created names: without some, pods are refused; without others, idle."""
    for each in (each for each in decided if each.is_made):
        for kind, name, is_needed in named_classes(each.ref.kind, each.manifest):
            try:
                missing = cluster.serves(kind) and cluster.find(kind, name) is None
            except Forbidden:
                continue
            bare = kind.partition(".")[0]
            if missing and is_needed:
                found.block(str(each.ref), f"its {bare} {name} does not exist", f"Create {bare} {name} on the target.")
            elif missing:
                found.warnings.append(f"{each.ref} names {bare} {name}, which does not exist on the target")


def named_classes(kind: str, obj: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """(kind, name, whether nothing works without it) of what an object names outside its namespace."""
    spec = (template_of(kind, obj) or {}).get("spec") or {}
    if name := spec.get("priorityClassName"):
        yield PRIORITY_CLASS, name, True
    if name := spec.get("runtimeClassName"):
        yield RUNTIME_CLASS, name, True
    if kind == INGRESS_CLASS.replace("IngressClass", "Ingress") and (name := obj["spec"].get("ingressClassName")):
        yield INGRESS_CLASS, name, False
    if kind == BINDING and obj["roleRef"]["kind"] == "ClusterRole":
        yield CLUSTER_ROLE, obj["roleRef"]["name"], False
    for template in (obj.get("spec") or {}).get("volumeClaimTemplates") or []:
        if name := template["spec"].get("storageClassName"):
            yield STORAGE_CLASS, name, False


def check_admission(cluster: Cluster, decided: Sequence[Wanted], found: Obstacles) -> None:
    """What the server says to a dry run of every creation in a namespace that exists: schema, policies, quota."""
    made = [each for each in decided if each.is_made and each.ref.namespace and each.ref.kind not in DEPENDS]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        for each, refusal in zip(made, pool.map(lambda each: refusal_of(cluster, each), made), strict=True):
            if NO_DRY_RUN in refusal:
                found.warnings.append(f"{each.ref}: an admission webhook takes no dry runs; it is judged when created")
            elif refusal:
                found.block(str(each.ref), refusal, "Correct the policy or quota named, or choose another namespace.")


def refusal_of(cluster: Cluster, wanted: Wanted) -> str:
    """The server's reason for refusing the object; empty when it takes it, or says nothing about the object."""
    try:
        cluster.create(wanted.manifest, dry_run=True)
    except Rejected as refused:
        return refused.message
    except Forbidden as refused:
        return refused.message if any(words in refused.message for words in ADMISSION) else ""
    except RefloatError:
        return ""
    return ""
