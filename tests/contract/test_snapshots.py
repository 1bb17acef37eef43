"""Snapshots of volumes, alone and in groups: cut, ready, restored, bound by hand, deleted by policy."""

from __future__ import annotations

from typing import Any

import pytest

from kube.cluster import Cluster
from refloat.errors import Rejected
from tests.contract.given import claim, is_bound, names, pod, run_pod, sh, unique, until, until_gone, until_phase

Object = dict[str, Any]
GROUP = "snapshot.storage.k8s.io"
SNAPSHOT, CONTENT = f"VolumeSnapshot.{GROUP}", f"VolumeSnapshotContent.{GROUP}"
SETS = "groupsnapshot.storage.k8s.io"
GROUP_SNAPSHOT, GROUP_CONTENT = f"VolumeGroupSnapshot.{SETS}", f"VolumeGroupSnapshotContent.{SETS}"


def class_of(cluster: Cluster, kind: str) -> str:
    """The first class of a kind."""
    return names(cluster.list(kind))[0]


def snapshot(cluster: Cluster, namespace: str, name: str, **source: str) -> Object:
    """Create a VolumeSnapshot."""
    spec: Object = {"source": source}
    if "persistentVolumeClaimName" in source:
        spec["volumeSnapshotClassName"] = class_of(cluster, f"VolumeSnapshotClass.{GROUP}")
    meta = {"name": name, "namespace": namespace}
    return cluster.create({"apiVersion": f"{GROUP}/v1", "kind": "VolumeSnapshot", "metadata": meta, "spec": spec})


def until_ready(cluster: Cluster, kind: str, name: str, namespace: str | None) -> Object:
    """The snapshot, content or group once it is ready to use."""
    return until(
        cluster, kind, name, namespace, lambda obj: bool((obj.get("status") or {}).get("readyToUse")), f"{name} ready"
    )


def written(cluster: Cluster, namespace: str, claims: dict[str, str], text: str = "at the cut") -> None:
    """Claims in use by a pod that has written into each."""
    for name in claims.values():
        cluster.create(claim(namespace, name, {"set": "one"}))
    run_pod(cluster, pod(namespace, "writer", claims=claims))
    for path in claims:
        sh(cluster, namespace, "writer", f"echo '{text}' > {path}/file; sync")


def restored(cluster: Cluster, namespace: str, name: str, source: str) -> str:
    """What the file holds in a claim filled from a snapshot."""
    reference = {"apiGroup": GROUP, "kind": "VolumeSnapshot", "name": source}
    cluster.create(claim(namespace, name, dataSource=reference))
    run_pod(cluster, pod(namespace, f"read-{name}", claims={"/data": name}))
    return sh(cluster, namespace, f"read-{name}", "cat /data/file").strip()


def test_a_snapshot_is_of_one_instant(cluster: Cluster, namespace: str) -> None:
    """What is written afterwards is not in it; its content says where it lies and whose it is."""
    written(cluster, namespace, {"/data": "c"})
    made = snapshot(cluster, namespace, "s", persistentVolumeClaimName="c")
    ready = until_ready(cluster, SNAPSHOT, "s", namespace)
    sh(cluster, namespace, "writer", "echo later > /data/file")
    content = cluster.get(CONTENT, ready["status"]["boundVolumeSnapshotContentName"])
    assert content["spec"]["volumeSnapshotRef"]["uid"] == made["metadata"]["uid"]
    assert content["spec"]["deletionPolicy"] == "Delete" and content["status"]["snapshotHandle"]
    bound = cluster.get("PersistentVolumeClaim", "c", namespace)
    volume = cluster.get("PersistentVolume", bound["spec"]["volumeName"])
    assert content["spec"]["source"] == {"volumeHandle": volume["spec"]["csi"]["volumeHandle"]}
    assert content["spec"]["driver"] == volume["spec"]["csi"]["driver"]
    assert ready["status"]["creationTime"] and ready["status"]["restoreSize"]
    assert isinstance(content["status"]["creationTime"], int) and isinstance(content["status"]["restoreSize"], int)
    assert restored(cluster, namespace, "copy", "s") == "at the cut"


def test_a_deleted_snapshot_takes_its_content_along(cluster: Cluster, namespace: str) -> None:
    """By deletion policy Delete."""
    written(cluster, namespace, {"/data": "c"})
    snapshot(cluster, namespace, "s", persistentVolumeClaimName="c")
    content = until_ready(cluster, SNAPSHOT, "s", namespace)["status"]["boundVolumeSnapshotContentName"]
    cluster.delete(SNAPSHOT, "s", namespace)
    until_gone(cluster, SNAPSHOT, "s", namespace)
    until_gone(cluster, CONTENT, content)


