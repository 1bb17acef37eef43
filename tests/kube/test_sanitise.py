"""Sanitising: what the old cluster assigned goes, what the application said stays; equal objects give equal bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kube.cluster import Cluster
from kube.membership import ref_of
from kube.sanitise import is_exported, is_plain_default, manifest_bytes, manifest_path, sanitise
from refloat.inventory import Found, Inventory, Reason
from tests.contract.given import claim, config_map, container, job, pod, run_pod, until, until_phase
from tests.kube import points

Object = dict[str, Any]


def test_what_comes_back_from_a_server_can_be_created_again(cluster: Cluster, namespace: str) -> None:
    """Every kind, as the server completed it: sanitised, removed, and created from its own manifest."""
    until(cluster, "ServiceAccount", "default", namespace, lambda _: True, "default account")
    made = [
        config_map(namespace, "settings", key="value"), points.deployment(), points.stateful_set(), points.service(),
        points.account(), *points.role(), points.cron_job(), job(namespace, "once", "sleep 60"),
        claim(namespace, "data"), pod(namespace, "alone"),
    ]  # fmt: skip
    for obj in made:
        obj["metadata"]["namespace"] = namespace
        for field in ("clusterIP", "clusterIPs"):
            obj.get("spec", {}).pop(field, None)
        for subject in obj.get("subjects", []):
            subject["namespace"] = namespace
        cluster.create(obj)
    run_until_bound(cluster, namespace)
    for obj in made:
        ref = ref_of(obj)
        manifest = json.loads(manifest_bytes(cluster.get(ref.kind, ref.name, namespace)))
        assert not {"uid", "resourceVersion", "managedFields", "creationTimestamp"} & manifest["metadata"].keys()
        assert "status" not in manifest
        manifest["metadata"]["name"] = f"again-{ref.name}"
        again = cluster.create(manifest, dry_run=True)
        assert json.loads(manifest_bytes(again)) == manifest, ref


def run_until_bound(cluster: Cluster, namespace: str) -> None:
    """Let controllers write into what was made: the pod runs on a node, and the claim is bound."""
    until_phase(cluster, "alone", namespace, "Running")
    run_pod(cluster, pod(namespace, "user", claims={"/data": "data"}))
    until(cluster, "PersistentVolumeClaim", "data", namespace, lambda o: o["status"]["phase"] == "Bound", "bound")


def test_a_claim_asks_for_storage_again() -> None:
    """Not for the old volume, nor for the snapshot it came from."""
    obj = claim("shop", "data", volumeName="pvc-1", dataSource={"name": "s"}, dataSourceRef={"name": "s"})
    obj["metadata"]["annotations"] = {"pv.kubernetes.io/bind-completed": "yes", "mine": "kept"}
    obj["metadata"]["finalizers"] = ["kubernetes.io/pvc-protection", "example.org/mine"]
    clean = sanitise(obj)
    assert clean["spec"] == claim("shop", "data")["spec"]
    assert clean["metadata"]["annotations"] == {"mine": "kept"}
    assert clean["metadata"]["finalizers"] == ["example.org/mine"]


@pytest.mark.parametrize(("address", "kept"), [("10.0.0.1", False), ("None", True)])
def test_a_service_gets_new_addresses(address: str, kept: bool) -> None:
    """A headless one stays headless."""
    obj = points.service()
    obj["spec"] |= {"clusterIP": address, "clusterIPs": [address], "healthCheckNodePort": 30001}
    obj["spec"]["ports"] = [{"port": 80, "nodePort": 30000}]
    spec = sanitise(obj)["spec"]
    assert ("clusterIP" in spec) is kept
    assert spec["ports"] == [{"port": 80}]
    assert "healthCheckNodePort" not in spec


def test_a_secret_is_in_no_annotation() -> None:
    """kubectl repeats it in clear in last-applied-configuration."""
    meta = {"name": "s", "namespace": "shop", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "x"}}
    assert sanitise({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": {}})["metadata"] == {
        "name": "s", "namespace": "shop",
    }  # fmt: skip


def test_a_job_loses_the_labels_of_its_old_self() -> None:
    """The server makes selector and labels anew; one that was made by hand stays."""
    labels = {"batch.kubernetes.io/controller-uid": "1", "job-name": "once", "controller-uid": "1", "mine": "kept"}
    obj = job("shop", "once", "true", selector={"matchLabels": {"batch.kubernetes.io/controller-uid": "1"}})
    obj["spec"]["template"]["metadata"]["labels"] = dict(labels)
    clean = sanitise(obj)
    assert "selector" not in clean["spec"]
    assert clean["spec"]["template"]["metadata"]["labels"] == {"mine": "kept"}
    by_hand = sanitise(job("shop", "once", "true", manualSelector=True, selector={"matchLabels": {"mine": "kept"}}))
    assert by_hand["spec"]["selector"] == {"matchLabels": {"mine": "kept"}}


def test_sanitising_changes_no_argument() -> None:
    """The inventory is read by others after the export."""
    obj = points.service()
    before = json.dumps(obj)
    sanitise(obj)
    assert json.dumps(obj) == before


def inventory(*objects: Object) -> Inventory:
    """An inventory of these objects."""
    found = tuple(Found(ref_of(obj), Reason("in the namespace"), obj) for obj in objects)
    return Inventory("shop", found, (), ())


def owned(obj: Object, uid: str, owner: str) -> Object:
    """The object, owned by another one."""
    references = [{"uid": owner, "kind": "X", "name": "x", "apiVersion": "v1"}]
    return {**obj, "metadata": {**obj["metadata"], "uid": uid, "ownerReferences": references}}


def test_what_its_controller_makes_again_is_not_exported() -> None:
    """But for claims and Secrets, which hold what no controller can make again, and what nobody of ours owns."""
    web = points.deployment()
    web["metadata"]["uid"] = "1"
    replica = owned(pod("shop", "web-x"), "2", "1")
    data = owned(claim("shop", "data"), "3", "1")
    stranger = owned(pod("shop", "other"), "4", "not-here")
    everything = inventory(web, replica, data, stranger)
    exported = [each.ref.name for each in everything.objects if is_exported(each, everything)]
    assert exported == ["web", "data", "other"]


def test_what_is_over_is_not_exported() -> None:
    """Pods and Jobs that ended, and an account nobody touched."""
    done = pod("shop", "done") | {"status": {"phase": "Succeeded"}}
    complete = job("shop", "complete", "true") | {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}
    running = job("shop", "running", "true") | {"status": {"conditions": [{"type": "Complete", "status": "False"}]}}
    account = points.account("default")
    everything = inventory(done, complete, running, account)
    assert [each.ref.name for each in everything.objects if is_exported(each, everything)] == ["running"]
    assert is_plain_default(account)
    assert not is_plain_default(account | {"imagePullSecrets": [{"name": "x"}]})
    assert not is_plain_default(points.account("web"))


def test_tokens_of_the_old_cluster_go() -> None:
    """Volume, mounts and node of a bare pod."""
    obj = pod("shop", "alone", nodeName="node-1", priority=0)
    mounts = [{"name": "kube-api-access-abcde", "mountPath": "/token"}]
    obj["spec"]["containers"] = [container("true", volumeMounts=mounts)]
    obj["spec"]["volumes"] = [{"name": "kube-api-access-abcde", "projected": {}}]
    spec = sanitise(obj)["spec"]
    assert not {"nodeName", "priority", "volumes"} & spec.keys()
    assert "volumeMounts" not in spec["containers"][0]


def test_paths_tell_objects_apart() -> None:
    """By namespace, kind with group, and name; a colon in a Role's name is no folder's business."""
    role = points.role()[1]
    role["metadata"]["name"] = "system:web/x"
    assert manifest_path(ref_of(role)) == "objects/shop/Role.rbac.authorization.k8s.io/system%3Aweb%2Fx.json"
    assert manifest_path(ref_of(points.namespace_of_point())) == "objects/_cluster/Namespace/shop.json"


@settings(deadline=None)
@given(data=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=5))
def test_equal_objects_give_equal_bytes(data: dict[str, str]) -> None:
    """Whatever the order of keys; twice sanitised is once sanitised; text survives as it is."""
    one = config_map("shop", "settings") | {"data": data}
    other = dict(reversed(list((one | {"data": dict(reversed(list(data.items())))}).items())))
    assert manifest_bytes(one) == manifest_bytes(other) == manifest_bytes(json.loads(manifest_bytes(one)))
    assert json.loads(manifest_bytes(one))["data"] == data
    assert manifest_bytes(one).endswith(b"}\n")
