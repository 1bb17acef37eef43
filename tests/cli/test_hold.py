"""A hold by the command, on the practice range: what it proves, a cut that comes too late, and two runs at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from kube.application_lease import hold_application
from kube.cluster import Cluster
from refloat.certificate import Certificate
from tests.cli import small
from tests.cli.command import Outcome, Program
from tests.e2e.leftovers import leftovers

LEASE = "Lease.coordination.k8s.io"


@pytest.fixture(scope="module")
def vault(password_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ...]]:
    """A vault of this module's own."""
    yield ("--vault", f"file://{tmp_path_factory.mktemp('held')}/vault", "--password-file", str(password_file))


def protect(
    program: Program, flags: tuple[str, ...], folder: Path, namespace: str, *, freeze: str = "true", soft: str = "10s"
) -> Outcome:
    """Protect the small application, held by commands of its document."""
    commands = {"freeze": freeze, "thaw": "true", "confirm": "true", "stopsWrites": "true"}
    document = {
        "apiVersion": "refloat/v1",
        "kind": "Application",
        "name": "held",
        "members": [{"namespace": namespace, "selector": small.LABEL}],
        "quiesce": [{"engine": "commands", "options": commands}],
        "hold": {"softBudget": soft},
    }
    file = folder / "held.yaml"
    file.write_text(yaml.safe_dump(document))
    return program("protect", "-f", file, *flags, "-o", "json")


def test_a_hold_is_proven_and_leaves_nothing(
    program: Program, range_cluster: Cluster, application: str, cluster_flags: tuple[str, ...],
    vault: tuple[str, ...], tmp_path: Path,
) -> None:  # fmt: skip
    """The certificate encloses the cut; neither lease nor anything of the run is left."""
    point = protect(program, (*cluster_flags, *vault), tmp_path, application).done().json["point"]
    found = Certificate.model_validate(point["certificate"])
    assert (point["consistency"], found.reasons, len(found.parts)) == ("application-consistent", (), 1)
    assert found.parts[0].confirmed
    assert range_cluster.find(LEASE, "application-held", "refloat") is None
    assert leftovers(range_cluster) == []


def test_a_cut_after_the_budget_is_worth_no_more_than_a_power_cut(
    program: Program, application: str, cluster_flags: tuple[str, ...], vault: tuple[str, ...], tmp_path: Path
) -> None:
    """Freezing alone uses the budget up: the pod is let go first, and the cut that follows lies in no hold."""
    slow = protect(program, (*cluster_flags, *vault), tmp_path, application, freeze="sleep 1.3", soft="1s").done()
    found = Certificate.model_validate(slow.json["point"]["certificate"])
    assert slow.json["point"]["consistency"] == "crash-consistent"
    assert found.late
    assert any("after the hold's budget" in reason for reason in found.reasons)
    assert found.parts[0].confirmed
    again = protect(program, (*cluster_flags, *vault), tmp_path, application).done()
    assert again.json["point"]["consistency"] == "application-consistent"
    assert "the last cut came later than the 10s of a hold" in again.stderr


def test_a_second_run_is_refused(
    program: Program, range_cluster: Cluster, application: str, cluster_flags: tuple[str, ...],
    vault: tuple[str, ...], tmp_path: Path,
) -> None:  # fmt: skip
    """By refloat's own lease; it says which run is at work, and nothing is frozen."""
    witness = tmp_path / "frozen"
    with hold_application(range_cluster, "held", "0123456789abcdef"):
        refused = protect(program, (*cluster_flags, *vault), tmp_path, application, freeze=f"touch {witness}")
    assert (refused.exit_code, refused.error_code) == (42, "LEASE-HELD"), str(refused)
    assert "0123456789abcdef" in refused.stderr
    assert not witness.exists()
    assert leftovers(range_cluster) == []
