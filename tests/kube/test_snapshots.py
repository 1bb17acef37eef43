"""Volume snapshots through the CSI API: one instant, exposed, withdrawn, discarded with their data, and failing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kube.cluster import Cluster
from kube.home import HOME
from kube.runs import leave
from kube.snapshot_objects import CLASS, CONTENT, GROUP, GROUP_CLASS, GROUP_CONTENT, SNAPSHOT
from kube.snapshots import wait_cut, wait_ready
from kube.sweep import sweep
from practice.access import Fault
from practice.range import PracticeRange
from practice.volumes import DRIVER
from providers.snapshotters.csi import CsiVolumeSnapshotter, open_snapshotter
from refloat.application import APPLICATION_LABEL, LABEL_PREFIX, RUN_LABEL
from refloat.errors import SnapshotFailed, Unsupported
from refloat.ports.volume_snapshotter import VolumeSnapshot
from refloat.recovery_point import new_id
from tests.kube.cutting import CLAIM, in_home, left_of, volumes_in_use, write

MINUTE = timedelta(minutes=1)
LABELS = {APPLICATION_LABEL: "shop"}


@pytest.fixture
def snapshotter(cluster: Cluster) -> CsiVolumeSnapshotter:
    """The snapshotter of one lane's cluster."""
    return open_snapshotter(cluster)


@pytest.fixture
def run(cluster: Cluster) -> Iterator[str]:
    """A run of the test's own, swept at its end."""
    name = new_id()
    yield name
    sweep(cluster, run=name, dry_run=False)


@pytest.fixture
def range_cluster(practice: PracticeRange) -> Iterator[Cluster]:
    """The cluster of a practice range of the test's own, with a namespace ``app``."""
    cluster = Cluster.open(kubeconfig=str(practice.kubeconfig))
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "app"}})
    yield cluster
    for name in {each["metadata"]["labels"][RUN_LABEL] for each in cluster.list("Lease.coordination.k8s.io", HOME)}:
        leave(cluster, name)


@pytest.mark.parametrize("group", [True, False], ids=["group", "each"])
def test_from_cut_to_nothing(
    snapshotter: CsiVolumeSnapshotter, cluster: Cluster, namespace: str, run: str, group: bool
) -> None:
    """Cut, ready, exposed as it was at the cut, withdrawn without harm to it, discarded without a trace."""
    volumes = volumes_in_use(cluster, namespace, "one", "two")
    found = snapshotter.capabilities(volumes)
    assert found.group
    assert found.snapshot_class
    assert found.group_class

    begun = datetime.now(UTC)
    ticket = snapshotter.begin(volumes, run=run, labels=LABELS, group=group)
    snapshots = wait_cut(snapshotter, ticket, timeout=MINUTE)
    for name in ("one", "two"):
        write(cluster, namespace, name, "after")
    assert [each.volume for each in snapshots] == volumes
    assert len({each.handle for each in snapshots}) == len(volumes)
    for each in snapshots:
        assert each.cut_at is not None
        assert begun <= each.cut_at <= datetime.now(UTC)
        assert each.cut_at.microsecond, "as exact as the driver tells it"

    ready = wait_ready(snapshotter, snapshots[1], timeout=MINUTE)
    assert ready.ready_at is not None
    assert ready.cut_at == snapshots[1].cut_at
    exposure = snapshotter.expose(ready, run=run, labels=LABELS)
    assert snapshotter.expose(ready, run=run, labels=LABELS) == exposure
    assert in_home(cluster, exposure.claim, "cat /volume/file") == "before\n"
    snapshotter.withdraw(exposure)
    snapshotter.withdraw(exposure)
    kinds = {entry.partition(" ")[0] for entry in left_of(cluster, run)}
    cut_kinds = {GROUP, GROUP_CONTENT} if group else {SNAPSHOT, CONTENT}
    assert kinds == {*cut_kinds, "Lease.coordination.k8s.io"}
    assert wait_cut(snapshotter, ticket, timeout=MINUTE) == snapshots, "withdrawing left the cuts as they were"

    assert snapshotter.orphans(run=run)
    for each in snapshots:
        snapshotter.discard(each)
    assert snapshotter.orphans(run=run) == []
    sweep(cluster, run=run, dry_run=False)
    assert left_of(cluster, run) == []


