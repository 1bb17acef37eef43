"""Claims and volumes: binding, protection, reclaiming, and moving a volume from one claim to another."""

from __future__ import annotations

from typing import Any

import pytest

from kube.cluster import Cluster
from refloat.errors import Rejected
from tests.contract.given import claim, is_bound, pod, run_pod, sh, start, unique, until, until_gone

Object = dict[str, Any]
CLAIM, VOLUME = "PersistentVolumeClaim", "PersistentVolume"


def bound(cluster: Cluster, namespace: str, name: str) -> tuple[Object, Object]:
    """A claim of this name once it is bound, and its volume."""
    obj = until(cluster, CLAIM, name, namespace, is_bound, f"{name} bound")
    return obj, cluster.get(VOLUME, obj["spec"]["volumeName"])


def used(cluster: Cluster, namespace: str, name: str, script: str = "") -> tuple[Object, Object]:
    """A new claim that a pod uses, or has used after it is removed by ``script``."""
    cluster.create(claim(namespace, name))
    run_pod(cluster, pod(namespace, f"use-{name}", claims={"/data": name}))
    if script:
        sh(cluster, namespace, f"use-{name}", script)
    return bound(cluster, namespace, name)


def stop(cluster: Cluster, namespace: str, name: str) -> None:
    """Remove the pod that uses a claim."""
    cluster.delete("Pod", f"use-{name}", namespace)
    until_gone(cluster, "Pod", f"use-{name}", namespace)


def test_a_claim_waits_for_its_first_consumer(cluster: Cluster, namespace: str) -> None:
    """Then both sides name each other."""
    made = cluster.create(claim(namespace, "c"))
    assert made["status"]["phase"] == "Pending" and made["spec"]["volumeMode"] == "Filesystem"
    assert made["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    run_pod(cluster, pod(namespace, "p", claims={"/data": "c"}))
    after, volume = bound(cluster, namespace, "c")
    assert after["spec"]["storageClassName"] == volume["spec"]["storageClassName"]
    assert after["status"]["capacity"] == volume["spec"]["capacity"]
    assert volume["spec"]["claimRef"]["uid"] == made["metadata"]["uid"]
    assert volume["spec"]["csi"]["driver"] and volume["spec"]["csi"]["volumeHandle"]
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete" and volume["status"]["phase"] == "Bound"
    assert "kubernetes.io/pv-protection" in volume["metadata"]["finalizers"]


def test_data_outlives_pods(cluster: Cluster, namespace: str) -> None:
    """And is the same for the next."""
    used(cluster, namespace, "c", "echo kept > /data/file")
    stop(cluster, namespace, "c")
    run_pod(cluster, pod(namespace, "next", claims={"/data": "c"}))
    assert sh(cluster, namespace, "next", "cat /data/file") == "kept\n"


def test_a_claim_in_use_stays_until_its_pod_goes(cluster: Cluster, namespace: str) -> None:
    """pvc-protection; then claim and volume go, by reclaim policy Delete."""
    _, volume = used(cluster, namespace, "c")
    cluster.delete(CLAIM, "c", namespace)
    assert cluster.get(CLAIM, "c", namespace)["metadata"]["deletionTimestamp"]
    assert sh(cluster, namespace, "use-c", "echo still > /data/file; cat /data/file") == "still\n"
    cluster.delete("Pod", "use-c", namespace)
    until_gone(cluster, CLAIM, "c", namespace)
    until_gone(cluster, VOLUME, volume["metadata"]["name"])


def test_a_class_that_does_not_exist(cluster: Cluster, namespace: str) -> None:
    """The claim waits; nothing is guessed."""
    cluster.create(claim(namespace, "c", storageClassName="refloat-test-none"))
    start(cluster, pod(namespace, "p", claims={"/data": "c"}))
    until(cluster, "Pod", "p", namespace, lambda obj: bool(obj["status"].get("conditions")), "looked at")
    assert cluster.get(CLAIM, "c", namespace)["status"]["phase"] == "Pending"


def test_what_may_not_change_in_a_claim(cluster: Cluster, namespace: str) -> None:
    """Class, mode and source."""
    cluster.create(claim(namespace, "c"))
    for change in ({"storageClassName": "other"}, {"accessModes": ["ReadWriteMany"]}):
        with pytest.raises(Rejected, match="immutable"):
            cluster.patch(CLAIM, "c", namespace, {"spec": change})


def test_a_volume_is_handed_from_one_claim_to_another(cluster: Cluster, namespace: str) -> None:
    """Retain, delete the first claim, reserve for the second by claimRef: the data moves, even between namespaces."""
    other = unique("other")
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other}})
    try:
        _, volume = used(cluster, other, "first", "echo moved > /data/file")
        name = volume["metadata"]["name"]
        cluster.patch(VOLUME, name, None, {"spec": {"persistentVolumeReclaimPolicy": "Retain"}})
        stop(cluster, other, "first")
        cluster.delete(CLAIM, "first", other)
        until_gone(cluster, CLAIM, "first", other)
        until(cluster, VOLUME, name, None, lambda obj: obj["status"]["phase"] == "Released", "released")
        reference = {"kind": CLAIM, "apiVersion": "v1", "namespace": namespace, "name": "second"}
        cluster.patch(VOLUME, name, None, {"spec": {"claimRef": {**reference, "uid": None, "resourceVersion": None}}})
        until(cluster, VOLUME, name, None, lambda obj: obj["status"]["phase"] == "Available", "available")
        storage_class = volume["spec"]["storageClassName"]
        cluster.create(claim(namespace, "second", volumeName=name, storageClassName=storage_class))
        after, volume = bound(cluster, namespace, "second")
        assert volume["metadata"]["name"] == name
        assert volume["spec"]["claimRef"]["uid"] == after["metadata"]["uid"]
        cluster.patch(VOLUME, name, None, {"spec": {"persistentVolumeReclaimPolicy": "Delete"}})
        run_pod(cluster, pod(namespace, "p", claims={"/data": "second"}))
        assert sh(cluster, namespace, "p", "cat /data/file") == "moved\n"
    finally:
        cluster.delete("Namespace", other)


