"""What every API server does with any object: identity, versions, conflicts, patches, selectors, pages."""

from __future__ import annotations

import base64
import json

import pytest

from kube.cluster import Cluster
from refloat.errors import Conflict, Expired, ObjectExists, ObjectMissing, Rejected
from tests.contract.given import condition, config_map, names, until

MAPS = "/api/v1/namespaces/{}/configmaps"


def test_creation_gives_identity(cluster: Cluster, namespace: str) -> None:
    """uid, version and time are the server's; what is read is what was answered."""
    made = cluster.create(config_map(namespace, "one", key="value"))
    assert made["metadata"]["uid"] and made["metadata"]["resourceVersion"]
    assert made["metadata"]["creationTimestamp"].endswith("Z")
    assert "labels" not in made["metadata"]
    assert cluster.get("ConfigMap", "one", namespace) == made


def test_a_taken_name_and_an_absent_one(cluster: Cluster, namespace: str) -> None:
    """409 AlreadyExists and 404, which are not the same as other failures."""
    cluster.create(config_map(namespace, "one"))
    with pytest.raises(ObjectExists, match='"one" already exists'):
        cluster.create(config_map(namespace, "one"))
    with pytest.raises(ObjectMissing, match='configmaps "two" not found'):
        cluster.get("ConfigMap", "two", namespace)
    assert cluster.find("ConfigMap", "two", namespace) is None
    assert cluster.delete("ConfigMap", "two", namespace) is False
    with pytest.raises(ObjectMissing, match="namespaces"):
        cluster.create(config_map("refloat-test-no-such-namespace", "one"))


def test_a_recreated_object_is_another_one(cluster: Cluster, namespace: str) -> None:
    """The name may come back, the uid does not."""
    first = cluster.create(config_map(namespace, "one"))
    assert cluster.delete("ConfigMap", "one", namespace)
    assert cluster.create(config_map(namespace, "one"))["metadata"]["uid"] != first["metadata"]["uid"]


def test_a_stale_put_is_refused(cluster: Cluster, namespace: str) -> None:
    """Optimistic locking by resourceVersion; without one the last writer wins."""
    old = cluster.create(config_map(namespace, "one", key="a"))
    new = cluster.replace(old | {"data": {"key": "b"}})
    assert int(new["metadata"]["resourceVersion"]) > int(old["metadata"]["resourceVersion"])
    with pytest.raises(Conflict, match="the object has been modified"):
        cluster.replace(old | {"data": {"key": "c"}})
    del old["metadata"]["resourceVersion"]
    assert cluster.replace(old | {"data": {"key": "d"}})["data"] == {"key": "d"}


def test_a_put_for_another_uid_is_refused(cluster: Cluster, namespace: str) -> None:
    """Whoever remembers a uid never overwrites a successor of the same name."""
    made = cluster.create(config_map(namespace, "one"))
    other = made | {"metadata": {"name": "one", "namespace": namespace, "uid": "0000"}}
    with pytest.raises(Conflict, match="UID"):
        cluster.replace(other)


