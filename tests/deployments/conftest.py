"""A real cluster with the manifests applied, and logging in as the accounts that they make."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kube.cluster import Cluster
from kube.home import HOME, SERVICE_ACCOUNT
from tests.conftest import LAB
from tests.contract.given import unique
from tests.deployments.installing import CONTROLLER, install, uninstall
from tests.e2e.kubeconfigs import write


@pytest.fixture
def lab() -> str:
    """An administrator's kubeconfig of a real cluster; the practice range judges neither roles nor policies."""
    path = os.environ.get(LAB, "")
    if not path:
        pytest.skip(f"NOT RUN: {LAB} names no real cluster")
    return path


@pytest.fixture
def admin(lab: str) -> Iterator[Cluster]:
    """The administrator of a real cluster with the manifests applied."""
    cluster = Cluster.open(kubeconfig=lab)
    made = install(cluster)
    try:
        yield cluster
    finally:
        uninstall(cluster, made)


@pytest.fixture
def place_of_own(admin: Cluster) -> Iterator[str]:
    """A namespace of the test's own."""
    name = unique("rights")
    admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    admin.delete("Namespace", name)


def account(admin: Cluster, lab: str, name: str, folder: Path) -> Iterator[str]:
    """A kubeconfig that logs in as an account of refloat's namespace."""
    secret = unique(name)
    meta = {"namespace": HOME, "name": secret, "annotations": {"kubernetes.io/service-account.name": name}}
    kind = "kubernetes.io/service-account-token"
    admin.create({"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": meta})
    try:
        yield str(write(admin, lab, HOME, secret, folder))
    finally:
        admin.delete("Secret", secret, HOME)


@pytest.fixture
def controller_kubeconfig(admin: Cluster, lab: str, tmp_path: Path) -> Iterator[str]:
    """How the controller logs in."""
    yield from account(admin, lab, CONTROLLER, tmp_path)


@pytest.fixture
def controller(controller_kubeconfig: str) -> Cluster:
    """The cluster as the controller sees it."""
    return Cluster.open(kubeconfig=controller_kubeconfig)


@pytest.fixture
def mover(admin: Cluster, lab: str, tmp_path: Path) -> Iterator[Cluster]:
    """The cluster as a mover would see it, had it a token."""
    for kubeconfig in account(admin, lab, SERVICE_ACCOUNT, tmp_path):
        yield Cluster.open(kubeconfig=kubeconfig)
