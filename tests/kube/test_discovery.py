"""Discovery: what belongs and why, down to one pod set of a shared namespace, and nothing of the neighbour's."""

from __future__ import annotations

from typing import Any

import pytest

from kube.cluster import Cluster
from kube.discovery import discover
from kube.membership import Graph, closure
from kube.references import names_object, pod_references, selects_pod, volume_references
from practice.access import Identity
from practice.range import PracticeRange
from refloat.application import RUN_LABEL, Application, Member, ObjectRule
from refloat.errors import ConfigError, EmptySelection, Forbidden, ObjectMissing
from refloat.inventory import Inventory
from tests.contract.given import STAYS, claim, config_map, container, pod, until
from tests.kube import points
from tests.kube.points import PLACE

Object = dict[str, Any]


def secret(name: str) -> Object:
    """A Secret of the shop."""
    meta = {"name": name, "namespace": PLACE}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"password": "x"}}


def shop() -> list[Object]:
    """A database with a claim, a Secret and a start script, and a web tier with an account of its own; labelled."""
    reference = {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db-auth", "key": "password"}}}
    start = {"name": "start", "configMap": {"name": "db-start"}}
    flags = {"configMapRef": {"name": "feature-flags", "optional": True}}
    database = points.stateful_set(containers=[container(STAYS, env=[reference])], volumes=[start])
    web = points.deployment(serviceAccountName="web", containers=[container(STAYS, env=[reference], envFrom=[flags])])
    for obj in (database, web):
        obj["metadata"]["labels"] = {"part-of": "shop"}
        obj["spec"]["template"]["metadata"]["labels"]["part-of"] = "shop"
    budget = {
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "db", "namespace": PLACE},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "db"}}},
    }  # fmt: skip
    return [
        secret("db-auth"), config_map(PLACE, "db-start", **{"start.sh": "x"}), points.account(), *points.role(),
        points.service("db"), budget, database, web,
    ]  # fmt: skip


def neighbour() -> list[Object]:
    """Another application in the same namespace, with the same kinds of everything."""
    return [
        secret("neighbour-auth"), config_map(PLACE, "neighbour-page"), points.service("neighbour"),
        points.stateful_set("neighbour"),
    ]  # fmt: skip


def bring_up(cluster: Cluster, namespace: str, objects: list[Object]) -> None:
    """Create them in the namespace, once it has its account, and wait until the pods are there."""
    until(cluster, "ServiceAccount", "default", namespace, lambda _: True, "default account")
    for obj in objects:
        obj["metadata"]["namespace"] = namespace
        for subject in obj.get("subjects", []):
            subject["namespace"] = namespace
        for field in ("clusterIP", "clusterIPs"):
            obj.get("spec", {}).pop(field, None)
        cluster.create(obj)
    for obj in objects:
        if obj["kind"] in ("Deployment", "StatefulSet"):
            kind, name = f"{obj['kind']}.apps", obj["metadata"]["name"]
            until(cluster, kind, name, namespace, lambda o: o["status"].get("readyReplicas", 0) == 1, f"{name} ready")


def select(namespace: str, selector: str = "", **rules: Any) -> Application:
    """The application of one member rule."""
    return Application(name="shop", members=(Member(namespace=namespace, selector=selector, **rules),))


def found(inventory: Inventory) -> set[str]:
    """Kinds and names of what belongs, without what controllers named."""
    return {
        f"{each.ref.kind.partition('.')[0]} {each.ref.name}"
        for each in inventory.objects
        if each.ref.kind not in ("Namespace", "ReplicaSet.apps") and not each.ref.name.startswith("web-")
    }


def test_a_label_brings_everything_it_needs_and_no_neighbour(cluster: Cluster, namespace: str) -> None:
    """Pods bring their owners, claims, Secrets and accounts; accounts their bindings and Roles; each says why."""
    bring_up(cluster, namespace, [*shop(), *neighbour()])
    inventory = discover(cluster, select(namespace, "part-of=shop"))
    assert found(inventory) - {"ServiceAccount default"} == {
        "StatefulSet db", "Pod db-0", "PersistentVolumeClaim data-db-0", "Secret db-auth", "ConfigMap db-start",
        "Service db", "PodDisruptionBudget db", "Deployment web", "ServiceAccount web", "RoleBinding web", "Role web",
    }  # fmt: skip
    reasons = {each.ref.name: str(each.reason) for each in inventory.objects if each.ref.kind != "Namespace"}
    assert reasons["data-db-0"] in ("claim of Pod db-0", "claim template of StatefulSet db")
    assert reasons["db-auth"].startswith("env of ")
    assert reasons["db-start"].startswith("volume of ")
    [volume] = inventory.volumes
    assert (volume.name, volume.phase, volume.mode) == (f"{namespace}/data-db-0", "Bound", "Filesystem")
    assert volume.driver and volume.handle and volume.requested_bytes == 16 << 20
    assert sorted(each.name for each in inventory.pods)[0] == "db-0"
    assert [each for each in inventory.warnings if "feature-flags" in each and "(optional)" in each]
    storage = [ref.name for ref in inventory.shared if ref.kind == "StorageClass.storage.k8s.io"]
    assert storage == [volume.storage_class]


