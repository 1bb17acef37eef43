"""What an operator applies: served, applied twice without harm, least rights, and a policy that confines bindings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from kube.cluster import Cluster
from kube.home import HOME, SERVICE_ACCOUNT
from kube.kinds import name_of
from kube.rights import Right, missing_rights
from refloat.clock import Deadline, pause
from refloat.errors import Forbidden, ObjectExists, RefloatError, Rejected
from tests.conftest import LAB
from tests.contract.given import claim, is_bound, pod, run_pod, unique, until, until_gone
from tests.e2e.kubeconfigs import identity, write

Object = dict[str, Any]
MANIFESTS = Path(__file__).parents[2] / "deployments/manifests"
SNAPSHOT, CONTENT = "VolumeSnapshot.snapshot.storage.k8s.io", "VolumeSnapshotContent.snapshot.storage.k8s.io"
RBAC = "rbac.authorization.k8s.io"
CONTROLLER = "controller"
KNOWN_WITHIN = timedelta(seconds=60)
"""API servers learn of a new policy by watching."""


def documents() -> list[Object]:
    """Every document, in the order kubectl applies a folder."""
    return [doc for path in sorted(MANIFESTS.glob("*.yaml")) for doc in yaml.safe_load_all(path.read_text())]


def place(doc: Object) -> tuple[str, str, str | None]:
    meta = doc["metadata"]
    return name_of(doc), meta["name"], meta.get("namespace")


def install(cluster: Cluster) -> list[Object]:
    """Apply everything; gives what was not there before."""
    new = [doc for doc in documents() if cluster.find(*place(doc)) is None]
    for doc in documents():
        cluster.apply(doc)
    return new


def uninstall(cluster: Cluster, made: list[Object]) -> None:
    """Remove what the test made; the namespace only when no run of somebody else has moved in meanwhile."""
    for doc in reversed(made):
        if doc["kind"] in ("Namespace", "ServiceAccount"):
            lodgers = [one for kind in ("Job.batch", "PersistentVolumeClaim") for one in cluster.list(kind, HOME)]
            if lodgers:
                continue
        cluster.delete(*place(doc))
    for doc in made:
        if doc["kind"] == "ValidatingAdmissionPolicyBinding":
            until_gone(cluster, *place(doc))


@pytest.fixture
def installed(cluster: Cluster) -> Iterator[Cluster]:
    """A cluster of either lane with the manifests applied."""
    made = install(cluster)
    try:
        yield cluster
    finally:
        uninstall(cluster, made)


def test_every_document_applies_and_names_only_served_kinds(installed: Cluster) -> None:
    """And once more, as an upgrade does."""
    for doc in documents():
        assert installed.serves(name_of(doc))
        before = installed.get(*place(doc))
        after = installed.apply(doc)
        assert before["metadata"]["uid"] == after["metadata"]["uid"]
        assert before.get("spec") == after.get("spec") and before.get("rules") == after.get("rules")


def test_names_are_those_of_the_code() -> None:
    """Where movers run and who they are: kube.home makes what is missing in the same shape."""
    by_place = {place(doc): doc for doc in documents()}
    assert len(by_place) == len(documents())
    mover = by_place["ServiceAccount", SERVICE_ACCOUNT, HOME]
    assert mover["automountServiceAccountToken"] is False
    labels = by_place["Namespace", HOME, None]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "baseline"
    assert all(doc["metadata"]["labels"]["app.kubernetes.io/part-of"] == "refloat" for doc in documents())


def test_nobody_gets_more_than_the_page_says() -> None:
    """No wildcard verbs, no way around RBAC, everything only for the controller; the wide roles are bound to nobody."""
    roles = {doc["metadata"]["name"]: doc for doc in documents() if doc["kind"] == "ClusterRole"}
    rules = [rule for doc in documents() if doc["kind"] in ("Role", "ClusterRole") for rule in doc["rules"]]
    assert not {verb for rule in rules for verb in rule["verbs"]} & {"*", "escalate", "bind", "impersonate", "update"}
    assert all("*" not in rule["resources"] for rule in roles["refloat-controller"]["rules"])
    bindings = [doc for doc in documents() if doc["kind"].endswith("RoleBinding")]
    assert {doc["roleRef"]["name"] for doc in bindings} == {"refloat-controller"}
    subjects = [subject for doc in bindings for subject in doc["subjects"]]
    assert {(s["kind"], s["namespace"], s["name"]) for s in subjects} == {("ServiceAccount", HOME, CONTROLLER)}


# ---- on a real cluster: who may do what


@pytest.fixture
def lab() -> str:
    """An administrator's kubeconfig of a real cluster; the practice range judges neither roles nor policies."""
    path = os.environ.get(LAB, "")
    if not path:
        pytest.skip(f"NOT RUN: {LAB} names no real cluster")
    return path