def test_a_retained_volume_stays_when_its_claim_is_gone(cluster: Cluster, namespace: str) -> None:
    """Released, for nobody else: a new claim of the same name does not get it by itself."""
    _, volume = used(cluster, namespace, "c")
    name = volume["metadata"]["name"]
    cluster.patch(VOLUME, name, None, {"spec": {"persistentVolumeReclaimPolicy": "Retain"}})
    stop(cluster, namespace, "c")
    cluster.delete(CLAIM, "c", namespace)
    until(cluster, VOLUME, name, None, lambda obj: obj["status"]["phase"] == "Released", "released")
    _, second = used(cluster, namespace, "c")
    assert second["metadata"]["name"] != name
    cluster.patch(VOLUME, name, None, {"spec": {"persistentVolumeReclaimPolicy": "Delete"}})
    until_gone(cluster, VOLUME, name)


def test_a_volume_made_by_hand_for_one_claim(cluster: Cluster, namespace: str) -> None:
    """A PersistentVolume reserved by claimRef waits for that claim, and binds at once when it comes."""
    _, volume = used(cluster, namespace, "c", "echo by hand > /data/file")
    name = unique("pv")
    spec = {field: volume["spec"][field] for field in ("capacity", "accessModes", "csi", "storageClassName")}
    spec["csi"] = {field: spec["csi"][field] for field in ("driver", "volumeHandle")}
    spec |= {"persistentVolumeReclaimPolicy": "Retain", "claimRef": {"namespace": namespace, "name": "twin"}}
    cluster.create({"apiVersion": "v1", "kind": VOLUME, "metadata": {"name": name}, "spec": spec})
    try:
        until(cluster, VOLUME, name, None, lambda obj: obj["status"].get("phase") == "Available", "available")
        cluster.create(claim(namespace, "other", storageClassName=volume["spec"]["storageClassName"]))
        cluster.create(claim(namespace, "twin", storageClassName=volume["spec"]["storageClassName"]))
        assert bound(cluster, namespace, "twin")[1]["metadata"]["name"] == name
        assert cluster.get(CLAIM, "other", namespace)["status"]["phase"] == "Pending"
    finally:
        cluster.delete(CLAIM, "twin", namespace)
        cluster.delete(VOLUME, name)
    until_gone(cluster, VOLUME, name)
    assert sh(cluster, namespace, "use-c", "cat /data/file") == "by hand\n"


def test_a_bound_volume_is_protected(cluster: Cluster, namespace: str) -> None:
    """Deleting it only marks it while its claim lives."""
    _, volume = used(cluster, namespace, "c")
    name = volume["metadata"]["name"]
    cluster.delete(VOLUME, name)
    assert cluster.get(VOLUME, name)["metadata"]["deletionTimestamp"]
    assert cluster.get(CLAIM, "c", namespace)["status"]["phase"] == "Bound"
    stop(cluster, namespace, "c")
    cluster.delete(CLAIM, "c", namespace)
    until_gone(cluster, VOLUME, name)


def test_one_pod_with_two_claims(cluster: Cluster, namespace: str) -> None:
    """Each path its own volume."""
    for name in ("a", "b"):
        cluster.create(claim(namespace, name))
    run_pod(cluster, pod(namespace, "p", claims={"/data": "a", "/data2": "b"}))
    sh(cluster, namespace, "p", "echo a > /data/f; echo b > /data2/f")
    assert sh(cluster, namespace, "p", "cat /data/f /data2/f") == "a\nb\n"
