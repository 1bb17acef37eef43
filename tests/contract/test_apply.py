"""Server-side apply: who owns which field, conflicts, force, and what happens to fields nobody wants any more."""

from __future__ import annotations

from typing import Any

import pytest

from kube.cluster import Cluster
from refloat.errors import Conflict, ObjectMissing, Rejected
from tests.contract.given import config_map, template

Object = dict[str, Any]


def managers(obj: Object) -> dict[tuple[str, str], Object]:
    """(manager, operation) → the fields it owns."""
    rows = obj["metadata"].get("managedFields") or []
    return {(row["manager"], row["operation"]): row["fieldsV1"] for row in rows}


def data_of(fields: Object) -> set[str]:
    """The keys of ``data`` in a field set."""
    return {name.removeprefix("f:") for name in fields.get("f:data", {}) if name != "."}


def test_applying_creates_and_owns(cluster: Cluster, namespace: str) -> None:
    """The first apply creates; the applier owns what it said and nothing else."""
    made = cluster.apply(config_map(namespace, "one", a="1"), manager="first")
    assert made["data"] == {"a": "1"} and made["metadata"]["uid"]
    assert list(managers(made)) == [("first", "Apply")]
    assert data_of(managers(made)["first", "Apply"]) == {"a"}


def test_applying_the_same_again_changes_nothing(cluster: Cluster, namespace: str) -> None:
    """A second, equal apply keeps the version."""
    first = cluster.apply(config_map(namespace, "one", a="1"))
    again = cluster.apply(config_map(namespace, "one", a="1"))
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


def test_a_field_no_longer_applied_is_removed(cluster: Cluster, namespace: str) -> None:
    """Only if nobody else owns it."""
    cluster.apply(config_map(namespace, "one", a="1", b="2"), manager="first")
    cluster.apply(config_map(namespace, "one", b="2", c="3"), manager="second")
    left = cluster.apply(config_map(namespace, "one", d="4"), manager="first")
    assert left["data"] == {"b": "2", "c": "3", "d": "4"}
    assert data_of(managers(left)["first", "Apply"]) == {"d"}
    assert data_of(managers(left)["second", "Apply"]) == {"b", "c"}


def test_a_conflict_names_the_other_manager(cluster: Cluster, namespace: str) -> None:
    """Another value for another's field is refused and changes nothing; the same value is shared."""
    cluster.apply(config_map(namespace, "one", a="1"), manager="first")
    cluster.apply(config_map(namespace, "one", a="1"), manager="second")
    with pytest.raises(Conflict, match=r'(?s)conflicts with "first":.*\.data\.a'):
        cluster.apply(config_map(namespace, "one", a="2"), manager="third")
    assert cluster.get("ConfigMap", "one", namespace)["data"] == {"a": "1"}


def test_an_empty_map_is_a_value(cluster: Cluster, namespace: str) -> None:
    """Two managers' empty maps conflict, odd as it is: leave out what you do not mean."""
    empty = config_map(namespace, "one") | {"data": {}}
    cluster.apply(empty, manager="first")
    with pytest.raises(Conflict, match=r"\.data"):
        cluster.apply(empty, manager="second")
    cluster.apply(config_map(namespace, "one"), manager="second")


def test_force_takes_the_field(cluster: Cluster, namespace: str) -> None:
    """The loser owns it no more, and its next apply conflicts in turn."""
    cluster.apply(config_map(namespace, "one", a="1", b="2"), manager="first")
    taken = cluster.apply(config_map(namespace, "one", a="9"), manager="second", force=True)
    assert taken["data"] == {"a": "9", "b": "2"}
    assert data_of(managers(taken)["first", "Apply"]) == {"b"}
    with pytest.raises(Conflict, match='"second"'):
        cluster.apply(config_map(namespace, "one", a="1", b="2"), manager="first")


def test_what_was_created_conflicts_too(cluster: Cluster, namespace: str) -> None:
    """A plain create or patch owns fields as an updater, whatever name the applier bears."""
    made = cluster.create(config_map(namespace, "one", a="1"))
    ((name, operation),) = managers(made)
    assert (name, operation) == ("refloat", "Update")
    with pytest.raises(Conflict, match="conflict with"):
        cluster.apply(config_map(namespace, "one", a="2"), manager="refloat")
    assert cluster.apply(config_map(namespace, "one", a="2"), force=True)["data"] == {"a": "2"}


def test_an_update_takes_fields_without_asking(cluster: Cluster, namespace: str) -> None:
    """Only apply asks; a patch that changes a field owns it from then on."""
    cluster.apply(config_map(namespace, "one", a="1"), manager="first")
    patched = cluster.patch("ConfigMap", "one", namespace, {"data": {"a": "2"}})
    assert ("first", "Apply") not in managers(patched) or "a" not in data_of(managers(patched)["first", "Apply"])
    with pytest.raises(Conflict):
        cluster.apply(config_map(namespace, "one", a="1"), manager="first")