@pytest.fixture
def admin(lab: str) -> Iterator[Cluster]:
    """The administrator of a real cluster with the manifests applied."""
    cluster = Cluster.open(kubeconfig=lab)
    made = install(cluster)
    try:
        yield cluster
    finally:
        uninstall(cluster, made)


@pytest.fixture
def place_of_own(admin: Cluster) -> Iterator[str]:
    """A namespace of the test's own."""
    name = unique("rights")
    admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    admin.delete("Namespace", name)


def account(admin: Cluster, lab: str, name: str, folder: Path) -> Iterator[Cluster]:
    """Log in as an account of refloat's namespace."""
    secret = unique(name)
    meta = {"namespace": HOME, "name": secret, "annotations": {"kubernetes.io/service-account.name": name}}
    kind = "kubernetes.io/service-account-token"
    admin.create({"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": meta})
    try:
        yield Cluster.open(kubeconfig=str(write(admin, lab, HOME, secret, folder)))
    finally:
        admin.delete("Secret", secret, HOME)


@pytest.fixture
def controller(admin: Cluster, lab: str, tmp_path: Path) -> Iterator[Cluster]:
    """The cluster as the controller sees it."""
    yield from account(admin, lab, CONTROLLER, tmp_path)


@pytest.fixture
def mover(admin: Cluster, lab: str, tmp_path: Path) -> Iterator[Cluster]:
    """The cluster as a mover would see it, had it a token."""
    yield from account(admin, lab, SERVICE_ACCOUNT, tmp_path)


def bind(admin: Cluster, namespace: str, role: str) -> None:
    """What the README tells an operator to do for an application."""
    subject = {"kind": "ServiceAccount", "namespace": HOME, "name": CONTROLLER}
    reference = {"apiGroup": RBAC, "kind": "ClusterRole", "name": role}
    meta = {"namespace": namespace, "name": role}
    admin.create(
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": reference,
            "subjects": [subject],
        }
    )


def rights(namespace: str) -> list[Right]:
    """What a run asks for in an application's namespace."""
    kinds = ("Secret", "Deployment.apps", "Role.rbac.authorization.k8s.io", "PersistentVolumeClaim")
    return [
        *(Right("list", kind, namespace) for kind in kinds),
        *(Right(verb, SNAPSHOT, namespace) for verb in ("create", "get", "list", "watch", "delete")),
        Right("patch", "PersistentVolumeClaim", namespace),
        Right("create", "Pod", namespace, subresource="exec"),
    ]


@pytest.mark.lane("lab")
def test_the_controller_may_protect_where_it_is_bound(admin: Cluster, controller: Cluster, place_of_own: str) -> None:
    """Its own namespace and cluster-scoped part always, an application's namespace once the role is bound there."""
    everywhere = [Right(verb, CONTENT) for verb in ("create", "get", "list", "watch", "patch", "delete")]
    at_home = [Right(verb, kind, HOME) for kind in ("Job.batch", "Secret", SNAPSHOT) for verb in ("create", "delete")]
    assert missing_rights(controller, [*everywhere, *at_home]) == []
    assert missing_rights(controller, rights(place_of_own)) == [
        right for right in rights(place_of_own) if (right.verb, right.kind) not in PUBLIC
    ]
    bind(admin, place_of_own, "refloat-protect")
    deadline = Deadline.after(KNOWN_WITHIN)
    while missing_rights(controller, rights(place_of_own)) and not deadline.is_over:
        pause(timedelta(seconds=0.2))
    assert missing_rights(controller, rights(place_of_own)) == []
    never = [Right("list", "Secret", "kube-system"), Right("create", "Pod", place_of_own), Right("get", "Node", None)]
    assert missing_rights(controller, never) == never


PUBLIC = {("list", "PersistentVolumeClaim"), ("list", SNAPSHOT)}
"""What the sweep looks for in every namespace."""


@pytest.mark.lane("lab")
def test_a_mover_may_do_nothing(mover: Cluster, place_of_own: str) -> None:
    """Not even look, had somebody given it a token."""
    asked = [*rights(place_of_own), Right("create", CONTENT), Right("get", "Secret", HOME), Right("list", "Pod", HOME)]
    assert missing_rights(mover, asked) == asked


# ---- the admission policy


def content(namespace: str, name: str, driver: str, handle: str = "some-snapshot") -> Object:
    """A content that binds a snapshot by its handle into a namespace."""
    return {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshotContent",
        "metadata": {"name": name},
        "spec": {
            "driver": driver,
            "deletionPolicy": "Retain",
            "source": {"snapshotHandle": handle},
            "volumeSnapshotRef": {"namespace": namespace, "name": name},
        },
    }


def refusal(cluster: Cluster, obj: Object) -> str:
    """What the server says to a dry run of a creation; empty when it would create it."""
    with suppress(ObjectExists):
        try:
            cluster.create(obj, dry_run=True)
        except (Forbidden, Rejected) as refused:
            return refused.message
    return ""


