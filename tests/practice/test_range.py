"""The practice range as a whole: quick, quiet, loud about what it does not know, and gone without a trace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from kube.cluster import Cluster
from kube.exec import run_in_pod
from practice.range import PracticeRange
from practice.store import HISTORY
from refloat.clock import monotonic_seconds, pause
from refloat.errors import ClusterError, Expired, ObjectMissing, Rejected
from tests.contract.given import SOON, claim, config_map, container, names, pod, run_pod, sh, until
from tests.contract.test_snapshots import GROUP_SNAPSHOT, SNAPSHOT, group, members, snapshot

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cluster(practice: PracticeRange) -> Cluster:
    """The administrator's handle to this test's own range."""
    return Cluster.open(kubeconfig=str(practice.kubeconfig))


def processes_of(root: Path) -> list[str]:
    """Command lines of processes that work below a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve().is_relative_to(root) and int(process.name) != os.getpid():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def test_what_is_there_at_the_start(cluster: Cluster) -> None:
    """Two namespaces, three nodes, one class of each kind; and it says what it is."""
    assert cluster.is_practice_range
    assert names(cluster.list("Namespace")) == ["default", "kube-system"]
    assert len(list(cluster.list("Node"))) == 3
    for kind in (
        "StorageClass.storage",
        "VolumeSnapshotClass.snapshot.storage",
        "VolumeGroupSnapshotClass.groupsnapshot.storage",
    ):
        assert names(cluster.list(f"{kind}.k8s.io")) == ["practice"]


def test_starting_takes_less_than_a_second(tmp_path: Path) -> None:
    """From nothing to the first answer."""
    began = monotonic_seconds()
    with PracticeRange(tmp_path / "range") as practice:
        Cluster.open(kubeconfig=str(practice.kubeconfig)).get("Namespace", "default")
        took = monotonic_seconds() - began
    assert took < 1


def test_nothing_is_left_running(tmp_path: Path) -> None:
    """Containers, what they started, exec sessions and what these left behind."""
    root = tmp_path / "range"
    with PracticeRange(root) as practice:
        cluster = Cluster.open(kubeconfig=str(practice.kubeconfig))
        run_pod(cluster, pod("default", "p", "sleep 600 & sleep 600"))
        cluster.exec("default", "p", "main", ["sh", "-c", "sleep 600 >/dev/null 2>&1 &"], timeout=SOON)
        assert len([line for line in processes_of(root) if line.startswith("sleep 600")]) == 3
    assert processes_of(root) == []


