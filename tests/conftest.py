"""Lanes: the same tests on the practice range and, where the environment names one, on a real cluster."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from kube.cluster import Cluster
from practice.range import PracticeRange

LAB = "REFLOAT_TEST_KUBECONFIG"


@pytest.fixture
def practice(tmp_path: Path) -> Iterator[PracticeRange]:
    """A practice range of the test's own, for faults and identities."""
    with PracticeRange(tmp_path / "range") as practice:
        yield practice


@pytest.fixture(scope="session")
def shared_range(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PracticeRange]:
    """One practice range for all tests that work in namespaces of their own."""
    with PracticeRange(tmp_path_factory.mktemp("range")) as practice:
        yield practice


@pytest.fixture(params=["practice", pytest.param("lab", marks=pytest.mark.lane("lab"))])
def kubeconfig(request: pytest.FixtureRequest) -> str:
    """The administrator's kubeconfig of one lane."""
    if request.param == "practice":
        return str(request.getfixturevalue("shared_range").kubeconfig)
    path = os.environ.get(LAB, "")
    if not path:
        pytest.skip(f"NOT RUN: {LAB} names no real cluster")
    return path


@pytest.fixture
def cluster(kubeconfig: str) -> Cluster:
    """The cluster of one lane."""
    return Cluster.open(kubeconfig=kubeconfig)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own, its deletion begun at the end."""
    name = f"refloat-test-{secrets.token_hex(4)}"
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    cluster.delete("Namespace", name)
