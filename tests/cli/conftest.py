"""What tests of the command share: a private home, the range with a small application, one Prefect server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kube.cluster import Cluster
from practice.range import PracticeRange
from tests.cli import small
from tests.cli.command import TAKEN_OUT, InProcess, Program

PASSWORD = "the-vault-password-of-these-tests"
NAMESPACE = "cli-small"


@pytest.fixture
def refloat(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InProcess]:
    """The command in this process, in an empty environment."""
    for name in os.environ:
        if TAKEN_OUT.match(name):
            monkeypatch.delenv(name)
    monkeypatch.setenv("REFLOAT_HOME", str(tmp_path / "refloat-home"))
    yield InProcess(capsys)


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The command as a process, with a home and a Prefect server of this session's own."""
    home = tmp_path_factory.mktemp("refloat-home")
    program = Program({"REFLOAT_HOME": str(home)})
    program("server", "start").done()
    yield program
    program("server", "stop")


@pytest.fixture(scope="session")
def range_cluster(shared_range: PracticeRange) -> Cluster:
    """The shared practice range."""
    return Cluster.open(kubeconfig=str(shared_range.kubeconfig))


@pytest.fixture(scope="session")
def application(range_cluster: Cluster) -> str:
    """The namespace the small application runs in."""
    small.create(range_cluster, NAMESPACE)
    return NAMESPACE


@pytest.fixture(scope="session")
def cluster_flags(shared_range: PracticeRange) -> tuple[str, ...]:
    """What leads to the range."""
    return ("--kubeconfig", str(shared_range.kubeconfig))


@pytest.fixture(scope="session")
def password_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that holds the vault password."""
    path = tmp_path_factory.mktemp("password") / "password"
    path.write_text(PASSWORD + "\n")
    return path
