"""The hold's plan: which pods are held by what, in which order, who is not held and why; nothing is changed by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from kube.cluster import Cluster
from kube.freezing_order import default_rank
from kube.hold_plan import UNORDERED, asking, check_probes, choose, is_one_cut_enough, rank_of, unheld_pod
from refloat.application import Application, HoldRules, Member, Quiesce
from refloat.errors import ObjectMissing, QuiesceFailed, UnknownProvider
from refloat.inventory import Found, Inventory, Pod, Reason, Volume
from refloat.ports.quiescer import ENTRY, PRIMARY, QUEUE, WORKER, Ask, HoldScript, Place
from refloat.recovery_point import ObjectRef
from tests.contract.given import pod, start, until_phase


@dataclass(frozen=True)
class Fake:
    """A quiescer of images that begin with its engine's name; it asks nothing."""

    engine: str
    whole_by_one_cut: bool = True

    def recognises(self, image: str) -> bool:
        """By the beginning."""
        return image.startswith(self.engine)

    def scripts(self, place: Place, options: Mapping[str, str], ask: Ask) -> Sequence[HoldScript]:
        """One, which says nothing of interest here."""
        return [script(self.engine)]


def script(engine: str = "sql", rank: int | None = PRIMARY) -> HoldScript:
    """A script that nobody runs."""
    return HoldScript(engine, "a word", True, "session", "", ("true",), ("true",), rank=rank)


QUIESCERS: dict[str, Any] = {"sql": Fake("sql"), "queue": Fake("queue", whole_by_one_cut=False)}


def a_pod(name: str, image: str = "sql:1", *, claims: tuple[str, ...] = ("data",), phase: str = "Running") -> Pod:
    """A pod of the namespace n whose label app is its name."""
    return Pod("n", name, f"uid-{name}", phase, {"app": name}, {}, ("main", "side"), ("busybox", image), claims)


def an_inventory(*pods: Pod, claims: tuple[str, ...] = ("data",)) -> Inventory:
    """These pods and claims."""
    volumes = tuple(
        Volume("n", claim, f"uid-{claim}", "Bound", "pv", "driver", "handle", None, 1, (), "Filesystem")
        for claim in claims
    )
    return Inventory("shop", (), volumes, pods)


def an_application(*rules: Quiesce, **hold: Any) -> Application:
    """With these rules and hold settings."""
    return Application(name="shop", members=(Member(namespace="n"),), quiesce=rules, hold=HoldRules(**hold))


def chosen(inventory: Inventory, *rules: Quiesce) -> dict[str, tuple[str | None, str]]:
    """Pod → (engine or None, container)."""
    return {
        each.pod.name: (each.quiescer.engine if each.quiescer else None, each.container)
        for each in choose(an_application(*rules), inventory, QUIESCERS)
    }


def test_images_tell() -> None:
    """The container whose image is known is held; a pod without a volume, or not running, need not be."""
    found = chosen(
        an_inventory(
            a_pod("db"), a_pod("odd", "mystery:2"), a_pod("web", claims=()), a_pod("gone", phase="Pending"),
            a_pod("elsewhere", claims=("not-in-the-point",)),
        )
    )  # fmt: skip
    assert found == {"db": ("sql", "side"), "odd": (None, "main")}


def test_the_document_tells_better() -> None:
    """A rule names the engine, also for a pod without a volume; the first that fits counts; none means not held."""
    inventory = an_inventory(a_pod("a"), a_pod("b"), a_pod("web", "mystery:2", claims=()))
    rules = (
        Quiesce(selector="app=a", engine="none"),
        Quiesce(selector="app=web", engine="queue", container="side"),
    )
    assert chosen(inventory, *rules) == {"a": (None, "side"), "b": ("sql", "side"), "web": ("queue", "side")}


@pytest.mark.parametrize(
    ("rule", "error", "words"),
    [
        (Quiesce(selector="app=a", engine="oracle"), UnknownProvider, "'oracle'.*queue, sql, none"),
        (Quiesce(selector="app=typo", engine="sql"), ObjectMissing, "rule 1 .*app=typo.* no running pod"),
        (Quiesce(selector="app=a", engine="sql", container="typo"), ObjectMissing, "n/a has no container 'typo'"),
    ],
)
def test_a_wrong_rule_is_named(rule: Quiesce, error: type[Exception], words: str) -> None:
    """An engine, selector or container that does not exist is an error, not a pod left out."""
    with pytest.raises(error, match=words):
        chosen(an_inventory(a_pod("a")), rule)


