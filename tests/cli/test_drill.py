"""Drills by the command, on the practice range: passed, failed, broken off; production stays, and nothing is left."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kube.cluster import Cluster
from practice.access import Fault
from practice.range import PracticeRange
from refloat.errors import ConfigError
from tests.cli import small
from tests.cli.command import LIMIT_SECONDS, Outcome, Program
from tests.e2e.leftovers import leftovers
from tests.until import until

COUNT = {"name": "orders", "selector": small.LABEL, "command": ["sh", "-c", "wc -l < /data/orders"], "expect": "^500$"}
SERVICE, CRON = "Service", "CronJob.batch"


def production(cluster: Cluster, namespace: str) -> dict[str, str]:
    """What must not change: every object of a few kinds, by name, with its version."""
    kinds = ("Pod", "StatefulSet.apps", "PersistentVolumeClaim", "Secret", "ConfigMap", SERVICE, CRON)
    objects = [(kind, obj["metadata"]) for kind in kinds for obj in cluster.list(kind, namespace)]
    return {f"{kind}/{meta['name']}": meta["resourceVersion"] for kind, meta in objects}


def namespaces(cluster: Cluster) -> list[str]:
    """All drills' namespaces."""
    return [obj["metadata"]["name"] for obj in cluster.list("Namespace") if "-drill-" in obj["metadata"]["name"]]


@pytest.fixture(scope="module")
def drilled(
    program: Program, range_cluster: Cluster, application: str, cluster_flags: tuple[str, ...],
    password_file: Path, tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, ...]]:  # fmt: skip
    """The application protected, with a door to the outside and a schedule; the vault's flags."""
    meta = {"namespace": application, "labels": {"app": "db"}}
    ports = [{"port": 80, "nodePort": 30080}]
    pod = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "any", "command": ["true"]}]}}
    made: list[dict[str, Any]] = [
        {
            "apiVersion": "v1", "kind": "Service", "metadata": {**meta, "name": "door"},
            "spec": {"type": "NodePort", "selector": {"app": "db"}, "ports": ports},
        },
        {
            "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {**meta, "name": "nightly"},
            "spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": pod}}},
        },
    ]  # fmt: skip
    for obj in made:
        range_cluster.create(obj)
    folder = tmp_path_factory.mktemp("drilled")
    flags = ("--vault", f"file://{folder}/vault", "--password-file", str(password_file))
    program("protect", "cli-small", "-n", application, "-l", small.LABEL, *cluster_flags, *flags).done()
    yield flags
    range_cluster.delete(SERVICE, "door", application)
    range_cluster.delete(CRON, "nightly", application)


@pytest.fixture
def shop(
    practice: PracticeRange, program: Program, password_file: Path, tmp_path: Path
) -> tuple[Cluster, tuple[object, ...]]:
    """A range of the test's own with a protected namespace shop in it, and the flags of both."""
    cluster = Cluster.open(kubeconfig=str(practice.kubeconfig))
    small.create(cluster, "shop")
    flags = ("--kubeconfig", practice.kubeconfig, "--vault", f"file://{tmp_path}/v", "--password-file", password_file)
    program("protect", "-n", "shop", *flags).done()
    return cluster, flags


def document(folder: Path, namespace: str, *assertions: dict[str, Any]) -> Path:
    """The application's document with these assertions."""
    file = folder / "application.yaml"
    text = {
        "apiVersion": "refloat/v1", "kind": "Application", "name": "cli-small",
        "members": [{"namespace": namespace, "selector": small.LABEL}], "drill": {"assertions": list(assertions)},
    }  # fmt: skip
    file.write_text(yaml.safe_dump(text))
    return file