def test_nothing_is_left_running_after_a_kill(tmp_path: Path) -> None:
    """kill -9 of the range's process ends its pods too."""
    root = tmp_path / "range"
    program = (
        "import sys, time; from pathlib import Path; from practice.range import PracticeRange\n"
        f"with PracticeRange(Path({str(root)!r})) as practice:\n"
        "    print(practice.kubeconfig, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        cluster = Cluster.open(kubeconfig=started.stdout.readline().strip())
        run_pod(cluster, pod("default", "p", "trap '' TERM; sleep 600 & while :; do sleep 600; done"))
        assert len(processes_of(root)) >= 3
        started.send_signal(signal.SIGKILL)
    ends = monotonic_seconds() + 10
    while processes_of(root) and monotonic_seconds() < ends:
        pause(timedelta(milliseconds=20))
    assert processes_of(root) == []


def test_pods_see_only_their_own_volumes(cluster: Cluster) -> None:
    """The same path in two pods is two folders; similar paths are not confused."""
    for name in ("a", "b"):
        cluster.create(claim("default", name))
        run_pod(cluster, pod("default", name, claims={"/data": name}))
        sh(cluster, "default", name, f"echo {name} > /data/file; echo x > ./database; ls /datax 2>/dev/null; true")
    assert [sh(cluster, "default", name, "cat /data/file").strip() for name in ("a", "b")] == ["a", "b"]
    assert not Path("/data/file").exists()


def test_what_it_does_not_know_it_refuses(cluster: Cluster) -> None:
    """Parameters, fields and volumes whose effect would be a guess."""
    with pytest.raises(Rejected, match="does not know these parameters"):
        cluster._transport.call("GET", "/api/v1/namespaces/default/configmaps", query={"sendInitialEvents": "true"})
    with pytest.raises(ObjectMissing):
        cluster._transport.call("GET", "/api/v1/componentstatuses")
    unknown = pod("default", "p", containers=[container("exit 0", livenessProbe={"exec": {"command": ["true"]}})])
    cluster.create(unknown)
    obj = until(
        cluster, "Pod", "p", "default",
        lambda obj: "waiting" in (obj["status"].get("containerStatuses") or [{"state": {}}])[0]["state"], "waiting",
    )  # fmt: skip
    assert (
        "does not know a container's livenessProbe"
        in obj["status"]["containerStatuses"][0]["state"]["waiting"]["message"]
    )
    with pytest.raises(ClusterError, match="no terminals"):
        path = "/api/v1/namespaces/default/pods/p/exec"
        url = cluster._transport.url(path, {"command": "true", "stdout": "true", "tty": "true"})
        run_in_pod(url, cluster._headers(), {}, timeout=SOON, stdin=None, what="exec")


def test_page_tokens_and_versions_expire(cluster: Cluster) -> None:
    """410 for what is too old: the client starts over."""
    for name in ("a", "b", "c"):
        cluster.create(config_map("default", name))
    path, query = "/api/v1/namespaces/default/configmaps", {"limit": 1}
    first = cluster._transport.call("GET", path, query=query)
    since = first["metadata"]["resourceVersion"]
    for _ in range(101):
        cluster._transport.call("GET", path, query=query)
        cluster.patch("ConfigMap", "a", "default", {"data": {"n": str(_)}})
    with pytest.raises(Expired):
        cluster._transport.call("GET", path, query=query | {"continue": first["metadata"]["continue"]})
    assert HISTORY > 1000 and list(
        cluster.watch("ConfigMap", "default", timeout=timedelta(seconds=1), resource_version=since)
    )


def test_a_group_is_one_instant_for_a_writer_that_never_rests(practice: PracticeRange, cluster: Cluster) -> None:
    """The writer writes a, then b; in no group is b ahead of a."""
    script = (
        "n=0; while :; do n=$((n+1)); echo $n > /a/n.new; mv /a/n.new /a/n; echo $n > /b/n.new; mv /b/n.new /b/n; done"
    )
    for name in ("a", "b"):
        cluster.create(claim("default", name, {"set": "one"}))
    run_pod(cluster, pod("default", "writer", script, claims={"/a": "a", "/b": "b"}))
    sh(cluster, "default", "writer", "until test -f /b/n; do sleep 0.01; done")
    for number in range(5):
        made = group(cluster, "default", f"g{number}", set="one")
        until(
            cluster,
            GROUP_SNAPSHOT,
            f"g{number}",
            "default",
            lambda obj: obj.get("status", {}).get("readyToUse", False),
            "ready",
        )
        found = {}
        for name, one in members(cluster, "default", made).items():
            content = cluster.get(
                "VolumeSnapshotContent.snapshot.storage.k8s.io", one["status"]["boundVolumeSnapshotContentName"]
            )
            folder = practice.root / "snapshots" / content["status"]["snapshotHandle"]
            found[name] = int((folder / "n").read_text())
        assert found["a"] - found["b"] in (0, 1), found


def test_cut_at_once_ready_later(tmp_path: Path) -> None:
    """``ready_after``: the cut is made when asked for; what is written before it is ready is not in it."""
    with PracticeRange(tmp_path / "range", ready_after=timedelta(seconds=1)) as practice:
        cluster = Cluster.open(kubeconfig=str(practice.kubeconfig))
        cluster.create(claim("default", "c"))
        run_pod(cluster, pod("default", "p", claims={"/data": "c"}))
        sh(cluster, "default", "p", "echo before > /data/file")
        began = monotonic_seconds()
        snapshot(cluster, "default", "s", persistentVolumeClaimName="c")
        until(cluster, SNAPSHOT, "s", "default", lambda obj: "creationTime" in obj.get("status", {}), "cut")
        assert monotonic_seconds() - began < 0.9
        sh(cluster, "default", "p", "echo after > /data/file")
        until(cluster, SNAPSHOT, "s", "default", lambda obj: obj["status"]["readyToUse"], "ready")
        assert monotonic_seconds() - began >= 1.0
        (cut,) = (tmp_path / "range" / "snapshots").glob("snap-*")
        assert (cut / "file").read_text() == "before\n"


def test_many_at_once(cluster: Cluster) -> None:
    """Writers on many threads: no write is lost, no version given twice."""
    cluster.kinds()
    made: list[str] = []

    def write(number: int) -> None:
        for index in range(20):
            made.append(cluster.create(config_map("default", f"m-{number}-{index}"))["metadata"]["resourceVersion"])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 160
    assert len([name for name in names(cluster.list("ConfigMap", "default")) if name.startswith("m-")]) == 160