def test_a_snapshot_moves_to_another_namespace_by_hand(cluster: Cluster, namespace: str) -> None:
    """Retain, a static content on the same handle, a snapshot that names it: restored there; Delete ends the data."""
    other, twin = unique("other"), unique("content")
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other}})
    try:
        written(cluster, namespace, {"/data": "c"})
        snapshot(cluster, namespace, "s", persistentVolumeClaimName="c")
        name = until_ready(cluster, SNAPSHOT, "s", namespace)["status"]["boundVolumeSnapshotContentName"]
        content = cluster.patch(CONTENT, name, None, {"spec": {"deletionPolicy": "Retain"}})
        cluster.delete(SNAPSHOT, "s", namespace)
        until_gone(cluster, SNAPSHOT, "s", namespace)
        assert "deletionTimestamp" not in cluster.get(CONTENT, name)["metadata"]
        spec = {
            "deletionPolicy": "Retain",
            "driver": content["spec"]["driver"],
            "source": {"snapshotHandle": content["status"]["snapshotHandle"]},
            "volumeSnapshotRef": {"namespace": other, "name": "s"},
            "volumeSnapshotClassName": content["spec"]["volumeSnapshotClassName"],
        }
        cluster.create(
            {"apiVersion": f"{GROUP}/v1", "kind": "VolumeSnapshotContent", "metadata": {"name": twin}, "spec": spec}
        )
        made = snapshot(cluster, other, "s", volumeSnapshotContentName=twin)
        assert until_ready(cluster, SNAPSHOT, "s", other)["status"]["boundVolumeSnapshotContentName"] == twin
        assert cluster.get(CONTENT, twin)["spec"]["volumeSnapshotRef"]["uid"] == made["metadata"]["uid"]
        assert restored(cluster, other, "copy", "s") == "at the cut"
        cluster.delete(SNAPSHOT, "s", other)
        until_gone(cluster, SNAPSHOT, "s", other)
        assert cluster.delete(CONTENT, twin)
        until_gone(cluster, CONTENT, twin)
        cluster.patch(CONTENT, name, None, {"spec": {"deletionPolicy": "Delete"}})
        cluster.delete(CONTENT, name)
        until_gone(cluster, CONTENT, name)
    finally:
        cluster.delete("Namespace", other)


def test_a_content_for_another_snapshot_is_not_taken(cluster: Cluster, namespace: str) -> None:
    """The reference must be mutual."""
    name = unique("content")
    driver = cluster.get(f"VolumeSnapshotClass.{GROUP}", class_of(cluster, f"VolumeSnapshotClass.{GROUP}"))["driver"]
    spec = {
        "deletionPolicy": "Retain",
        "driver": driver,
        "source": {"snapshotHandle": "no-such-handle"},
        "volumeSnapshotRef": {"namespace": namespace, "name": "theirs"},
    }
    cluster.create(
        {"apiVersion": f"{GROUP}/v1", "kind": "VolumeSnapshotContent", "metadata": {"name": name}, "spec": spec}
    )
    try:
        snapshot(cluster, namespace, "mine", volumeSnapshotContentName=name)
        obj = until(
            cluster, SNAPSHOT, "mine", namespace, lambda obj: bool((obj.get("status") or {}).get("error")), "refused"
        )
        assert not obj["status"].get("readyToUse")
    finally:
        cluster.delete(SNAPSHOT, "mine", namespace)
        cluster.delete(CONTENT, name)
    until_gone(cluster, CONTENT, name)


def test_a_snapshot_of_an_unbound_claim_waits_and_says_so(cluster: Cluster, namespace: str) -> None:
    """An error in its status, and a snapshot once the claim is bound."""
    cluster.create(claim(namespace, "c"))
    snapshot(cluster, namespace, "s", persistentVolumeClaimName="c")
    obj = until(cluster, SNAPSHOT, "s", namespace, lambda obj: bool((obj.get("status") or {}).get("error")), "error")
    assert obj["status"]["readyToUse"] is False and "bound" in obj["status"]["error"]["message"]


def test_the_source_of_a_snapshot_is_immutable(cluster: Cluster, namespace: str) -> None:
    """422."""
    cluster.create(claim(namespace, "c"))
    snapshot(cluster, namespace, "s", persistentVolumeClaimName="c")
    with pytest.raises(Rejected):
        cluster.patch(SNAPSHOT, "s", namespace, {"spec": {"source": {"persistentVolumeClaimName": "d"}}})