def test_a_drill_proves_and_leaves_nothing_but_evidence(
    program: Program, range_cluster: Cluster, application: str, cluster_flags: tuple[str, ...],
    drilled: tuple[str, ...], tmp_path: Path,
) -> None:  # fmt: skip
    """Every assertion passed, RTO measured, production as before, the report in three forms, all else gone."""
    before = production(range_cluster, application)
    file = document(tmp_path, application, COUNT, {"name": "greeting", "command": ["printenv", "greeting"]})
    words = ("drill", "-f", file, *cluster_flags, *drilled, "--report", tmp_path / "evidence", "-o", "json")
    found = program(*words).done().json
    assert [each["passed"] for each in found["assertions"]] == [True, True]
    assert (found["failure"], found["removed"]) == ("", True)
    assert found["achieved_rto"]
    (namespace,) = found["namespaces"]
    assert namespace.startswith(f"{application}-drill-")
    assert f"Service {namespace}/door: a ClusterIP, no NodePort" in found["isolation"]
    assert f"CronJob {namespace}/nightly: suspended" in found["isolation"]
    assert production(range_cluster, application) == before
    assert namespaces(range_cluster) == []
    assert leftovers(range_cluster) == []
    texts = {path.suffix: path.read_text() for path in (tmp_path / "evidence").iterdir()}
    assert json.loads(texts[".json"]) == found
    assert "# Drill of cli-small: passed" in texts[".md"]
    assert "<script" not in texts[".html"]
    assert small.SECRET not in "".join(texts.values())


def test_what_is_kept_is_closed_and_swept_by_its_run(
    program: Program, range_cluster: Cluster, application: str, cluster_flags: tuple[str, ...],
    drilled: tuple[str, ...], tmp_path: Path,
) -> None:  # fmt: skip
    """With --keep: a default-deny policy, a suspended schedule, no door; then refloat sweep --run removes it all.

    The folder for the evidence is lost meanwhile: that is an error, and costs neither the drill nor its result.
    """
    evidence = tmp_path / "evidence"
    file = document(tmp_path, application, {"name": "lose", "command": ["rmdir", str(evidence)]})
    done = program("drill", "-f", file, *cluster_flags, *drilled, "--keep", "--report", evidence, "-o", "json")
    assert "error CONFIG" in done.stderr and "evidence cannot be written" in done.stderr
    assert done.exit_code == ConfigError.exit_code
    found = done.json
    (namespace,) = found["namespaces"]
    (policy,) = range_cluster.list("NetworkPolicy.networking.k8s.io", namespace)
    assert (policy["spec"]["podSelector"], policy["spec"]["policyTypes"]) == ({}, ["Ingress", "Egress"])
    assert range_cluster.get(CRON, "nightly", namespace)["spec"]["suspend"] is True
    assert range_cluster.get(SERVICE, "door", namespace)["spec"]["type"] == "ClusterIP"
    assert (found["removed"], found["kept"]) == (False, True)
    program("sweep", "--run", found["run"], *cluster_flags, "--yes").done()
    assert namespaces(range_cluster) == []
    assert leftovers(range_cluster) == []


WRONG = [
    ({**COUNT, "expect": "^501$"}, "did not say '^501$'"),
    ({**COUNT, "command": ["false"]}, "ended with 1"),
    ({**COUNT, "command": ["sleep", "60"], "timeout": "1s"}, "did not end within 1 s"),
    ({**COUNT, "command": ["sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x; exit 7"]}, "ended with 7"),
    ({**COUNT, "selector": "app=nobody"}, "no running pod is chosen"),
    ({**COUNT, "container": "nobody"}, "nobody"),
]


