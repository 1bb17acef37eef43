"""Letting go for the dead: by the janitor after the deadline, by nobody before, once, recorded; else an alert."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from itertools import product

import pytest
import yaml

from kube.application_lease import hold_application
from kube.cluster import Cluster
from kube.hold_record import HOLD, HeldPlace, HoldRecord, thawed_of
from kube.home import HOME, ensure_home
from kube.janitor import Turn, keep_watch, turn
from kube.marks import annotations_of
from kube.runs import LEASE
from kube.thawing import left_holds, name_of_lease, thaw
from practice.access import Fault, Identity
from practice.range import PracticeRange
from refloat.clock import now
from refloat.errors import ThawUnconfirmed
from refloat.recovery_point import new_id
from tests.contract.given import sh, unique
from tests.deployments.installing import documents
from tests.kube.frozen import MINUTE, Frozen, events, lease, record, say_renewed

HOUR = timedelta(hours=1)
OVER = MINUTE.total_seconds()
ALERT = OVER + 60
COMMAND = "kubectl exec -n {} db -c main -- rm -f /work/locked"


@pytest.fixture
def app(cluster: Cluster) -> Iterator[str]:
    """An application's name; no lease of it outlives the test."""
    ensure_home(cluster)
    name = unique("app")
    yield name
    cluster.delete(LEASE, name_of_lease(name), HOME)


def left(cluster: Cluster, app: str, *places: HeldPlace, behind: timedelta = timedelta(0)) -> HoldRecord:
    """What a run left that died while it held, its clock wrong by so much."""
    run = new_id()
    kept = record(run, *places, at=now() - behind)
    with hold_application(cluster, app, run) as mine:
        mine.record(kept)
    say_renewed(cluster, app, now() - behind)
    return kept


def of(app: str, done: Turn) -> list[dict[str, str]]:
    """What a turn said of one application; the lab may have others."""
    return [line for line in done.said if line.get("application") == app]


@pytest.mark.parametrize("behind", [timedelta(0), HOUR, -HOUR], ids=["right", "behind", "ahead"])
def test_past_its_deadline_it_is_let_go(cluster: Cluster, namespace: str, app: str, behind: timedelta) -> None:
    """Whatever the run's clock said: after the time its hold may take, and not before; then never again."""
    frozen = Frozen(cluster, namespace, "db").start()
    kept = left(cluster, app, frozen.place, behind=behind)
    seen = turn(cluster, {}, 100.0)
    early = turn(cluster, seen.watched, 100.0 + OVER - 1)
    assert (of(app, seen), of(app, early), frozen.is_frozen) == ([], [], True)

    done = turn(cluster, early.watched, 100.0 + OVER)
    assert [(line["what"], line["outcome"]) for line in of(app, done)] == [("thawed", "thawed")]
    assert not frozen.is_frozen
    found = lease(cluster, app)
    (thawed,) = thawed_of(found)
    assert (thawed.by, thawed.place, HOLD in annotations_of(found)) == ("janitor", kept.parts[0], False)
    assert events(cluster, namespace, "Thawed") == [f"lock-file of run {kept.run} let go by janitor: thawed"]

    version = found["metadata"]["resourceVersion"]
    again = turn(cluster, done.watched, 100.0 + 2 * OVER)
    assert of(app, again) == [] and thaw(cluster, app, kept, by="janitor") == []
    assert lease(cluster, app)["metadata"]["resourceVersion"] == version
    assert len(events(cluster, namespace, "Thawed")) == 1


def test_a_living_runs_next_hold_has_its_own_time(cluster: Cluster, namespace: str, app: str) -> None:
    """What was watched of one hold does not count for the next, and a thaw for one leaves the other alone."""
    frozen = Frozen(cluster, namespace, "db").start()
    with hold_application(cluster, app, new_id()) as mine:
        first = mine.record(record(mine.run, frozen.place, at=now() - MINUTE))
        seen = turn(cluster, {}, 0.0)
        mine.hold_is_over()
        second = mine.record(record(mine.run, frozen.place))
        late = turn(cluster, seen.watched, OVER + 1)
        assert (of(app, late), frozen.is_frozen) == ([], True)
        assert thaw(cluster, app, first, by="late") == [] and frozen.is_frozen
        assert [each.what for each in thaw(cluster, app, second, by="now")] == ["thawed"]
        mine.check_held()


