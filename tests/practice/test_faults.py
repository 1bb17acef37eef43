"""Faults injected into the practice range happen when and as often as they say, and count themselves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from kube.cluster import Cluster
from practice.access import Fault
from practice.range import PracticeRange
from refloat.clock import monotonic_seconds
from refloat.errors import ClusterError, Conflict, Forbidden, ObjectExists, Unreachable
from tests.contract.given import SOON, config_map, pod, run_pod

MAPS = r"/configmaps"


@pytest.fixture
def cluster(practice: PracticeRange) -> Cluster:
    """The administrator's handle to this test's own range, its kinds already read."""
    cluster = Cluster.open(kubeconfig=str(practice.kubeconfig))
    cluster.kinds()
    return cluster


def test_an_answer_of_our_choosing(practice: PracticeRange, cluster: Cluster) -> None:
    """The nth matching request, and so many after it; the others pass."""
    fault = practice.access.inject(Fault("answer", MAPS, method="POST", nth=2, times=2, status=409))
    cluster.create(config_map("default", "a"))
    for _ in range(2):
        with pytest.raises(Conflict, match="fault of the practice range"):
            cluster.create(config_map("default", "b"))
    cluster.create(config_map("default", "b"))
    assert (fault.seen, fault.fired) == (4, 2)


def test_reads_are_repeated_across_failures(practice: PracticeRange, cluster: Cluster) -> None:
    """The client gets through one dropped connection and one busy server."""
    cluster.create(config_map("default", "a"))
    dropped = practice.access.inject(Fault("drop", MAPS, method="GET"))
    busy = practice.access.inject(Fault("answer", MAPS, method="GET", status=429, retry_after_seconds=0))
    assert cluster.get("ConfigMap", "a", "default")["metadata"]["name"] == "a"
    assert (dropped.fired, busy.fired) == (1, 1)


def test_a_dropped_write_did_not_happen(practice: PracticeRange, cluster: Cluster) -> None:
    """Dropped before it was handled."""
    fault = practice.access.inject(Fault("drop", MAPS, method="POST"))
    with pytest.raises(Unreachable):
        cluster.create(config_map("default", "a"))
    assert fault.fired == 1 and cluster.find("ConfigMap", "a", "default") is None


def test_a_write_whose_answer_is_lost_did_happen(practice: PracticeRange, cluster: Cluster) -> None:
    """The client cannot know; the second try finds it there."""
    fault = practice.access.inject(Fault("drop-after", MAPS, method="POST"))
    with pytest.raises(Unreachable):
        cluster.create(config_map("default", "a"))
    with pytest.raises(ObjectExists):
        cluster.create(config_map("default", "a"))
    assert fault.fired == 1


def test_a_slow_server(practice: PracticeRange, cluster: Cluster) -> None:
    """The answer comes late, and right."""
    fault = practice.access.inject(Fault("delay", MAPS, delay_seconds=0.3))
    began = monotonic_seconds()
    cluster.create(config_map("default", "a"))
    assert monotonic_seconds() - began >= 0.3 and fault.fired == 1


def test_healing(practice: PracticeRange, cluster: Cluster) -> None:
    """No fault is left."""
    fault = practice.access.inject(Fault("answer", MAPS, times=100))
    practice.access.heal()
    cluster.create(config_map("default", "a"))
    assert fault.fired == 0


def test_a_lost_exit_status(practice: PracticeRange, cluster: Cluster) -> None:
    """The command ran and nobody learns how it ended: an error, never a success."""
    run_pod(cluster, pod("default", "p"))
    fault = practice.access.inject(Fault("drop-after", "/exec"))
    with pytest.raises(ClusterError, match="without an exit status"):
        cluster.exec("default", "p", "main", ["touch", "/work/ran"], timeout=SOON)
    assert fault.fired == 1
    assert cluster.exec("default", "p", "main", ["test", "-f", "/work/ran"], timeout=SOON).exit_code == 0


@pytest.mark.parametrize(("act", "error"), [("drop", Unreachable), ("answer", Forbidden)])
def test_an_exec_that_does_not_begin(
    practice: PracticeRange, cluster: Cluster, act: str, error: type[ClusterError]
) -> None:
    """Dropped or refused before the command starts."""
    run_pod(cluster, pod("default", "p"))
    fault = practice.access.inject(Fault(act, "/exec", status=403))  # type: ignore[arg-type]
    with pytest.raises(error):
        cluster.exec("default", "p", "main", ["touch", "/work/ran"], timeout=SOON)
    assert fault.fired == 1
    assert cluster.exec("default", "p", "main", ["test", "-f", "/work/ran"], timeout=SOON).exit_code == 1


def test_waiting_goes_on_across_a_broken_watch(practice: PracticeRange, cluster: Cluster) -> None:
    """`Cluster.wait` opens the watch again: what it waits for is made only after its first look."""
    fault = practice.access.inject(Fault("drop-after", "watch=true"))
    looks: list[bool] = []

    def there(seen: dict[str, Any] | None) -> bool:
        looks.append(seen is not None)
        if looks == [False]:
            cluster.create(config_map("default", "late"))
        return looks[-1]

    obj = cluster.wait("ConfigMap", "late", "default", there, timeout=timedelta(seconds=20), what="late")
    assert obj is not None and fault.fired == 1
