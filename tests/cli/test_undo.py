"""A recovery taken back by its run: what it created goes, what others put there and what others run stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kube.cluster import Cluster
from practice.access import Fault
from practice.range import PracticeRange
from refloat.errors import ApprovalMissing, ConfigError, LeaseHeld, ObjectMissing
from refloat.recovery_point import new_id
from tests.cli import small
from tests.cli.command import Program
from tests.e2e.leftovers import leftovers

ELSEWHERE, KINDS = "cli-undone", ("Pod", "StatefulSet.apps", "PersistentVolumeClaim", "Secret", "ConfigMap")


@pytest.fixture(scope="module")
def protected(
    program: Program, application: str, cluster_flags: tuple[str, ...], password_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, ...]:  # fmt: skip
    """The application protected; the flags that every recovery of it has."""
    folder = tmp_path_factory.mktemp("undone")
    flags = (*cluster_flags, "--vault", f"file://{folder}/vault", "--password-file", str(password_file))
    program("protect", "cli-small", "-n", application, "-l", small.LABEL, *flags).done()
    return ("cli-small", *flags, "--map-namespace", f"{application}={ELSEWHERE}")


@pytest.fixture
def recovered(program: Program, range_cluster: Cluster, protected: tuple[str, ...]) -> Iterator[str]:
    """The run of a recovery into another namespace, which is gone at the end."""
    yield str(program("recover", *protected, "--yes", "-o", "json").done().json["run"])
    if range_cluster.delete("Namespace", ELSEWHERE):
        range_cluster.wait("Namespace", ELSEWHERE, None, lambda obj: obj is None, timeout=small.WAIT, what="gone")


def names(cluster: Cluster, namespace: str) -> set[str]:
    """What is there of the kinds that matter here, but for what every namespace has."""
    found = ((kind, each["metadata"]["name"]) for kind in KINDS for each in cluster.list(kind, namespace))
    return {f"{kind}/{name}" for kind, name in found if name != "kube-root-ca.crt"}


def test_all_of_it_goes_with_its_namespace(
    program: Program, range_cluster: Cluster, application: str, protected: tuple[str, ...], recovered: str
) -> None:
    """The dry run shows it and removes nothing; a yes is needed; then namespace, claims and data are gone, no more."""
    before = names(range_cluster, application)
    volumes = {each["metadata"]["name"] for each in range_cluster.list("PersistentVolume")}
    words = ("recover", *protected, "--undo", recovered)
    shown = program(*words, "--dry-run", "-o", "json").done().json
    assert f"Namespace {ELSEWHERE}" in shown["to_remove"]
    assert f"StatefulSet {ELSEWHERE}/db" in shown["to_remove"]
    assert shown["stays"] == {}
    assert program(*words).exit_code == ApprovalMissing.exit_code
    assert "StatefulSet.apps/db" in names(range_cluster, ELSEWHERE)
    done = program(*words, "--yes", "-o", "json").done().json
    assert sorted(done["removed"]) == sorted(shown["to_remove"])
    assert range_cluster.find("Namespace", ELSEWHERE) is None
    assert names(range_cluster, application) == before
    claims = [each["spec"]["claimRef"]["namespace"] for each in range_cluster.list("PersistentVolume")]
    assert ELSEWHERE not in claims
    assert len(list(range_cluster.list("PersistentVolume"))) == len(volumes) - 1
    again = program(*words, "--yes")
    assert (again.exit_code, again.error_code) == (ObjectMissing.exit_code, ObjectMissing.code)
    assert leftovers(range_cluster) == []


def test_what_somebody_else_put_there_stays(
    program: Program, range_cluster: Cluster, protected: tuple[str, ...], recovered: str
) -> None:
    """With its namespace, and a word about it; so does what another run created."""
    theirs = {"name": "theirs", "namespace": ELSEWHERE}
    range_cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": theirs})
    range_cluster.delete("Secret", "db-auth", ELSEWHERE)
    other = program("recover", *protected, "--yes", "-o", "json").done().json
    assert (other["created"], other["run"] != recovered) == (1, True)
    done = program("recover", *protected, "--undo", recovered, "--yes")
    assert done.exit_code == 0, str(done)
    assert f"Namespace {ELSEWHERE} stays, for it has ConfigMap {ELSEWHERE}/theirs" in done.stderr
    assert names(range_cluster, ELSEWHERE) == {"ConfigMap/theirs", "Secret/db-auth"}


def test_a_recovery_that_was_broken_off_is_taken_back(
    practice: PracticeRange, program: Program, password_file: Path, tmp_path: Path
) -> None:
    """The server refuses its workload: what came before it goes, by the run that the namespace names."""
    cluster = Cluster.open(kubeconfig=str(practice.kubeconfig))
    small.create(cluster, "shop")
    flags = ("--kubeconfig", practice.kubeconfig, "--vault", f"file://{tmp_path}/v", "--password-file", password_file)
    program("protect", "-n", "shop", *flags).done()
    refusal = practice.access.inject(Fault("answer", r"namespaces/again/statefulsets", "POST", status=422, times=50))
    to = ("recover", "shop", *flags, "--to-namespace", "again")
    assert program(*to, "--yes").exit_code != 0
    assert refusal.fired
    practice.access.heal()
    run = cluster.get("Namespace", "again")["metadata"]["annotations"]["refloat.io/recovered-by"]
    program(*to, "--undo", run, "--yes").done()
    assert cluster.find("Namespace", "again") is None
    assert leftovers(cluster) == []


def test_a_run_that_is_none_and_one_that_is_at_work(
    program: Program, range_cluster: Cluster, protected: tuple[str, ...], recovered: str
) -> None:
    """Named errors, and nothing is removed."""
    from kube.runs import attend, leave

    wrong = program("recover", *protected, "--undo", "latest", "--yes")
    assert wrong.exit_code == ConfigError.exit_code
    unknown = program("recover", *protected, "--undo", new_id(), "--yes")
    assert (unknown.exit_code, unknown.error_code) == (ObjectMissing.exit_code, ObjectMissing.code)
    attend(range_cluster, recovered)
    try:
        busy = program("recover", *protected, "--undo", recovered, "--yes")
    finally:
        leave(range_cluster, recovered)
    assert (busy.exit_code, busy.error_code) == (LeaseHeld.exit_code, LeaseHeld.code)
    assert "StatefulSet.apps/db" in names(range_cluster, ELSEWHERE)
