"""What the environment and the fixtures give the proof, as values: sites, vaults, and one protect run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import pytest

from kube.cluster import Cluster
from tests.e2e.leftovers import Leftover
from tests.e2e.shop import Shop

NEEDED = ("REFLOAT_E2E_KUBECONFIG", "REFLOAT_E2E_VAULT", "REFLOAT_MOVER_IMAGE", "REFLOAT_E2E_POSTGRES_IMAGE")
NAMESPACE = "shop-e2e"
ELSEWHERE = "shop-e2e-elsewhere"
BROKEN_OFF = "shop-e2e-broken-off"


def environment(name: str) -> str:
    """A variable the lane cannot do without; the test is reported as not run where it is missing."""
    value = os.environ.get(name, "")
    if not value:
        pytest.skip(f"NOT RUN: {name} not set (tests/e2e/README.md)")
    return value


@dataclass(frozen=True)
class Site:
    """One cluster and the kubeconfig that leads to it."""

    kubeconfig: str
    cluster: Cluster

    @property
    def flags(self) -> tuple[str, ...]:
        """What every command that talks to it is given."""
        return ("--kubeconfig", self.kubeconfig)


def open_site(variable: str) -> Site:
    """The site an environment variable names."""
    kubeconfig = environment(variable)
    return Site(kubeconfig, Cluster.open(kubeconfig=kubeconfig))


@dataclass(frozen=True)
class Vault:
    """A prefix of this session's own, and the password file of the vault in it."""

    url: str
    password_file: str

    @property
    def flags(self) -> tuple[str, ...]:
        """What every command that opens it is given."""
        return ("--vault", self.url, "--password-file", self.password_file)

    def beside(self, name: str) -> Vault:
        """Another vault of this session under the same password file."""
        return Vault(f"{self.url}-{name}", self.password_file)


@dataclass(frozen=True)
class Protected:
    """One protect run of the shop under load, with what was true around it."""

    shop: Shop
    bulk_digest: str
    committed_before: int
    committed_after: int
    neighbour_before: dict[str, Any]
    neighbour_after: dict[str, Any]
    left: list[Leftover]
    point: dict[str, Any]
    point_id: str

    def assert_orders(self, shop: Shop) -> None:
        """The recovered rows are those of one instant within the run: 1..k without a gap."""
        count, lowest, highest = shop.orders()
        assert (count, lowest) == (highest, 1), "rows are missing in between"
        assert self.committed_before <= highest <= self.committed_after