def test_a_pod_that_was_replaced_holds_nothing(cluster: Cluster, namespace: str, app: str) -> None:
    """The new one is left alone, whatever it does; one that is gone as well."""
    frozen, gone = Frozen(cluster, namespace, "db").start(), Frozen(cluster, namespace, "gone").start()
    kept = left(cluster, app, frozen.place, gone.place)
    frozen.replace()
    cluster.delete("Pod", "gone", namespace, grace_seconds=0)
    cluster.wait("Pod", "gone", namespace, lambda obj: obj is None, timeout=MINUTE, what="pod gone")
    outcomes = {each.place.pod: each.what for each in thaw(cluster, app, kept, by="me")}
    assert outcomes == {"db": "its pod was replaced", "gone": "its pod is gone"}
    assert frozen.is_frozen
    assert HOLD not in annotations_of(lease(cluster, app))


def test_what_cannot_be_let_go_becomes_an_alert(practice: PracticeRange) -> None:
    """Exec refused: the other pod is let go, the record stays, and a minute later the command is told, once."""
    cluster = Cluster.open(kubeconfig=str(practice.kubeconfig))
    ensure_home(cluster)
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "app"}})
    frozen, other = Frozen(cluster, "app", "db").start(), Frozen(cluster, "app", "other").start()
    kept = left(cluster, "shop", frozen.place, other.place)
    fault = practice.access.inject(Fault("answer", r"/pods/db/exec", status=500, times=999))

    done = turn(cluster, turn(cluster, {}, 0.0).watched, OVER)
    assert [line["level"] for line in done.said] == ["warning"] and fault.fired == 1
    assert "db" in done.said[0]["error"] and COMMAND.format("app") in done.said[0]["error"]
    assert not other.is_frozen
    assert [part.pod for hold in left_holds(cluster) for part in hold.left] == ["db"]
    assert events(cluster, "app", "StillFrozen") == []

    done = turn(cluster, done.watched, ALERT)
    (alert,) = [line for line in done.said if line["level"] == "alert"]
    assert (alert["command"], alert["pod"], alert["run"]) == (COMMAND.format("app"), "app/db", kept.run)
    (told,) = events(cluster, "app", "StillFrozen")
    assert COMMAND.format("app") in told

    done = turn(cluster, done.watched, ALERT + 15)
    assert [line["level"] for line in done.said] == ["warning"] and fault.fired == 3
    with pytest.raises(ThawUnconfirmed, match="of shop may still be frozen: app/db"):
        thaw(cluster, "shop", kept, by="me")
    practice.access.heal()
    assert frozen.is_frozen
    done = turn(cluster, done.watched, ALERT + 30)
    assert [line["what"] for line in done.said] == ["thawed"]
    assert not frozen.is_frozen and left_holds(cluster) == []


def test_parts_of_one_pod_go_in_the_records_order(cluster: Cluster, namespace: str, app: str) -> None:
    """One after the other, also where only their commands tell them apart."""
    frozen = Frozen(cluster, namespace, "db").start()
    commands = [("sh", "-c", f"sleep 0.{9 - number}; echo {number} >> /work/order") for number in (1, 5, 8)]
    kept = left(cluster, app, *(frozen.place.model_copy(update={"thaw": command}) for command in commands))
    assert len(thaw(cluster, app, kept, by="me")) == 3
    assert sh(cluster, namespace, "db", "cat /work/order").split() == ["1", "5", "8"]


def test_a_command_that_fails_is_no_thaw(cluster: Cluster, namespace: str, app: str) -> None:
    """Its exit status and last words are told."""
    frozen = Frozen(cluster, namespace, "db").start()
    place = frozen.place.model_copy(update={"thaw": ("sh", "-c", "echo no key >&2; exit 3")})
    kept = left(cluster, app, place)
    with pytest.raises(ThawUnconfirmed, match="exit status 3: no key"):
        thaw(cluster, app, kept, by="me")
    assert HOLD in annotations_of(lease(cluster, app))


def test_a_record_nobody_can_read(cluster: Cluster, namespace: str, app: str) -> None:
    """It is told once, and keeps nobody else waiting."""
    frozen, name = Frozen(cluster, namespace, "db").start(), f"{app}-other"
    left(cluster, app, frozen.place)
    try:
        left(cluster, name)
        cluster.patch(LEASE, name_of_lease(name), HOME, {"metadata": {"annotations": {HOLD: "{"}}})
        first = turn(cluster, {}, 0.0)
        assert [line["what"] for line in of(name, first)] == ["unreadable"]
        second = turn(cluster, first.watched, OVER)
        assert (of(name, second), frozen.is_frozen) == ([], False)
    finally:
        cluster.delete(LEASE, name_of_lease(name), HOME)


