"""Namespaces and owners: what is born with a namespace, what dies with it, and what dies with its owner."""

from __future__ import annotations

import pytest

from kube.cluster import Cluster
from refloat.errors import Forbidden, ObjectMissing
from tests.contract.given import Object, config_map, until, until_gone


def test_a_namespace_is_born_with_an_account_and_a_bundle(cluster: Cluster, namespace: str) -> None:
    """And bears its own name as a label."""
    until(cluster, "ServiceAccount", "default", namespace, lambda _: True, "default account")
    until(cluster, "ConfigMap", "kube-root-ca.crt", namespace, lambda obj: "ca.crt" in obj["data"], "bundle")
    home = cluster.get("Namespace", namespace)
    assert home["metadata"]["labels"]["kubernetes.io/metadata.name"] == namespace
    assert home["status"]["phase"] == "Active"


def test_the_born_objects_come_back(cluster: Cluster, namespace: str) -> None:
    """Whoever deletes the default account gets a new one."""
    old = until(cluster, "ServiceAccount", "default", namespace, lambda _: True, "default account")
    cluster.delete("ServiceAccount", "default", namespace)
    until(
        cluster, "ServiceAccount", "default", namespace,
        lambda obj: obj["metadata"]["uid"] != old["metadata"]["uid"], "a new default account",
    )  # fmt: skip


def test_everything_dies_with_the_namespace(cluster: Cluster, namespace: str) -> None:
    """The cascade waits for finalizers; meanwhile nothing new may come, and the refusal says why."""
    held = config_map(namespace, "held")
    held["metadata"]["finalizers"] = ["refloat.io/test"]
    cluster.create(held)
    cluster.create(config_map(namespace, "free"))
    assert cluster.delete("Namespace", namespace)
    until_gone(cluster, "ConfigMap", "free", namespace)
    home = cluster.get("Namespace", namespace)
    assert home["status"]["phase"] == "Terminating" and home["metadata"]["deletionTimestamp"]
    with pytest.raises(Forbidden, match="being terminated"):
        cluster.create(config_map(namespace, "late"))
    with pytest.raises(Forbidden, match="being terminated"):
        cluster.apply(config_map(namespace, "late"))
    cluster.patch("ConfigMap", "held", namespace, {"metadata": {"finalizers": None}})
    until_gone(cluster, "Namespace", namespace)
    with pytest.raises(ObjectMissing):
        cluster.create(config_map(namespace, "later"))
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})


def owned(namespace: str, name: str, owner: Object, *, blocks: bool = False) -> Object:
    """A ConfigMap that another one owns."""
    obj, meta = config_map(namespace, name), owner["metadata"]
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": meta["name"], "uid": meta["uid"]}
    obj["metadata"]["ownerReferences"] = [reference | ({"blockOwnerDeletion": True} if blocks else {})]
    return obj


def test_background_deletion(cluster: Cluster, namespace: str) -> None:
    """The owner goes at once, what it owned soon after, down the chain."""
    owner = cluster.create(config_map(namespace, "owner"))
    child = cluster.create(owned(namespace, "child", owner))
    cluster.create(owned(namespace, "grandchild", child))
    cluster.delete("ConfigMap", "owner", namespace)
    assert cluster.find("ConfigMap", "owner", namespace) is None
    until_gone(cluster, "ConfigMap", "grandchild", namespace)
    assert cluster.find("ConfigMap", "child", namespace) is None


def test_foreground_deletion(cluster: Cluster, namespace: str) -> None:
    """The owner stays, marked, until what blocks it is gone."""
    owner = cluster.create(config_map(namespace, "owner"))
    child = owned(namespace, "child", owner, blocks=True)
    child["metadata"]["finalizers"] = ["refloat.io/test"]
    cluster.create(child)
    cluster.delete("ConfigMap", "owner", namespace, propagation="Foreground")
    marked = until(
        cluster, "ConfigMap", "child", namespace, lambda obj: "deletionTimestamp" in obj["metadata"], "child marked"
    )
    assert marked["metadata"]["name"] == "child"
    waiting = cluster.get("ConfigMap", "owner", namespace)["metadata"]
    assert waiting["finalizers"] == ["foregroundDeletion"] and waiting["deletionTimestamp"]
    cluster.patch("ConfigMap", "child", namespace, {"metadata": {"finalizers": None}})
    until_gone(cluster, "ConfigMap", "owner", namespace)


def test_orphans(cluster: Cluster, namespace: str) -> None:
    """The owner goes; what it owned stays and names it no more."""
    owner = cluster.create(config_map(namespace, "owner"))
    cluster.create(owned(namespace, "child", owner))
    cluster.delete("ConfigMap", "owner", namespace, propagation="Orphan")
    until_gone(cluster, "ConfigMap", "owner", namespace)
    assert "ownerReferences" not in cluster.get("ConfigMap", "child", namespace)["metadata"]


def test_an_owner_that_is_not_there(cluster: Cluster, namespace: str) -> None:
    """What names an absent owner is collected: recovered objects must not carry old uids."""
    owner = cluster.create(config_map(namespace, "owner"))
    stale = {"metadata": owner["metadata"] | {"uid": "11111111-2222-3333-4444-555555555555"}}
    cluster.create(owned(namespace, "stray", stale))
    until_gone(cluster, "ConfigMap", "stray", namespace)
    assert cluster.find("ConfigMap", "owner", namespace) is not None