def test_a_group_is_of_exactly_the_chosen_claims(
    snapshotter: CsiVolumeSnapshotter, cluster: Cluster, namespace: str, run: str
) -> None:
    """A neighbour is not cut, and no claim bears the group's label afterwards."""
    one, _, three = volumes_in_use(cluster, namespace, "one", "neighbour", "three")
    ticket = snapshotter.begin([one, three], run=run, labels=LABELS, group=True)
    wait_cut(snapshotter, ticket, timeout=MINUTE)
    (content,) = [
        each for each in cluster.list(GROUP_CONTENT) if each["spec"]["volumeGroupSnapshotRef"]["namespace"] == namespace
    ]
    assert sorted(content["spec"]["source"]["volumeHandles"]) == sorted([one.handle, three.handle])
    assert list(cluster.list(CLAIM, namespace, labels=f"{LABEL_PREFIX}/group")) == []


@pytest.mark.parametrize("group", [True, False], ids=["group", "each"])
def test_beginning_again_finds_the_same_cut(
    snapshotter: CsiVolumeSnapshotter, cluster: Cluster, namespace: str, run: str, group: bool
) -> None:
    """One cut per run and volume, however often it is asked for."""
    volumes = volumes_in_use(cluster, namespace, "one", "two")
    first = snapshotter.begin(volumes, run=run, labels=LABELS, group=group)
    cut = wait_cut(snapshotter, first, timeout=MINUTE)
    again = snapshotter.begin(volumes, run=run, labels=LABELS, group=group)
    assert again == first
    assert [(each.handle, each.cut_at) for each in wait_cut(snapshotter, again, timeout=MINUTE)] == [
        (each.handle, each.cut_at) for each in cut
    ]


def test_the_controllers_words_are_in_the_failure(
    snapshotter: CsiVolumeSnapshotter, cluster: Cluster, namespace: str, run: str
) -> None:
    """A claim that is gone cannot be cut, and the failure says whose words these are."""
    (volume,) = volumes_in_use(cluster, namespace, "one")
    absent = replace(volume, claim="absent")
    ticket = snapshotter.begin([volume, absent], run=run, labels=LABELS, group=False)
    with pytest.raises(SnapshotFailed, match=rf"{namespace}/absent was not cut: Failed to create snapshot content"):
        wait_cut(snapshotter, ticket, timeout=MINUTE)


@pytest.mark.parametrize("group", [True, False], ids=["group", "each"])
def test_discarded_the_moment_it_is_cut(
    snapshotter: CsiVolumeSnapshotter, cluster: Cluster, namespace: str, run: str, group: bool
) -> None:
    """As after a failed hook: the controller is still making the members, and nothing of them stays or is stuck."""
    volumes = volumes_in_use(cluster, namespace, "one", "two")
    snapshotter.begin(volumes, run=run, labels=LABELS, group=group)
    sweep(cluster, run=run, dry_run=False)
    assert left_of(cluster, run) == []
    assert list(cluster.list(SNAPSHOT, namespace)) == []
    handles = {volume.handle for volume in volumes}
    sources = [each["spec"]["source"] for kind in (CONTENT, GROUP_CONTENT) for each in cluster.list(kind)]
    assert not [each for each in sources if handles & {each.get("volumeHandle"), *each.get("volumeHandles", ())}]


def test_volumes_that_are_no_group(snapshotter: CsiVolumeSnapshotter, cluster: Cluster, namespace: str) -> None:
    """Two namespaces have no common instant: said in the capabilities, and refused when asked for."""
    (volume,) = volumes_in_use(cluster, namespace, "one")
    elsewhere = replace(volume, namespace="elsewhere")
    assert not snapshotter.capabilities([volume, elsewhere]).group
    with pytest.raises(Unsupported, match="elsewhere/one"):
        snapshotter.begin([volume, elsewhere], run=new_id(), labels={}, group=True)
    with pytest.raises(Unsupported):
        snapshotter.changes(*[VolumeSnapshot(volume, "s", namespace, "ready")] * 2)


def test_a_foreign_driver_is_named(snapshotter: CsiVolumeSnapshotter, cluster: Cluster, namespace: str) -> None:
    """No class for the driver, or no CSI volume at all."""
    (volume,) = volumes_in_use(cluster, namespace, "one")
    with pytest.raises(Unsupported, match=r"VolumeSnapshotClass of its driver other\.example") as failure:
        snapshotter.capabilities([replace(volume, driver="other.example")])
    assert "other.example" in failure.value.guidance
    with pytest.raises(Unsupported, match="no CSI driver"):
        snapshotter.capabilities([replace(volume, driver="kubernetes.io/nfs", handle="")])


def snapshot_class(cluster: Cluster, kind: str, name: str, *, default: bool, policy: str = "Delete") -> None:
    """Another class of the practice range's driver."""
    served = cluster.kind_of(kind)
    annotations = {f"{served.group.replace('k8s.io', 'kubernetes.io')}/is-default-class": "true"}
    about = {"name": name, "annotations": annotations if default else {}}
    made = {"apiVersion": served.api_version, "kind": served.kind, "metadata": about}
    cluster.create({**made, "driver": DRIVER, "deletionPolicy": policy})