def test_a_claim_too_small_for_its_snapshot(cluster: Cluster, namespace: str) -> None:
    """It stays Pending."""
    written(cluster, namespace, {"/data": "c"})
    snapshot(cluster, namespace, "s", persistentVolumeClaimName="c")
    until_ready(cluster, SNAPSHOT, "s", namespace)
    reference = {"apiGroup": GROUP, "kind": "VolumeSnapshot", "name": "s"}
    small = claim(namespace, "small", dataSource=reference)
    small["spec"]["resources"]["requests"]["storage"] = "1Mi"
    cluster.create(small)
    cluster.create(claim(namespace, "large", dataSource=reference))
    cluster.create(pod(namespace, "one", claims={"/data": "small"}))
    cluster.create(pod(namespace, "two", claims={"/data": "large"}))
    until_phase(cluster, "two", namespace, "Running")
    assert cluster.get("PersistentVolumeClaim", "small", namespace)["status"]["phase"] == "Pending"


def group(cluster: Cluster, namespace: str, name: str, **labels: str) -> Object:
    """Create a VolumeGroupSnapshot of the claims with these labels."""
    chosen = class_of(cluster, f"VolumeGroupSnapshotClass.{SETS}")
    spec = {"volumeGroupSnapshotClassName": chosen, "source": {"selector": {"matchLabels": labels}}}
    meta = {"name": name, "namespace": namespace}
    return cluster.create({"apiVersion": f"{SETS}/v1", "kind": "VolumeGroupSnapshot", "metadata": meta, "spec": spec})


def members(cluster: Cluster, namespace: str, made: Object) -> dict[str, Object]:
    """The snapshots of a group by the claim each is of, by way of the volume handles of their contents."""
    found: dict[str, Object] = {}
    handles = {}
    for each in cluster.list("PersistentVolumeClaim", namespace):
        if is_bound(each):
            volume = cluster.get("PersistentVolume", each["spec"]["volumeName"])
            handles[volume["spec"]["csi"]["volumeHandle"]] = each["metadata"]["name"]
    for one in cluster.list(SNAPSHOT, namespace):
        owners = [owner["uid"] for owner in one["metadata"].get("ownerReferences") or []]
        if made["metadata"]["uid"] in owners:
            content = cluster.get(CONTENT, one["status"]["boundVolumeSnapshotContentName"])
            found[handles[content["spec"]["source"]["volumeHandle"]]] = one
    return found


def test_a_group_is_cut_together(cluster: Cluster, namespace: str) -> None:
    """One snapshot for each chosen claim, owned by the group, restorable like any other; others are left alone."""
    written(cluster, namespace, {"/a": "a", "/b": "b"})
    cluster.create(claim(namespace, "not-mine"))
    made = group(cluster, namespace, "g", set="one")
    ready = until_ready(cluster, GROUP_SNAPSHOT, "g", namespace)
    sh(cluster, namespace, "writer", "echo later > /a/file; echo later > /b/file")
    content = cluster.get(GROUP_CONTENT, ready["status"]["boundVolumeGroupSnapshotContentName"])
    assert content["status"]["volumeGroupSnapshotHandle"] and len(content["spec"]["source"]["volumeHandles"]) == 2
    of = members(cluster, namespace, made)
    assert sorted(of) == ["a", "b"]
    infos = {row["volumeHandle"]: row["snapshotHandle"] for row in content["status"]["volumeSnapshotInfoList"]}
    for one in of.values():
        until_ready(cluster, SNAPSHOT, one["metadata"]["name"], namespace)
        member = cluster.get(CONTENT, one["status"]["boundVolumeSnapshotContentName"])
        assert infos[member["spec"]["source"]["volumeHandle"]] == member["status"]["snapshotHandle"]
    assert restored(cluster, namespace, "copy", of["a"]["metadata"]["name"]) == "at the cut"


def test_a_deleted_group_takes_its_members_along(cluster: Cluster, namespace: str) -> None:
    """Members and contents, by policy Delete."""
    written(cluster, namespace, {"/a": "a", "/b": "b"})
    made = group(cluster, namespace, "g", set="one")
    ready = until_ready(cluster, GROUP_SNAPSHOT, "g", namespace)
    of = members(cluster, namespace, made).values()
    contents = [one["status"]["boundVolumeSnapshotContentName"] for one in of]
    cluster.delete(GROUP_SNAPSHOT, "g", namespace)
    until_gone(cluster, GROUP_SNAPSHOT, "g", namespace)
    until_gone(cluster, GROUP_CONTENT, ready["status"]["boundVolumeGroupSnapshotContentName"])
    for name in names(of):
        until_gone(cluster, SNAPSHOT, name, namespace)
    for name in contents:
        until_gone(cluster, CONTENT, name)


def test_a_group_of_nothing(cluster: Cluster, namespace: str) -> None:
    """Never ready, and it says why."""
    group(cluster, namespace, "g", set="none")
    obj = until(
        cluster, GROUP_SNAPSHOT, "g", namespace, lambda obj: bool((obj.get("status") or {}).get("error")), "an error"
    )
    assert not obj["status"].get("readyToUse")
