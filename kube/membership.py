"""Membership: which of the objects of some namespaces belong to an application, each with its reason. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kube.kinds import name_of
from kube.references import claim_names, names_object, pod_references, selects_pod, template_of
from kube.selectors import parse
from refloat.application import Application, Member
from refloat.inventory import Found, Reason
from refloat.recovery_point import ObjectRef

Object = Mapping[str, Any]
CLAIM = "PersistentVolumeClaim"
BINDING = "RoleBinding.rbac.authorization.k8s.io"
ROLE = "Role.rbac.authorization.k8s.io"


def ref_of(obj: Object) -> ObjectRef:
    """The name of an object as read."""
    meta = obj["metadata"]
    return ObjectRef(kind=name_of(obj), namespace=meta.get("namespace", ""), name=meta["name"])


class Graph:
    """The objects of the application's namespaces, with the look-ups membership needs."""

    def __init__(self, objects: Iterable[Object]) -> None:
        self.objects: dict[ObjectRef, Object] = {}
        self.by_uid: dict[str, ObjectRef] = {}
        self.owned: dict[str, list[ObjectRef]] = {}
        for obj in objects:
            uid = obj["metadata"].get("uid", "")
            if uid in self.by_uid:
                continue  # one object served by two API groups
            ref = ref_of(obj)
            self.objects[ref], self.by_uid[uid] = obj, ref
            for owner in obj["metadata"].get("ownerReferences") or []:
                self.owned.setdefault(owner["uid"], []).append(ref)

    def labels(self, ref: ObjectRef) -> Mapping[str, str]:
        """The object's labels."""
        return dict(self.objects[ref]["metadata"].get("labels") or {})

    def of_kind(self, kind: str, namespace: str) -> Iterator[ObjectRef]:
        """Every object of a kind in a namespace."""
        return (ref for ref in self.objects if ref.kind == kind and ref.namespace == namespace)

    def related(self, ref: ObjectRef) -> Iterator[tuple[ObjectRef, str]]:
        """(object, relation) of all that belongs because ``ref`` does; the object may be missing."""
        obj = self.objects[ref]
        for owner in obj["metadata"].get("ownerReferences") or []:
            if owner["uid"] in self.by_uid:
                yield self.by_uid[owner["uid"]], "owner of"
        for child in self.owned.get(obj["metadata"].get("uid", ""), []):
            yield child, "owned by"
        yield from self._needed(ref, obj)
        yield from self._referring(ref)

    def _needed(self, ref: ObjectRef, obj: Object) -> Iterator[tuple[ObjectRef, str]]:
        """What the object cannot live without."""
        template = template_of(ref.kind, obj)
        for kind, name, relation, _ in pod_references((template or {}).get("spec") or {}) if template else ():
            yield ObjectRef(kind=kind, namespace=ref.namespace, name=name), relation
        if ref.kind == "StatefulSet.apps":
            prefixes = tuple(claim_names(obj))
            for claim in self.of_kind(CLAIM, ref.namespace):
                if any(claim.name.startswith(p) and claim.name[len(p) :].isdigit() for p in prefixes):
                    yield claim, "claim template of"
        if ref.kind == BINDING and obj["roleRef"]["kind"] == "Role":
            yield ObjectRef(kind=ROLE, namespace=ref.namespace, name=obj["roleRef"]["name"]), "role of"

    def _referring(self, ref: ObjectRef) -> Iterator[tuple[ObjectRef, str]]:
        """What is about the object: services, budgets and policies of a pod, autoscalers, ingresses, bindings."""
        bare = ref.kind.partition(".")[0]
        labels = self.labels(ref) if ref.kind == "Pod" else {}
        for other, obj in self.objects.items():
            if other.namespace != ref.namespace:
                continue
            if ref.kind == "Pod" and selects_pod(other.kind, obj, labels):
                yield other, "selects"
            elif (bare, ref.name) in names_object(other.kind, obj):
                yield other, "refers to"


def seeds(graph: Graph, member: Member) -> Iterator[tuple[ObjectRef, Reason]]:
    """What a member rule chooses by itself."""
    chosen = parse(member.selector)
    reason = Reason(f"selected by {member.selector}" if member.selector else f"in namespace {member.namespace}")
    for ref in graph.objects:
        if ref.namespace != member.namespace or is_excluded(ref, member):
            continue
        is_included = not member.include or any(rule.matches(ref.kind, ref.name) for rule in member.include)
        if is_included and chosen(graph.labels(ref)):
            yield ref, reason


def is_excluded(ref: ObjectRef, member: Member) -> bool:
    """Whether the member rule leaves the object out by name."""
    return any(rule.matches(ref.kind, ref.name) for rule in member.exclude)


def closure(graph: Graph, application: Application) -> tuple[list[Found], list[Found], list[tuple[ObjectRef, Reason]]]:
    """(belonging, excluded, missing) of the application: seeds and all they bring, each with its first reason."""
    members = {m.namespace: m for m in application.members}
    reasons: dict[ObjectRef, Reason] = {}
    left_out: dict[ObjectRef, Reason] = {}
    missing: dict[ObjectRef, Reason] = {}
    todo: deque[ObjectRef] = deque()

    def reach(ref: ObjectRef, reason: Reason) -> None:
        if ref in reasons or ref in left_out:
            return
        if ref not in graph.objects:
            missing.setdefault(ref, reason)
        elif any(is_excluded(ref, m) for m in application.members if m.namespace == ref.namespace):
            left_out[ref] = reason
        else:
            reasons[ref] = reason
            todo.append(ref)

    for member in application.members:
        for ref, reason in seeds(graph, member):
            reach(ref, reason)
    while todo:
        source = todo.popleft()
        for ref, relation in graph.related(source):
            if ref.namespace in members:
                reach(ref, Reason(f"{relation} {source.kind.partition('.')[0]}", source))
    belonging = [Found(ref, reason, graph.objects[ref]) for ref, reason in reasons.items()]
    excluded = [Found(ref, reason, graph.objects[ref]) for ref, reason in left_out.items()]
    return belonging, excluded, list(missing.items())