def test_which_class_is_used(range_cluster: Cluster) -> None:
    """The default one; several defaults, or several and none, are named and refused; so for groups."""
    volumes = volumes_in_use(range_cluster, "app", "one")
    snapshotter = open_snapshotter(range_cluster)
    for kind, word in ((CLASS, "snapshot_class"), (GROUP_CLASS, "group_class")):
        snapshot_class(range_cluster, kind, "another", default=False)
        assert getattr(snapshotter.capabilities(volumes), word) == "practice"
        snapshot_class(range_cluster, kind, "third", default=True)
        with pytest.raises(Unsupported, match="practice, third") as failure:
            snapshotter.capabilities(volumes)
        assert "is-default-class=true" in failure.value.guidance
        range_cluster.delete(kind, "practice")
        range_cluster.delete(kind, "third")
        assert getattr(snapshotter.capabilities(volumes), word) == "another"
    range_cluster.delete(GROUP_CLASS, "another")
    assert not snapshotter.capabilities(volumes).group


@pytest.mark.parametrize("group", [True, False], ids=["group", "each"])
def test_a_class_that_retains_keeps_nothing_of_ours(
    range_cluster: Cluster, practice: PracticeRange, group: bool
) -> None:
    """Exposing and withdrawing leaves the data; discarding takes it, whatever the class says."""
    for kind in (CLASS, GROUP_CLASS):
        range_cluster.delete(kind, "practice")
        snapshot_class(range_cluster, kind, "keeps", default=True, policy="Retain")
    volumes, run = volumes_in_use(range_cluster, "app", "one", "two"), new_id()
    snapshotter = open_snapshotter(range_cluster)
    ticket = snapshotter.begin(volumes, run=run, labels={}, group=group)
    cuts = [wait_ready(snapshotter, each, timeout=MINUTE) for each in wait_cut(snapshotter, ticket, timeout=MINUTE)]
    folders = [folder for each in cuts for folder in practice.root.rglob(f"*{each.handle}") if folder.is_dir()]
    assert len(folders) == len(cuts)
    snapshotter.withdraw(snapshotter.expose(cuts[0], run=run, labels={}))
    assert all(folder.exists() for folder in folders)
    for each in cuts:
        snapshotter.discard(each)
    assert not any(folder.exists() for folder in folders)
    assert list(range_cluster.list(CONTENT)) == []


# ---- faults of the API server


@pytest.mark.parametrize(
    "fault",
    [
        Fault("answer", r"volumesnapshotcontents", method="GET", nth=2, times=6, status=500, retry_after_seconds=0),
        Fault("drop", r"volumesnapshots/", method="GET", nth=2, times=9),
    ],
    ids=["errors", "lost connections"],
)
def test_polling_outlives_a_faltering_api_server(range_cluster: Cluster, practice: PracticeRange, fault: Fault) -> None:
    """Longer than one request's own patience: the cut is waited for, not given up."""
    volumes = volumes_in_use(range_cluster, "app", "one")
    snapshotter, run = open_snapshotter(range_cluster), new_id()
    ticket = snapshotter.begin(volumes, run=run, labels={}, group=False)
    wait_cut(snapshotter, ticket, timeout=MINUTE)
    practice.access.inject(fault)
    snapshots: tuple[VolumeSnapshot, ...] = ()
    for _ in range(3):
        snapshots = wait_cut(snapshotter, ticket, timeout=MINUTE)
    assert fault.fired == fault.times
    assert snapshots[0].state == "ready"


def test_cut_is_not_ready(tmp_path: Path) -> None:
    """Storage that is slow to be ready: cut at once, and waiting for more ends at its limit, naming the volume."""
    with PracticeRange(tmp_path / "slow", ready_after=timedelta(hours=1)) as practice:
        cluster, run = Cluster.open(kubeconfig=str(practice.kubeconfig)), new_id()
        cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "app"}})
        volumes, snapshotter = volumes_in_use(cluster, "app", "one"), open_snapshotter(cluster)
        ticket = snapshotter.begin(volumes, run=run, labels={}, group=False)
        (snapshot,) = wait_cut(snapshotter, ticket, timeout=MINUTE)
        assert snapshot.state == "cut"
        with pytest.raises(SnapshotFailed, match="not ready within 1 s: app/one: cut"):
            wait_ready(snapshotter, snapshot, timeout=timedelta(seconds=1))
        assert cluster.find(SNAPSHOT, snapshot.name, "app") is not None, "waiting discards nothing"
        leave(cluster, run)