def test_writing_the_same_again_changes_nothing(cluster: Cluster, namespace: str) -> None:
    """A write without a difference keeps the version, so watchers are not woken."""
    made = cluster.create(config_map(namespace, "one", key="a"))
    assert cluster.replace(made)["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    patched = cluster.patch("ConfigMap", "one", namespace, {"data": {"key": "a"}})
    assert patched["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


def test_generated_names(cluster: Cluster, namespace: str) -> None:
    """generateName gets five more characters."""
    obj = config_map(namespace, "")
    obj["metadata"] = {"namespace": namespace, "generateName": "some-"}
    made = [cluster.create(obj)["metadata"]["name"] for _ in range(2)]
    assert all(name.startswith("some-") and len(name) == 10 for name in made) and made[0] != made[1]


@pytest.mark.parametrize("meta", [{"name": "No_Good"}, {"name": "one", "labels": {"a": "not/good"}}, {}])
def test_malformed_metadata_is_refused(cluster: Cluster, namespace: str, meta: dict[str, object]) -> None:
    """422 before anything is stored."""
    with pytest.raises(Rejected, match="metadata"):
        cluster.create(config_map(namespace, "x") | {"metadata": {"namespace": namespace, **meta}})
    assert names(cluster.list("ConfigMap", namespace)) in ([], ["kube-root-ca.crt"])


def test_merge_patches(cluster: Cluster, namespace: str) -> None:
    """RFC 7386: maps merge, null removes."""
    cluster.create(config_map(namespace, "one", a="1", b="2"))
    patched = cluster.patch("ConfigMap", "one", namespace, {"data": {"a": None, "c": "3"}})
    assert patched["data"] == {"b": "2", "c": "3"}
    with pytest.raises(ObjectMissing):
        cluster.patch("ConfigMap", "two", namespace, {"data": {}})


def test_json_patches(cluster: Cluster, namespace: str) -> None:
    """RFC 6902: all or nothing; a failed test refuses the whole patch."""
    obj = config_map(namespace, "one", a="1")
    obj["metadata"]["annotations"] = {"refloat.io/x": "1"}
    cluster.create(obj)
    steps = [
        {"op": "test", "path": "/data/a", "value": "1"},
        {"op": "replace", "path": "/metadata/annotations/refloat.io~1x", "value": "2"},
        {"op": "add", "path": "/data/b", "value": "2"},
        {"op": "remove", "path": "/data/a"},
    ]
    patched = cluster.patch("ConfigMap", "one", namespace, steps)
    assert (patched["data"], patched["metadata"]["annotations"]) == ({"b": "2"}, {"refloat.io/x": "2"})
    steps = [{"op": "add", "path": "/data/d", "value": "3"}, {"op": "test", "path": "/data/b", "value": "x"}]
    with pytest.raises(Rejected):
        cluster.patch("ConfigMap", "one", namespace, steps)
    assert "d" not in cluster.get("ConfigMap", "one", namespace)["data"]


def test_a_dry_run_stores_nothing(cluster: Cluster, namespace: str) -> None:
    """The answer is the object as it would be."""
    assert cluster.create(config_map(namespace, "one", a="1"), dry_run=True)["metadata"]["uid"]
    assert cluster.find("ConfigMap", "one", namespace) is None
    cluster.create(config_map(namespace, "one", a="1"))
    assert cluster.patch("ConfigMap", "one", namespace, {"data": {"a": "2"}}, dry_run=True)["data"] == {"a": "2"}
    assert cluster.get("ConfigMap", "one", namespace)["data"] == {"a": "1"}
    with pytest.raises(ObjectExists):
        cluster.create(config_map(namespace, "one"), dry_run=True)


def test_deleting_only_that_very_object(cluster: Cluster, namespace: str) -> None:
    """A uid precondition protects a successor of the same name."""
    made = cluster.create(config_map(namespace, "one"))
    with pytest.raises(Conflict, match="UID"):
        cluster.delete("ConfigMap", "one", namespace, uid="0000")
    assert cluster.delete("ConfigMap", "one", namespace, uid=made["metadata"]["uid"])
    assert cluster.find("ConfigMap", "one", namespace) is None


def test_finalizers_hold_an_object(cluster: Cluster, namespace: str) -> None:
    """Deletion marks; the object goes when its last finalizer does, and can gain no new one meanwhile."""
    obj = config_map(namespace, "one")
    obj["metadata"]["finalizers"] = ["refloat.io/test"]
    made = cluster.create(obj)
    assert cluster.delete("ConfigMap", "one", namespace)
    marked = cluster.get("ConfigMap", "one", namespace)
    assert marked["metadata"]["uid"] == made["metadata"]["uid"] and marked["metadata"]["deletionTimestamp"]
    with pytest.raises(Rejected, match="finalizers"):
        cluster.patch("ConfigMap", "one", namespace, {"metadata": {"finalizers": ["refloat.io/test", "a.io/b"]}})
    with pytest.raises(ObjectExists):
        cluster.create(config_map(namespace, "one"))
    cluster.patch("ConfigMap", "one", namespace, {"metadata": {"finalizers": None}})
    assert cluster.find("ConfigMap", "one", namespace) is None


@pytest.mark.parametrize(
    ("selector", "chosen"),
    [
        ("app=pg", ["a", "b"]),
        ("app==pg,tier!=db", ["b"]),
        ("app in (pg, web)", ["a", "b", "c"]),
        ("app notin (pg)", ["c", "d"]),
        ("tier", ["a"]),
        ("!app", ["d"]),
        ("app=pg,!tier", ["b"]),
        ("app=nothing", []),
    ],
)
def test_label_selectors(cluster: Cluster, namespace: str, selector: str, chosen: list[str]) -> None:
    """Equality and sets, all of which must hold; != and notin also choose what lacks the label."""
    for name, labels in {"a": {"app": "pg", "tier": "db"}, "b": {"app": "pg"}, "c": {"app": "web"}, "d": {}}.items():
        cluster.create(config_map(namespace, name, labels | {"mine": "yes"}))
    assert names(cluster.list("ConfigMap", namespace, labels=f"mine=yes,{selector}")) == chosen


def test_a_selector_that_cannot_be_read(cluster: Cluster, namespace: str) -> None:
    """400, never all or nothing."""
    with pytest.raises(Rejected):
        list(cluster.list("ConfigMap", namespace, labels="app in (a"))


def test_field_selectors(cluster: Cluster, namespace: str) -> None:
    """By name; a field the server has no index for is refused."""
    cluster.create(config_map(namespace, "a"))
    cluster.create(config_map(namespace, "b"))
    assert names(cluster.list("ConfigMap", namespace, fields="metadata.name=b")) == ["b"]
    assert "a" in names(cluster.list("ConfigMap", namespace, fields="metadata.name!=b"))
    with pytest.raises(Rejected, match="not a known field selector"):
        list(cluster.list("ConfigMap", namespace, fields="data.key=b"))
    with pytest.raises(Rejected, match="field label not supported"):
        list(cluster.list("Pod", namespace, fields="spec.containers=b"))


def test_pages_are_of_one_instant(cluster: Cluster, namespace: str) -> None:
    """What is made between two pages is in none of them."""
    for name in ("a", "b", "c", "e"):
        cluster.create(config_map(namespace, name, {"mine": "yes"}))
    path = MAPS.format(namespace)
    first = cluster._transport.call("GET", path, query={"limit": 2, "labelSelector": "mine=yes"})
    assert names(first["items"]) == ["a", "b"]
    cluster.create(config_map(namespace, "d", {"mine": "yes"}))
    token = first["metadata"]["continue"]
    rest = cluster._transport.call("GET", path, query={"limit": 5, "labelSelector": "mine=yes", "continue": token})
    assert names(rest["items"]) == ["c", "e"]
    assert not rest["metadata"].get("continue")
    assert rest["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


def test_a_forged_page_token(cluster: Cluster, namespace: str) -> None:
    """A token that is none is refused (400); `Expired` is for those that were good once."""
    with pytest.raises((Rejected, Expired), match="continue"):
        cluster._transport.call("GET", MAPS.format(namespace), query={"limit": 1, "continue": "nonsense"})


def test_lists_name_no_kinds_but_the_cluster_does(cluster: Cluster, namespace: str) -> None:
    """Items of a built-in list carry neither kind nor apiVersion; `Cluster.list` gives both."""
    made = cluster.create(config_map(namespace, "one", a="1"))
    raw = cluster._transport.call("GET", MAPS.format(namespace))
    assert raw["kind"] == "ConfigMapList" and all("kind" not in item for item in raw["items"])
    assert made in list(cluster.list("ConfigMap", namespace))


def test_secrets_are_stored_encoded(cluster: Cluster, namespace: str) -> None:
    """stringData is for writing only; the type is Opaque unless said."""
    meta = {"name": "one", "namespace": namespace}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"password": "geheim"}}
    made = cluster.create(secret)
    assert made["type"] == "Opaque" and "stringData" not in made
    assert base64.b64decode(made["data"]["password"]) == b"geheim"
    with pytest.raises(Rejected):
        cluster.patch("Secret", "one", namespace, {"type": "other"})


def test_immutable_maps(cluster: Cluster, namespace: str) -> None:
    """Once immutable, the data stays."""
    cluster.create(config_map(namespace, "one", a="1") | {"immutable": True})
    with pytest.raises(Rejected, match="immutable"):
        cluster.patch("ConfigMap", "one", namespace, {"data": {"a": "2"}})
    cluster.patch("ConfigMap", "one", namespace, {"metadata": {"labels": {"x": "y"}}})


def test_a_body_for_another_address(cluster: Cluster, namespace: str) -> None:
    """Kind, name and namespace of the body are those of the address, or it is refused."""
    path = MAPS.format(namespace)
    with pytest.raises(Rejected):
        cluster._transport.call("POST", path, body=config_map("default", "one"))
    with pytest.raises(Rejected):
        cluster._transport.call("POST", path, body=config_map(namespace, "one") | {"kind": "Secret"})
    cluster.create(config_map(namespace, "one"))
    with pytest.raises(Rejected):
        cluster._transport.call("PUT", f"{path}/one", body=config_map(namespace, "two"))


def test_unknown_kinds_and_addresses(cluster: Cluster) -> None:
    """What is not served is missing, not empty."""
    with pytest.raises(ObjectMissing, match="serves no kind"):
        cluster.kind_of("Nothing.example.io")
    with pytest.raises(ObjectMissing):
        cluster._transport.call("GET", "/apis/example.io/v1/nothings")


def test_a_new_kind_is_served_at_once_and_gone_with_its_definition(cluster: Cluster, namespace: str) -> None:
    """CustomResourceDefinitions: discovery follows, the status subresource is apart, deletion takes the objects."""
    group = f"{namespace}.example.io"
    spec = {
        "group": group,
        "scope": "Namespaced",
        "names": {"kind": "Boat", "plural": "boats", "singular": "boat", "listKind": "BoatList"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    }
    kind, definition = "CustomResourceDefinition.apiextensions.k8s.io", f"boats.{group}"
    head = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    cluster.create(head | {"metadata": {"name": definition}, "spec": spec})
    try:
        until(
            cluster, kind, definition, None,
            lambda obj: condition(obj, "Established").get("status") == "True", "definition established",
        )  # fmt: skip
        boat = {"apiVersion": f"{group}/v1", "kind": "Boat", "metadata": {"name": "one", "namespace": namespace}}
        made = cluster.create(boat | {"spec": {"crew": 3}, "status": {"afloat": True}})
        assert made["spec"] == {"crew": 3} and "status" not in made and made["metadata"]["generation"] == 1
        cluster.patch(f"Boat.{group}", "one", namespace, {"status": {"afloat": False}}, subresource="status")
        after = cluster.patch(f"Boat.{group}", "one", namespace, {"spec": {"crew": 4}, "status": {"afloat": True}})
        assert after["status"] == {"afloat": False} and after["metadata"]["generation"] == 2
        assert json.dumps(next(iter(cluster.list(f"Boat.{group}", namespace)))["spec"]) == '{"crew": 4}'
    finally:
        cluster.delete(kind, definition)