# ---- the program


def test_it_goes_on_while_the_server_fails(practice: PracticeRange) -> None:
    """A turn that fails is said; the next one is made."""
    cluster, over, said = Cluster.open(kubeconfig=str(practice.kubeconfig)), threading.Event(), list[str]()
    ensure_home(cluster)
    left(cluster, "shop")
    cluster.patch(LEASE, name_of_lease("shop"), HOME, {"metadata": {"annotations": {HOLD: "{"}}})
    fault = practice.access.inject(Fault("answer", r"/namespaces/refloat/leases\?", status=403))

    def say(line: dict[str, str]) -> None:
        said.append(line["what"])
        if line["what"] == "unreadable":
            over.set()

    keep_watch(cluster, say, over, every=timedelta(milliseconds=20))
    assert (said, fault.fired) == (["turn failed", "unreadable"], 1)


def granted() -> set[tuple[str, str]]:
    """(verb, resource) of the janitor's roles."""
    roles = [doc for doc in documents() if doc["kind"] in ("Role", "ClusterRole")]
    rules = [rule for doc in roles if doc["metadata"]["name"] == "refloat-janitor" for rule in doc["rules"]]
    return {pair for rule in rules for pair in product(rule["verbs"], rule["resources"])}


KINDS = {"leases": "Lease.coordination.k8s.io", "pods": "Pod", "pods/exec": "Pod/exec", "events": "Event"}


def denied_but(rights: set[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Everything else, as the practice range denies it."""
    verbs = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
    mine = [(verb, kind) for name, kind in KINDS.items() for verb in verbs if (verb, name) not in rights]
    others = (
        "ConfigMap Secret Namespace Node ServiceAccount PersistentVolume PersistentVolumeClaim Pod/log *.*/* *.apps"
    )
    rest = [("*", kind) for kind in others.split()] + [("*", "*.batch"), ("*", "*.storage.k8s.io")]
    return (*mine, *rest)


def test_its_rights_are_those_it_uses(practice: PracticeRange) -> None:
    """With what the manifests grant it lets go and writes everything down; with any verb less it does not."""
    admin = Cluster.open(kubeconfig=str(practice.kubeconfig))
    ensure_home(admin)
    admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "app"}})
    frozen = Frozen(admin, "app", "db").start()
    rights = granted()
    assert rights and rights <= set(product(("get", "list", "create", "patch"), KINDS))
    for number, missing in enumerate([*sorted(rights - {("get", "pods/exec")}), None]):
        left(admin, "shop", frozen.place)
        before = len(events(admin, "app", "Thawed"))
        identity = Identity(f"janitor-{number}", denied=denied_but(rights - {missing} if missing else rights))
        janitor = Cluster.open(kubeconfig=str(practice.kubeconfig_for(identity)))
        works = True
        try:
            done = turn(janitor, turn(janitor, {}, 0.0).watched, OVER)
            works = [line["what"] for line in done.said] == ["thawed"]
        except Exception as refused:  # noqa: BLE001 - a right is missing
            assert missing is not None, refused
            works = False
        told = len(events(admin, "app", "Thawed")) > before
        assert (works and told) is (missing is None), missing
        admin.delete(LEASE, name_of_lease("shop"), HOME)
    assert not frozen.is_frozen


def test_the_program(practice: PracticeRange) -> None:
    """As its Deployment starts it: JSON lines, and SIGTERM ends it with 0."""
    manifest = next(doc for doc in documents() if doc["kind"] == "Deployment")
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    words = [sys.executable if word == "python3" else word for word in container["command"]]
    cluster = Cluster.open(kubeconfig=str(practice.kubeconfig))
    ensure_home(cluster)
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "app"}})
    frozen, run = Frozen(cluster, "app", "db").start(), new_id()
    with hold_application(cluster, "shop", run) as mine:
        mine.record(record(run, frozen.place, over_after=timedelta(0)))
    environment = {**os.environ, "KUBECONFIG": str(practice.kubeconfig)}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    assert [line["what"] for line in said] == ["watching", "thawed"]
    assert yaml.safe_load(json.dumps(said[1]))["pod"] == "app/db" and not frozen.is_frozen