def test_every_assertion_is_tried_and_a_failed_one_fails_the_drill(
    program: Program, range_cluster: Cluster, application: str, cluster_flags: tuple[str, ...],
    drilled: tuple[str, ...], tmp_path: Path,
) -> None:  # fmt: skip
    """One of each kind of failure, and one that passes after them; exit code 66, evidence left, nothing else."""
    tried = [{**each, "name": f"wrong-{number}"} for number, (each, _) in enumerate(WRONG)]
    file = document(tmp_path, application, *tried, COUNT)
    failed = program("drill", "-f", file, *cluster_flags, *drilled, "--report", tmp_path / "evidence")
    assert (failed.exit_code, failed.error_code) == (66, "DRILL-FAILED"), str(failed)
    (report,) = (tmp_path / "evidence").glob("*.json")
    found = json.loads(report.read_text())
    assert [each["passed"] for each in found["assertions"]] == [False] * len(WRONG) + [True]
    for each, (_, why) in zip(found["assertions"], WRONG, strict=False):
        assert why in each["why"]
        assert len(each["said"]) <= 2000
    assert found["removed"]
    assert namespaces(range_cluster) == []


def test_a_recovery_that_fails_is_a_failed_drill_with_a_report(
    practice: PracticeRange, program: Program, shop: tuple[Cluster, tuple[object, ...]], tmp_path: Path
) -> None:
    """The API server refuses a workload: the report names it, and all that was made is gone."""
    cluster, flags = shop
    refusal = practice.access.inject(Fault("answer", r"-drill-\w+/statefulsets", "POST", status=422, times=50))
    failed = program("drill", "shop", *flags, "--report", tmp_path / "evidence")
    practice.access.heal()
    assert refusal.fired
    assert (failed.exit_code, failed.error_code) == (66, "DRILL-FAILED"), str(failed)
    (report,) = (tmp_path / "evidence").glob("*.json")
    found = json.loads(report.read_text())
    assert "StatefulSet" in found["failure"]
    assert (found["achieved_rto"], found["removed"]) == (None, True)
    assert namespaces(cluster) == []
    assert leftovers(cluster) == []


def test_an_interrupted_drill_is_removed(
    program: Program, shop: tuple[Cluster, tuple[object, ...]], tmp_path: Path
) -> None:
    """SIGTERM while an assertion runs: exit code 130, and nothing is left."""
    cluster, flags = shop
    witness = tmp_path / "asserting"
    text = {
        "apiVersion": "refloat/v1", "kind": "Application", "name": "shop", "members": [{"namespace": "shop"}],
        "drill": {"assertions": [{"name": "slow", "command": ["sh", "-c", f"touch {witness}; sleep 5"]}]},
    }  # fmt: skip
    (tmp_path / "app.yaml").write_text(yaml.safe_dump(text))
    process = program.start("drill", "-f", tmp_path / "app.yaml", *flags)
    try:
        until(witness.exists, "the assertion runs")
        os.kill(process.pid, signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=LIMIT_SECONDS)
    finally:
        process.kill()
    assert process.returncode == 130, stdout + stderr
    assert namespaces(cluster) == []
    assert leftovers(cluster) == []


def test_a_dry_run_creates_nothing(
    program: Program, range_cluster: Cluster, cluster_flags: tuple[str, ...], drilled: tuple[str, ...]
) -> None:
    """The plan and what keeps it apart."""
    shown: Outcome = program("drill", "cli-small", *cluster_flags, *drilled, "--dry-run", "-o", "json").done()
    assert any("network policy" in each for each in shown.json["isolation"])
    assert namespaces(range_cluster) == []


@pytest.mark.parametrize(
    ("assertion", "words"),
    [
        ({"name": "a", "command": ["x"], "expects": "y"}, "expects"),
        ({"name": "a", "command": ["x"], "expect": "("}, "no regular"),
    ],
)
def test_a_wrong_document_is_refused(
    program: Program, application: str, cluster_flags: tuple[str, ...], drilled: tuple[str, ...], tmp_path: Path,
    assertion: dict[str, Any], words: str,
) -> None:  # fmt: skip
    """Before anything is opened."""
    refused = program("drill", "-f", document(tmp_path, application, assertion), *cluster_flags, *drilled)
    assert refused.exit_code not in (0, 66)
    assert words in refused.stderr