@pytest.fixture
def outsider(admin: Cluster, lab: str, place_of_own: str, tmp_path: Path) -> Iterator[Cluster]:
    """Another account that may write VolumeSnapshotContents, as other backup tools may."""
    rules = [
        {
            "apiGroups": ["snapshot.storage.k8s.io"],
            "resources": ["volumesnapshotcontents"],
            "verbs": ["create", "get", "patch", "delete"],
        }
    ]
    with identity(admin, lab, place_of_own, unique("outsider"), rules, tmp_path) as kubeconfig:
        yield Cluster.open(kubeconfig=kubeconfig)


@pytest.mark.lane("lab")
def test_only_the_controller_binds_into_its_namespace_and_nowhere_else(
    admin: Cluster, controller: Cluster, outsider: Cluster, place_of_own: str
) -> None:
    """Two accounts with the same right to create contents; the policy tells them apart. Administrators go on."""
    driver = next(iter(admin.list("VolumeSnapshotClass.snapshot.storage.k8s.io")))["driver"]
    home, elsewhere = content(HOME, unique("home"), driver), content(place_of_own, unique("else"), driver)
    deadline = Deadline.after(KNOWN_WITHIN)
    while not refusal(outsider, home) and not deadline.is_over:
        pause(timedelta(seconds=0.2))
    assert "only refloat's controller and administrators bind snapshots into namespace refloat" in refusal(
        outsider, home
    )
    assert refusal(controller, home) == ""
    assert refusal(admin, home) == ""
    assert refusal(outsider, elsewhere) == "" and refusal(admin, elsewhere) == ""
    assert "nowhere else" in refusal(controller, elsewhere)


@pytest.mark.lane("lab")
def test_a_binding_cannot_be_moved_into_refloats_namespace(
    admin: Cluster, outsider: Cluster, place_of_own: str
) -> None:
    """Creating it elsewhere first is no way around."""
    driver = next(iter(admin.list("VolumeSnapshotClass.snapshot.storage.k8s.io")))["driver"]
    mine = content(place_of_own, unique("moved"), driver)
    move = {"spec": {"volumeSnapshotRef": {"namespace": HOME}}}
    outsider.create(mine)
    try:
        deadline = Deadline.after(KNOWN_WITHIN)
        refused: RefloatError | None = None
        while refused is None and not deadline.is_over:
            try:
                outsider.patch(CONTENT, mine["metadata"]["name"], None, move, dry_run=True)
                pause(timedelta(seconds=0.2))
            except (Forbidden, Rejected) as refusal:
                refused = refusal
        assert refused is not None and "only refloat's controller" in refused.message
        outsider.patch(CONTENT, mine["metadata"]["name"], None, {"metadata": {"labels": {"touched": "yes"}}})
    finally:
        admin.delete(CONTENT, mine["metadata"]["name"])


@pytest.mark.lane("lab")
def test_an_ordinary_snapshot_still_becomes_ready(admin: Cluster, place_of_own: str) -> None:
    """The snapshot controller and the driver's sidecar go on making, binding and deleting contents, also at home."""
    admin.create(claim(place_of_own, "data"))
    run_pod(admin, pod(place_of_own, "writer", claims={"/data": "data"}))
    until(admin, "PersistentVolumeClaim", "data", place_of_own, is_bound, "claim bound")
    snapshot = {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": {"namespace": place_of_own, "name": "cut"},
        "spec": {"source": {"persistentVolumeClaimName": "data"}},
    }
    classes = list(admin.list("VolumeSnapshotClass.snapshot.storage.k8s.io"))
    snapshot["spec"]["volumeSnapshotClassName"] = classes[0]["metadata"]["name"]  # type: ignore[index]
    admin.create(snapshot)

    def is_ready(obj: Object) -> bool:
        return bool((obj.get("status") or {}).get("readyToUse"))

    cut = until(admin, SNAPSHOT, "cut", place_of_own, is_ready, "snapshot ready")
    made = admin.get(CONTENT, cut["status"]["boundVolumeSnapshotContentName"])
    again = content(HOME, unique("again"), made["spec"]["driver"], made["status"]["snapshotHandle"])
    bound = {**snapshot, "metadata": {"namespace": HOME, "name": again["metadata"]["name"]}}
    bound["spec"] = {"source": {"volumeSnapshotContentName": again["metadata"]["name"]}}
    try:
        admin.create(again)
        admin.create(bound)
        until(admin, SNAPSHOT, again["metadata"]["name"], HOME, is_ready, "bound by hand, ready")
    finally:
        admin.delete(SNAPSHOT, again["metadata"]["name"], HOME)
        until_gone(admin, SNAPSHOT, again["metadata"]["name"], HOME)
        admin.delete(CONTENT, again["metadata"]["name"])
        admin.delete(SNAPSHOT, "cut", place_of_own)
        until_gone(admin, CONTENT, made["metadata"]["name"])