def test_one_pod_is_enough(cluster: Cluster, namespace: str) -> None:
    """From a pod up to the controller and across to its claim."""
    bring_up(cluster, namespace, [points.stateful_set(), points.service("db"), *neighbour()])
    cluster.patch("Pod", "db-0", namespace, {"metadata": {"labels": {"this": "one"}}})
    names = found(discover(cluster, select(namespace, "this=one")))
    assert {"StatefulSet db", "Pod db-0", "PersistentVolumeClaim data-db-0", "Service db"} <= names
    assert not [name for name in names if "neighbour" in name]


def test_a_whole_namespace(cluster: Cluster, namespace: str) -> None:
    """Without a selector everything belongs, but not what clusters make by themselves, nor what runs left."""
    left = config_map(namespace, "left", {RUN_LABEL: "0123456789abcdef"})
    bring_up(cluster, namespace, [config_map(PLACE, "settings"), secret("auth"), left])
    inventory = discover(cluster, select(namespace))
    assert found(inventory) - {"ServiceAccount default"} == {"ConfigMap settings", "Secret auth"}
    assert [each.ref.name for each in inventory.objects if each.ref.kind == "Namespace"] == [namespace]


def test_what_is_excluded_is_told(cluster: Cluster, namespace: str) -> None:
    """Also when it would come along; an excluded claim's data is named as not protected."""
    bring_up(cluster, namespace, [points.stateful_set()])
    rules = (ObjectRule(kind="PersistentVolumeClaim", name="data-*"),)
    inventory = discover(cluster, select(namespace, exclude=rules))
    assert [each.ref.name for each in inventory.excluded] == ["data-db-0"]
    assert inventory.volumes == ()
    assert f"claim {namespace}/data-db-0 is excluded: its data is not protected" in inventory.warnings


def test_includes_choose_by_kind(cluster: Cluster, namespace: str) -> None:
    """And what the chosen need comes along."""
    bring_up(cluster, namespace, [points.stateful_set(), config_map(PLACE, "settings")])
    names = found(discover(cluster, select(namespace, include=(ObjectRule(kind="StatefulSet"),))))
    assert {"StatefulSet db", "PersistentVolumeClaim data-db-0"} <= names
    assert "ConfigMap settings" not in names


@pytest.mark.parametrize("selector", ["app=nothing", "app,!app"])
def test_nothing_is_an_error(cluster: Cluster, namespace: str, selector: str) -> None:
    """Protecting nothing is never a success; the selector is named."""
    with pytest.raises(EmptySelection, match=selector.replace("!", ".")):
        discover(cluster, select(namespace, selector))


def test_an_empty_namespace_is_an_error(cluster: Cluster, namespace: str) -> None:
    """The default account alone is no application."""
    until(cluster, "ServiceAccount", "default", namespace, lambda _: True, "default account")
    with pytest.raises(EmptySelection):
        discover(cluster, select(namespace))


def test_a_namespace_that_is_not_there_is_an_error(cluster: Cluster) -> None:
    """By its name."""
    with pytest.raises(ObjectMissing, match="refloat-test-no-such"):
        discover(cluster, select("refloat-test-no-such"))


def test_what_may_not_be_listed_is_an_error(practice: PracticeRange) -> None:
    """Fewer objects are never passed off as all."""
    blind = practice.access.admit(Identity("blind", denied=(("list", "Secret"),)))
    cluster = Cluster.open(kubeconfig=str(practice.kubeconfig_for(blind)))
    with pytest.raises(Forbidden, match="secrets"):
        discover(cluster, select("default"))


def test_a_selector_that_is_none_is_an_error(cluster: Cluster, namespace: str) -> None:
    """Before anything is chosen by half of it."""
    with pytest.raises(ConfigError, match="no label selector"):
        discover(cluster, select(namespace, "app in pg"))


# ---- pure: references and membership


