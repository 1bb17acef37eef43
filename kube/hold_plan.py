"""What will be held, found before anything is touched: which pods by which quiescer, in which order, and who is not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from kube.cluster import Cluster
from kube.freezing_order import default_rank
from kube.held_part import PlannedPart, look
from kube.mounts import mounts_of, on_volume
from kube.node_agent import agent_on
from kube.selectors import parse
from refloat.application import Application, Quiesce
from refloat.certificate import Unheld
from refloat.errors import ObjectMissing, QuiesceFailed, UnknownProvider
from refloat.inventory import Inventory, Pod
from refloat.ports.quiescer import Ask, HoldScript, Place, Quiescer
from refloat.registry import open_quiescers

ASK_WITHIN = timedelta(seconds=20)
UNORDERED = 1000
"""Ranks of pods that the document's order does not name begin here."""
SHOWN = 300


@dataclass(frozen=True)
class HoldPlan:
    """The parts in no order (their ranks tell), and every pod with a volume that none of them holds."""

    parts: tuple[PlannedPart, ...] = ()
    unheld: tuple[Unheld, ...] = ()

    @property
    def is_proof(self) -> bool:
        """Whether a hold of these parts can make the point application-consistent."""
        return bool(self.parts) and not self.unheld and all(part.script.stops_writes for part in self.parts)

    def __str__(self) -> str:
        """For people: what is held, else why nothing is."""
        if self.parts:
            engines = sorted({part.script.engine for part in self.parts})
            return f"{len(self.parts)} parts to hold: {', '.join(engines)}"
        return self.unheld[0].reason if self.unheld else "no pod with a volume runs"


@dataclass(frozen=True)
class Choice:
    """One pod with the quiescer that the document or its image chooses; None: nobody knows how, and why."""

    pod: Pod
    container: str
    quiescer: Quiescer | None
    reason: str = ""
    options: dict[str, str] = field(default_factory=dict)


def plan_hold(cluster: Cluster, application: Application, inventory: Inventory, *, group: bool) -> HoldPlan:
    """Ask every pod that will be held what there is to hold. Nothing is changed.

    Args:
        cluster: Where the pods run.
        application: Its ``quiesce`` rules and ``hold`` settings decide.
        inventory: The pods and volumes found.
        group: All volumes are cut at one instant.

    Raises:
        UnknownProvider: The document names an engine that no installed quiescer is for.
        ObjectMissing: A rule chooses no running pod, or a container that is not there.
        Unsupported, QuiesceFailed, InvalidDocument: As the quiescer says.
    """
    choices = choose(application, inventory, open_quiescers())
    known = [choice for choice in choices if choice.quiescer is not None]
    unheld = [unheld_pod(choice) for choice in choices if choice.quiescer is None]
    if application.hold.mode == "never":
        return HoldPlan((), tuple(unheld_pod(choice, "the document says that it is never held") for choice in choices))
    if application.hold.mode == "auto" and is_one_cut_enough(inventory, known, unheld, group=group):
        engine = known[0].quiescer.engine if known[0].quiescer else ""
        text = f"one atomic cut is enough for {engine} alone: it recovers as from a power cut"
        return HoldPlan((), (unheld_pod(known[0], text).model_copy(update={"is_whole_by_one_cut": True}),))
    is_one_instant = group or len(inventory.volumes) <= 1
    parts = [
        part
        for choice in known
        for part in parts_of(cluster, application, inventory, choice, is_one_instant=is_one_instant)
    ]
    return HoldPlan(tuple(parts), tuple(unheld))


def choose(application: Application, inventory: Inventory, quiescers: dict[str, Quiescer]) -> list[Choice]:
    """One choice for every running pod that a rule names or that mounts a volume of the point."""
    pods = sorted((p for p in inventory.pods if p.phase == "Running"), key=lambda p: (p.namespace, p.name))
    volumes = {(volume.namespace, volume.claim) for volume in inventory.volumes}
    choices: list[Choice] = []
    named: set[int] = set()
    for pod in pods:
        found = next(((i, rule) for i, rule in enumerate(application.quiesce) if is_meant(rule, pod)), None)
        has_volume = any((pod.namespace, claim) in volumes for claim in pod.claims)
        if found is not None:
            named.add(found[0])
            choices.append(by_rule(found[1], pod, quiescers))
        elif has_volume:
            choices.append(by_image(pod, quiescers))
    for index, rule in enumerate(application.quiesce):
        if index not in named:
            raise ObjectMissing(
                f"quiesce rule {index + 1} of {application.name} (selector {rule.selector!r}) chooses no running pod",
                guidance="Correct the selector, or the order of the rules: the first that fits a pod counts.",
            )
    return choices


def is_meant(rule: Quiesce, pod: Pod) -> bool:
    """Whether the rule's namespace and selector choose the pod."""
    return rule.namespace in (None, pod.namespace) and parse(rule.selector)(pod.labels)


