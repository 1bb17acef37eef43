"""The node agent on the lab, from its manifest: two pods without a recipe are one instant, and nobody stays frozen."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from kube.cluster import Cluster
from kube.home import HOME
from kube.node_agent import LABEL, NAMESPACE
from kube.runs import LEASE
from kube.thawing import name_of_lease
from refloat.errors import NotReady
from tests.e2e.command import Refloat
from tests.e2e.given import Site, Vault, environment
from tests.e2e.leftovers import leftovers
from tests.e2e.shop import make_namespace, remove_namespace
from tests.e2e.test_janitor import kind_of
from tests.until import until

HERE = "shop-e2e-frozen"
MANIFEST = Path(__file__).parents[2] / "deployments/manifests/optional/60-node-agent.yaml"
SOON, READY_WITHIN = timedelta(seconds=15), timedelta(minutes=2)
PODS = ("left", "right")
FAULTS = ("refloat", "agent")
COUNT = "n=0; while :; do n=$((n + 1)); echo $n >/data/new && mv /data/new /data/count; sleep 0.02; done"


def pod(name: str) -> dict[str, Any]:
    """It counts on its claim, and knows nothing of any hold."""
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": HERE, "labels": {"app": "counter"}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main", "image": environment("REFLOAT_E2E_POSTGRES_IMAGE"), "command": ["sh", "-c", COUNT],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": name}}],
        },
    }  # fmt: skip


def claim(name: str) -> dict[str, Any]:
    """Its claim."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "100Mi"}}}
    about = {"name": name, "namespace": HERE}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": about, "spec": spec}


@pytest.fixture(scope="module")
def agents(site_a: Site) -> Iterator[Cluster]:
    """The shipped agent, ready on every node, and two counting pods; all of it is removed."""
    image, cluster = environment("REFLOAT_E2E_JANITOR_IMAGE"), site_a.cluster
    made = [each for each in yaml.safe_load_all(MANIFEST.read_text()) if each]
    make_namespace(cluster, HERE)
    try:
        for obj in made:
            if obj["kind"] == "DaemonSet":
                obj["spec"]["template"]["spec"]["containers"][0]["image"] = image
            cluster.apply(obj)
        nodes = len(list(cluster.list("Node")))
        cluster.wait(
            "DaemonSet.apps", "agent", NAMESPACE,
            lambda obj: bool(obj and obj.get("status", {}).get("numberReady") == nodes),
            timeout=READY_WITHIN, what="an agent is ready on every node",
        )  # fmt: skip
        for name in PODS:
            cluster.create(claim(name))
            cluster.create(pod(name))
        for name in PODS:
            cluster.wait(
                "Pod", name, HERE, lambda obj: bool(obj and obj["status"].get("phase") == "Running"),
                timeout=READY_WITHIN, what=f"{name} runs",
            )  # fmt: skip
        yield cluster
    finally:
        remove_namespace(cluster, HERE)
        for fault in FAULTS:
            cluster.delete(LEASE, name_of_lease(fault), HOME)
        for obj in reversed(made):
            cluster.delete(kind_of(obj), obj["metadata"]["name"], obj["metadata"].get("namespace"))
        cluster.wait("Namespace", NAMESPACE, None, lambda obj: obj is None, timeout=READY_WITHIN, what="agents gone")


def count(cluster: Cluster, name: str) -> int:
    """How far a pod has come; it must run to be asked."""
    done = cluster.exec(HERE, name, "main", ("cat", "/data/count"), timeout=SOON)
    assert done.exit_code == 0, done
    return int(done.stdout)


def is_running(cluster: Cluster, name: str) -> bool:
    """Whether it counts on."""
    try:
        first = count(cluster, name)
        until(lambda: count(cluster, name) > first, "it counts", SOON)
    except (AssertionError, NotReady):
        return False
    return True


def document(folder: Path, name: str = "counters") -> Path:
    """The application: held by the agent, by short deadlines."""
    text = {
        "apiVersion": "refloat/v1", "kind": "Application", "name": name, "members": [{"namespace": HERE}],
        "quiesce": [{"selector": "app=counter", "engine": "cgroup"}],
        "hold": {"softBudget": "5s", "hardBudget": "8s", "lease": "5s"},
    }  # fmt: skip
    file = folder / "application.yaml"
    file.write_text(yaml.safe_dump(text))
    return file


def test_pods_without_a_recipe_are_cut_at_one_instant(
    agents: Cluster, site_a: Site, refloat: Refloat, vault: Vault, tmp_path: Path
) -> None:
    """Application-consistent, for no process of theirs ran; they run on, and nothing is left on the nodes."""
    words = ("protect", "-f", document(tmp_path), *site_a.flags, *vault.beside("counters").flags, "-o", "json")
    point = refloat.done(*words).json["point"]
    assert point["consistency"] == "application-consistent", point["certificate"]["reasons"]
    parts = point["certificate"]["parts"]
    assert [(part["engine"], part["confirmed"]) for part in parts] == [("cgroup", True)] * len(PODS)
    assert all(is_running(agents, name) for name in PODS)
    assert leftovers(agents) == []


def is_frozen(cluster: Cluster, name: str) -> bool:
    """Nothing new runs in it either."""
    return cluster.exec(HERE, name, "main", ("true",), timeout=timedelta(seconds=2)).exit_code is None


@pytest.mark.parametrize("fault", FAULTS)
def test_nobody_stays_frozen(agents: Cluster, site_a: Site, fault: str, tmp_path: Path) -> None:
    """refloat falls silent: the agent's watchdog thaws by the lease. The agents die, and thaw all the same."""
    words = (sys.executable, "-m", "tests.e2e.recorded_hold", site_a.kubeconfig, str(document(tmp_path, fault)))
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["held"] == len(PODS)
        process.send_signal(signal.SIGSTOP)
        try:
            assert is_frozen(agents, PODS[0]), "nothing was frozen"
            if fault == "agent":
                for each in list(agents.list("Pod", NAMESPACE, labels=LABEL)):
                    agents.delete("Pod", each["metadata"]["name"], NAMESPACE, grace_seconds=0)
            for name in PODS:
                until(lambda name=name: is_running(agents, name), f"{name} runs on", READY_WITHIN)  # type: ignore[misc]
        finally:
            process.kill()