def test_every_reference_of_a_pod_is_found() -> None:
    """Environment, volumes, projections, pull secrets, account; of containers and init containers."""
    both = {"secret": {"name": "projected-s"}}, {"configMap": {"name": "projected-c", "optional": True}}
    spec = {
        "serviceAccountName": "web",
        "imagePullSecrets": [{"name": "registry"}],
        "initContainers": [{"envFrom": [{"configMapRef": {"name": "init-c"}}]}],
        "containers": [{"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "env-c", "key": "k"}}}]}],
        "volumes": [
            {"name": "a", "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "b", "secret": {"secretName": "volume-s", "optional": True}},
            {"name": "c", "projected": {"sources": [*both, {"serviceAccountToken": {"path": "t"}}]}},
            {"name": "d", "emptyDir": {}},
        ],
    }
    assert {(kind, name, optional) for kind, name, _, optional in pod_references(spec)} == {
        ("ServiceAccount", "web", False), ("Secret", "registry", True), ("ConfigMap", "init-c", False),
        ("ConfigMap", "env-c", False), ("PersistentVolumeClaim", "data", False), ("Secret", "volume-s", True),
        ("Secret", "projected-s", False), ("ConfigMap", "projected-c", True),
    }  # fmt: skip
    assert list(volume_references({"name": "e", "configMap": {"name": "x"}})) == [
        ("ConfigMap", "x", "volume of", False)
    ]


@pytest.mark.parametrize(
    ("kind", "spec", "chosen"),
    [
        ("Service", {"selector": {"app": "db"}}, True),
        ("Service", {"selector": {"app": "web"}}, False),
        ("Service", {}, False),
        ("PodDisruptionBudget.policy", {"selector": {"matchLabels": {"app": "db"}}}, True),
        ("NetworkPolicy.networking.k8s.io", {"podSelector": {}}, False),
        ("ConfigMap", {"selector": {"app": "db"}}, False),
    ],
)
def test_what_is_about_a_pod(kind: str, spec: Object, chosen: bool) -> None:
    """An empty selector, which chooses every pod, speaks of nobody's application in particular."""
    assert selects_pod(kind, {"spec": spec}, {"app": "db"}) is chosen


def test_what_is_about_an_object_by_name() -> None:
    """Autoscalers, ingresses, and bindings of the same namespace."""
    scaler = {"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}}}
    assert list(names_object("HorizontalPodAutoscaler.autoscaling", scaler)) == [("Deployment", "web")]
    path = {"backend": {"service": {"name": "web"}}}
    ingress = {"spec": {"defaultBackend": {"service": {"name": "api"}}, "rules": [{"http": {"paths": [path]}}, {}]}}
    assert list(names_object("Ingress.networking.k8s.io", ingress)) == [("Service", "api"), ("Service", "web")]
    binding = points.role()[0]
    assert list(names_object("RoleBinding.rbac.authorization.k8s.io", binding)) == [("ServiceAccount", "web")]
    binding["subjects"][0]["namespace"] = "other"
    assert list(names_object("RoleBinding.rbac.authorization.k8s.io", binding)) == []


def with_uid(obj: Object, uid: str) -> Object:
    """The object as a server would give it."""
    return {**obj, "metadata": {**obj["metadata"], "uid": uid}}


def test_claims_of_a_set_are_told_by_their_names() -> None:
    """<template>-<set>-<number>, and no other set's whose name only begins so."""
    names = ["data-db-0", "data-db-12", "data-db-x-0", "data-db2-0", "data-db-"]
    objects = [with_uid(claim(PLACE, name), name) for name in names] + [with_uid(points.stateful_set(), "set")]
    belonging, _, missing = closure(Graph(objects), select(PLACE, include=(ObjectRule(kind="StatefulSet"),)))
    assert sorted(each.ref.name for each in belonging if each.ref.kind == "PersistentVolumeClaim") == names[:2]
    assert {ref.name for ref, _ in missing} == {"default"}


def test_references_in_circles_end() -> None:
    """Owners that own each other are found once."""
    one, other = with_uid(config_map(PLACE, "one"), "1"), with_uid(config_map(PLACE, "other"), "2")
    for obj, owner in ((one, "2"), (other, "1")):
        obj["metadata"]["ownerReferences"] = [{"uid": owner, "kind": "ConfigMap", "name": "x", "apiVersion": "v1"}]
    belonging, _, _ = closure(Graph([one, other]), select(PLACE, include=(ObjectRule(name="one"),)))
    assert sorted(each.ref.name for each in belonging) == ["one", "other"]


def test_nothing_is_followed_into_a_namespace_that_is_no_member() -> None:
    """A member rule is a border."""
    stranger = with_uid({**pod("bank", "p"), "spec": {"containers": []}}, "1")
    account = with_uid(points.account(), "2")
    belonging, _, _ = closure(Graph([stranger, account]), select(PLACE))
    assert [each.ref.name for each in belonging] == ["web"]
