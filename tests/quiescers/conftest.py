"""Real servers for the quiescers' tests, one of each for all of them, stopped and their data removed at the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kube.cluster import Cluster
from practice.range import PracticeRange
from tests.contract.given import until_gone
from tests.quiescers.range_bench import RangeBench
from tests.quiescers.servers import SERVERS

NAMESPACE = "quiescers"
Start = Callable[[str], RangeBench]


@pytest.fixture(scope="session")
def shared_cluster(shared_range: PracticeRange) -> Cluster:
    """The practice range, with a namespace for servers."""
    cluster = Cluster.open(kubeconfig=str(shared_range.kubeconfig))
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    return cluster


@pytest.fixture(scope="session")
def start(shared_cluster: Cluster) -> Iterator[Start]:
    """Starts a server by name; its folder is one that the server's own user may enter, which pytest's are not."""
    cluster = shared_cluster
    base = Path(tempfile.mkdtemp(prefix="refloat-quiescers-"))
    base.chmod(0o755)
    benches: dict[str, RangeBench] = {}

    def started(name: str) -> RangeBench:
        folder = base / name
        folder.mkdir(exist_ok=True)
        benches[name] = SERVERS[name](cluster, NAMESPACE, folder, name)
        return benches[name]

    yield started
    for bench in benches.values():
        cluster.delete("Pod", bench.place.pod, NAMESPACE)
    for bench in benches.values():
        until_gone(cluster, "Pod", bench.place.pod, NAMESPACE)
    shutil.rmtree(base)