def test_dry_runs_find_conflicts_and_store_nothing(cluster: Cluster, namespace: str) -> None:
    """A plan may ask the server itself."""
    assert cluster.apply(config_map(namespace, "one", a="1"), dry_run=True)["data"] == {"a": "1"}
    assert cluster.find("ConfigMap", "one", namespace) is None
    cluster.apply(config_map(namespace, "one", a="1"), manager="first")
    with pytest.raises(Conflict):
        cluster.apply(config_map(namespace, "one", a="2"), manager="second", dry_run=True)
    assert cluster.apply(config_map(namespace, "one", a="2"), manager="first", dry_run=True)["data"] == {"a": "2"}
    assert cluster.get("ConfigMap", "one", namespace)["data"] == {"a": "1"}


def deployment(namespace: str, **env: str) -> Object:
    """A Deployment without pods, with some environment."""
    pods = template({"app": "x"})
    pods["spec"]["containers"][0]["env"] = [{"name": name, "value": value} for name, value in env.items()]
    spec = {"replicas": 0, "selector": {"matchLabels": {"app": "x"}}, "template": pods}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "x", "namespace": namespace},
        "spec": spec,
    }


def test_keyed_lists_merge(cluster: Cluster, namespace: str) -> None:
    """Containers and their environment are merged by name: two managers may each own a variable."""
    cluster.apply(deployment(namespace, A="1"), manager="first")
    both = cluster.apply(deployment(namespace, B="2"), manager="second")
    env = both["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {each["name"]: each["value"] for each in env} == {"A": "1", "B": "2"}
    less = cluster.apply(deployment(namespace), manager="second")
    assert [each["name"] for each in less["spec"]["template"]["spec"]["containers"][0]["env"]] == ["A"]


def test_defaults_belong_to_nobody(cluster: Cluster, namespace: str) -> None:
    """What the server fills in is not the applier's, and comes back when it is dropped."""
    obj = deployment(namespace)
    obj["spec"]["strategy"] = {"type": "Recreate"}
    made = cluster.apply(obj)
    assert made["spec"]["revisionHistoryLimit"] == 10
    assert "f:revisionHistoryLimit" not in managers(made)["refloat", "Apply"]["f:spec"]
    assert cluster.apply(deployment(namespace))["spec"]["strategy"]["type"] == "RollingUpdate"


def test_finalizers_are_a_set(cluster: Cluster, namespace: str) -> None:
    """Each manager adds its own and removes only that."""
    first, second = config_map(namespace, "one"), config_map(namespace, "one")
    first["metadata"]["finalizers"], second["metadata"]["finalizers"] = ["a.io/x"], ["b.io/y"]
    cluster.apply(first, manager="first")
    assert cluster.apply(second, manager="second")["metadata"]["finalizers"] == ["a.io/x", "b.io/y"]
    assert cluster.apply(config_map(namespace, "one"), manager="first")["metadata"]["finalizers"] == ["b.io/y"]
    assert "finalizers" not in cluster.apply(config_map(namespace, "one"), manager="second")["metadata"]


def test_applying_to_that_very_object_only(cluster: Cluster, namespace: str) -> None:
    """Another uid in the applied object is invalid, a stale version a conflict."""
    made = cluster.apply(config_map(namespace, "one", a="1"))
    wrong = config_map(namespace, "one", a="2")
    wrong["metadata"]["uid"] = "0000"
    with pytest.raises(Rejected, match=r"metadata\.uid"):
        cluster.apply(wrong)
    newer = cluster.apply(config_map(namespace, "one", a="2"))
    stale = config_map(namespace, "one", a="3")
    stale["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"]
    with pytest.raises(Conflict):
        cluster.apply(stale)
    stale["metadata"]["resourceVersion"] = newer["metadata"]["resourceVersion"]
    assert cluster.apply(stale)["data"] == {"a": "3"}


def test_secrets_may_be_applied_in_clear(cluster: Cluster, namespace: str) -> None:
    """stringData of an apply becomes data."""
    meta = {"name": "one", "namespace": namespace}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"a": "1"}}
    assert cluster.apply(secret)["data"] == {"a": "MQ=="}
    assert cluster.apply(secret | {"stringData": {"a": "2"}})["data"] == {"a": "Mg=="}


def test_what_cannot_be_applied(cluster: Cluster, namespace: str) -> None:
    """No manager, an unknown namespace, somebody's managedFields: each refused."""
    path = f"/api/v1/namespaces/{namespace}/configmaps/one"
    with pytest.raises(Rejected, match="fieldManager"):
        cluster._transport.call(
            "PATCH", path, body=config_map(namespace, "one"), content="application/apply-patch+yaml"
        )
    with pytest.raises(ObjectMissing):
        cluster.apply(config_map("refloat-test-no-such-namespace", "one"))
    owned = config_map(namespace, "one")
    owned["metadata"]["managedFields"] = [{"manager": "x", "operation": "Apply"}]
    with pytest.raises(Rejected, match="managedFields"):
        cluster.apply(owned)