def by_rule(rule: Quiesce, pod: Pod, quiescers: dict[str, Quiescer]) -> Choice:
    """As the document says."""
    known = by_image(pod, quiescers)
    container = rule.container or (known.container if known.quiescer else pod.containers[0])
    if container not in pod.containers:
        raise ObjectMissing(f"pod {pod.namespace}/{pod.name} has no container {container!r} to hold")
    if rule.engine == "none":
        return Choice(pod, container, None, "the document says that it need not be held")
    if rule.engine not in quiescers:
        raise UnknownProvider(f"no quiescer for {rule.engine!r}; there are: {', '.join([*sorted(quiescers), 'none'])}")
    return Choice(pod, container, quiescers[rule.engine], options=dict(rule.options))


def by_image(pod: Pod, quiescers: dict[str, Quiescer]) -> Choice:
    """By the first container whose image a quiescer recognises."""
    for container, image in zip(pod.containers, pod.images, strict=False):
        for quiescer in quiescers.values():
            if quiescer.recognises(image):
                return Choice(pod, container, quiescer)
    images = ", ".join(pod.images) or "no image"
    return Choice(pod, pod.containers[0], None, f"no quiescer knows its image ({images}); name one under quiesce")


def is_one_cut_enough(inventory: Inventory, known: Sequence[Choice], unheld: Sequence[Unheld], *, group: bool) -> bool:
    """One server with all the volumes there are, cut at one instant, of an engine that recovers from it by itself."""
    is_one_instant = group or len(inventory.volumes) <= 1
    return (
        is_one_instant
        and not unheld
        and len(known) == 1
        and known[0].quiescer is not None
        and known[0].quiescer.whole_by_one_cut
    )


def unheld_pod(choice: Choice, reason: str = "") -> Unheld:
    """A pod that is not held, and why."""
    return Unheld(namespace=choice.pod.namespace, pod=choice.pod.name, reason=reason or choice.reason)


def parts_of(
    cluster: Cluster, application: Application, inventory: Inventory, choice: Choice, *, is_one_instant: bool
) -> list[PlannedPart]:
    """What the quiescer finds to hold in the pod, ranked as the document orders it."""
    assert choice.quiescer is not None
    pod, container = choice.pod, choice.container
    spec = cluster.get("Pod", pod.name, pod.namespace)["spec"]
    claims = {volume.claim for volume in inventory.volumes if volume.namespace == pod.namespace}
    mounts = mounts_of(spec, container, claims)
    where = {mount.path: mount.claim for mount in mounts}
    place = Place(pod.namespace, pod.name, pod.uid, container, mounts=where, is_one_instant=is_one_instant)
    before = look(cluster, place)
    if before is None or before.uid != pod.uid:
        raise QuiesceFailed(f"pod {place} went while its hold was planned", pod=str(place))
    node = str(spec["nodeName"]) if getattr(choice.quiescer, "by_agent", False) else ""
    agent = agent_on(cluster, node) if node else None
    check_probes(spec, application, place, containers=None if agent else [container])
    return [
        PlannedPart(
            place,
            script,
            before,
            rank_of(application, inventory, pod, script),
            last=frozenset(on_volume(mounts, pod.namespace, path).volume for path in script.cut_last),
            adds={word: on_volume(mounts, pod.namespace, path) for word, path in script.adds.items()},
            agent=agent,
            node=node,
        )
        for script in choice.quiescer.scripts(place, choice.options, asking(cluster, agent or place))
    ]


def check_probes(
    spec: Mapping[str, Any], application: Application, place: Place, *, containers: Collection[str] | None
) -> None:
    """The kubelet restarts none of these containers (None: any of the pod) during the longest hold there may be.

    A liveness probe that fails failureThreshold times, periodSeconds apart, restarts it (Kubernetes' defaults: 3, 10).
    """
    probes = [
        each["livenessProbe"]
        for each in spec["containers"]
        if each.get("livenessProbe") and (containers is None or each["name"] in containers)
    ]
    windows = (
        timedelta(seconds=int(probe.get("periodSeconds", 10)) * int(probe.get("failureThreshold", 3)))
        for probe in probes
    )
    window = min(windows, default=application.hold.hard_budget)
    if window < application.hold.hard_budget:
        raise QuiesceFailed(
            f"the liveness probe of {place} restarts it after {window.seconds} s, and a hold may last "
            f"{application.hold.hard_budget.seconds} s",
            guidance="Lower hold.hardBudget in the application's document, or raise the probe's failureThreshold.",
            pod=str(place),
        )


def rank_of(application: Application, inventory: Inventory, pod: Pod, script: HoldScript) -> int:
    """The place in the document's order, or the default one after all of those."""
    for index, selector in enumerate(application.hold.order):
        if parse(selector)(pod.labels):
            return index
    return UNORDERED + default_rank(inventory, pod, script)


def asking(cluster: Cluster, place: Place) -> Ask:
    """How a quiescer asks something in a container."""

    def ask(command: Sequence[str]) -> str:
        ended = cluster.exec(place.namespace, place.pod, place.container, command, timeout=ASK_WITHIN)
        if ended.exit_code != 0:
            said = ended.stderr.decode(errors="replace").strip()[-SHOWN:]
            how = "did not end in time" if ended.exit_code is None else f"ended with {ended.exit_code}"
            raise QuiesceFailed(f"{place}: {command[0]} {how}: {said}", pod=str(place))
        return ended.stdout.decode(errors="replace")

    return ask
