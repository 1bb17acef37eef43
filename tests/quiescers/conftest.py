"""Real servers and state machines for the quiescers' tests: one of each for all, and nothing left at the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from kube.cluster import Cluster
from practice.range import PracticeRange
from refloat.conformance.quiescer import CHECKS, Check, Finding, run
from tests.contract.given import until_gone
from tests.quiescers.engines import SERVERS
from tests.quiescers.frozen_group import HIERARCHIES, a_group
from tests.quiescers.machines import MACHINES, mounted
from tests.quiescers.range_bench import RangeBench
from tests.quiescers.servers import WHOLE

NAMESPACE = "quiescers"
Benches = dict[str, RangeBench | str]
"""By name; a text says why one is NOT RUN."""
ALL_LAYERS = ("postgresql", "redis-aof", "commands")
"""Who goes through every check in the short form: what is left out for the others is the holder's own doing."""
HOLDERS = ("silence_lets_go", "a_killed_holder_lets_go", "the_hard_limit_lets_go")
STOPS_NONE = ("cassandra", "etcd", "kafka")


def checks_for(name: str) -> list[Check]:
    """Which checks run: all in the whole form."""
    if WHOLE or name in ALL_LAYERS:
        return list(CHECKS)
    left_out = (*HOLDERS, "the_last_layer_alone_lets_go") if name in STOPS_NONE else HOLDERS
    return [check for check in CHECKS if check.__name__ not in left_out]


@pytest.fixture(scope="session")
def shared_cluster(shared_range: PracticeRange) -> Cluster:
    """The practice range, with a namespace for servers."""
    cluster = Cluster.open(kubeconfig=str(shared_range.kubeconfig))
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    return cluster


@pytest.fixture(scope="session")
def benches(shared_cluster: Cluster) -> Iterator[Benches]:
    """One of each. Their folder is one that a server's own user may enter, which pytest's are not."""
    base = Path(tempfile.mkdtemp(prefix="refloat-quiescers-"))
    base.chmod(0o755)

    with ExitStack() as stack:
        stack.callback(shutil.rmtree, base)

        def started(name: str) -> RangeBench | str:
            folder = base / name
            folder.mkdir()
            try:
                if name in HIERARCHIES:
                    return stack.enter_context(a_group(shared_cluster, NAMESPACE, folder, name))
                if name == "filesystem":
                    stack.enter_context(mounted(folder))
                if name in MACHINES:
                    return MACHINES[name](shared_cluster, folder)
                return SERVERS[name](shared_cluster, NAMESPACE, folder, name)
            except pytest.skip.Exception as absent:
                return str(absent)

        names = [*SERVERS, *MACHINES, *HIERARCHIES]
        with ThreadPoolExecutor(len(names)) as pool:
            found = dict(zip(names, pool.map(started, names), strict=True))
        yield found
        pods = [bench.place.pod for bench in found.values() if isinstance(bench, RangeBench)]
        for pod in pods:
            shared_cluster.delete("Pod", pod, NAMESPACE)
        for pod in pods:
            until_gone(shared_cluster, "Pod", pod, NAMESPACE)


@pytest.fixture(scope="session")
def findings(benches: Benches) -> dict[str, dict[str, Finding] | str]:
    """The suite over every one, side by side: most of it is waiting."""

    def over(name: str) -> dict[str, Finding] | str:
        bench = benches[name]
        if isinstance(bench, str):
            return bench
        return {finding.check: finding for finding in run(bench, checks_for(name))}

    with ThreadPoolExecutor(len(benches)) as pool:
        return dict(zip(benches, pool.map(over, benches), strict=True))