@pytest.mark.parametrize(
    ("pods", "claims", "group", "enough"),
    [
        ((a_pod("a"),), ("data",), False, True),
        ((a_pod("a", claims=("data", "log")),), ("data", "log"), True, True),
        ((a_pod("a", claims=("data", "log")),), ("data", "log"), False, False),
        ((a_pod("a"), a_pod("b", claims=("log",))), ("data", "log"), True, False),
        ((a_pod("a"), a_pod("odd", "mystery", claims=("log",))), ("data", "log"), True, False),
        ((a_pod("a", "queue:1"),), ("data",), False, False),
    ],
)
def test_when_one_cut_is_enough(pods: tuple[Pod, ...], claims: tuple[str, ...], group: bool, enough: bool) -> None:
    """One server that recovers by itself, with all its volumes in one instant; never two, never one that cannot."""
    inventory = an_inventory(*pods, claims=claims)
    choices = choose(an_application(), inventory, QUIESCERS)
    known = [each for each in choices if each.quiescer]
    unheld = [unheld_pod(each) for each in choices if not each.quiescer]
    assert is_one_cut_enough(inventory, known, unheld, group=group) is enough


def test_the_documents_order_comes_first() -> None:
    """Named pods by their place in the order, all others after them by what they are."""
    application = an_application(order=("app=web", "app=db"))
    pods = [a_pod(name) for name in ("web", "db", "other")]
    ranks = [rank_of(application, an_inventory(*pods), each, script(rank=QUEUE)) for each in pods]
    assert ranks == [0, 1, UNORDERED + QUEUE]


def an_object(kind: str, name: str, spec: dict[str, Any]) -> Found:
    """An object of the application."""
    ref = ObjectRef(kind=kind, namespace="n", name=name)
    return Found(ref, Reason("selected"), {"metadata": {"name": name, "namespace": "n"}, "spec": spec})


def service(name: str, chosen: str, kind: str = "ClusterIP") -> Found:
    """A Service for the pods of one app."""
    return an_object("Service", name, {"type": kind, "selector": {"app": chosen}})


ROUTED = [{"backendRefs": [{"name": "other-svc"}, {"name": "shop-svc", "namespace": "n"}]}]
INGRESS = {"rules": [{"http": {"paths": [{"backend": {"service": {"name": "shop-svc"}}}]}}]}
OUTSIDE = [
    (service("shop-svc", "shop", "LoadBalancer"),),
    (service("shop-svc", "shop", "NodePort"),),
    (service("shop-svc", "shop"), an_object("Ingress.networking.k8s.io", "in", INGRESS)),
    (service("shop-svc", "shop"), an_object("HTTPRoute.gateway.networking.k8s.io", "in", {"rules": ROUTED})),
]


@pytest.mark.parametrize("objects", OUTSIDE)
def test_by_default_who_makes_others_write_rests_first(objects: tuple[Found, ...]) -> None:
    """What is reached from outside, then what has no volume, then what has one; an engine that knows says so itself."""
    pods = [a_pod("shop"), a_pod("worker", claims=()), a_pod("files")]
    inventory = replace(an_inventory(*pods), objects=(*objects, service("files-svc", "files")))
    generic = script(rank=None)
    assert [default_rank(inventory, each, generic) for each in pods] == [ENTRY, WORKER, PRIMARY]
    assert default_rank(inventory, pods[0], script(rank=QUEUE)) == QUEUE


@pytest.mark.parametrize(
    ("main", "side", "containers", "refused_after"),
    [
        ((10, 3), (1, 3), ["main"], None),
        ((5, 3), (10, 3), ["main"], 15),
        ((10, 3), (1, 3), None, 3),
        ((10, 3), (10, 4), None, None),
    ],
)
def test_a_probe_that_would_restart_what_is_held(
    main: tuple[int, int], side: tuple[int, int], containers: list[str] | None, refused_after: int | None
) -> None:
    """A liveness probe with less patience than the hard budget is refused; of the whole pod where all of it is held."""
    spec = {
        "containers": [
            {"name": name, "livenessProbe": {"periodSeconds": period, "failureThreshold": failures}}
            for name, (period, failures) in (("main", main), ("side", side))
        ]
        + [{"name": "without"}]
    }
    place = Place("n", "db", "uid", "main")
    if refused_after is None:
        check_probes(spec, an_application(), place, containers=containers)
        return
    with pytest.raises(QuiesceFailed, match=f"after {refused_after} s, and a hold may last 30 s"):
        check_probes(spec, an_application(), place, containers=containers)


def test_asking(cluster: Cluster, namespace: str) -> None:
    """The output of a command that ended well; else its end and its own words."""
    start(cluster, pod(namespace, "db"))
    seen = until_phase(cluster, "db", namespace, "Running")
    ask = asking(cluster, Place(namespace, "db", seen["metadata"]["uid"], "main"))
    assert ask(("echo", "hello")) == "hello\n"
    with pytest.raises(QuiesceFailed, match=r"db: sh ended with 3: no client here"):
        ask(("sh", "-c", "echo no client here >&2; exit 3"))


def test_rules_of_a_hold() -> None:
    """Times that would not let go in time, or beat too seldom, are no document."""
    for wrong in (
        {"lease": timedelta(seconds=1)},
        {"lease": timedelta(seconds=31)},
        {"soft_budget": timedelta(seconds=40)},
        {"hard_budget": timedelta(minutes=6)},
        {"heartbeat": timedelta(seconds=4)},
    ):
        with pytest.raises(ValueError, match=r"budget|Budget|lease|heartbeat"):
            HoldRules(**wrong)
