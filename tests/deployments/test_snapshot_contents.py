"""The admission policy: who may bind a snapshot by its handle into refloat's namespace, on a real cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kube.cluster import Cluster
from kube.home import HOME
from refloat.clock import Deadline, pause
from refloat.errors import Forbidden, ObjectExists, RefloatError, Rejected
from tests.contract.given import claim, is_bound, pod, run_pod, unique, until, until_gone
from tests.deployments.installing import KNOWN_WITHIN
from tests.e2e.kubeconfigs import identity

Object = dict[str, Any]
SNAPSHOT, CONTENT = "VolumeSnapshot.snapshot.storage.k8s.io", "VolumeSnapshotContent.snapshot.storage.k8s.io"


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
