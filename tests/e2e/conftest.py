"""What the environment gives the proof: sites, a store, images; and the one shop most tests look at."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from refloat.registry import open_object_store
from tests.e2e.command import Refloat
from tests.e2e.given import BROKEN_OFF, ELSEWHERE, NAMESPACE, NEEDED, Protected, Site, Vault, environment, open_site
from tests.e2e.leftovers import leftovers
from tests.e2e.shop import (
    LABEL,
    Customers,
    Shop,
    create_all,
    make_namespace,
    neighbour_facts,
    remove_namespace,
    wait_replicas,
)

HERE = Path(__file__).parent
TOOK: dict[str, float] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without clusters no test of this folder runs, and each says so."""
    missing = [name for name in NEEDED if not os.environ.get(name)]
    if missing:
        reason = pytest.mark.skip(reason=f"NOT RUN: {', '.join(missing)} not set (tests/e2e/README.md)")
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(reason)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How long each phase took."""
    if TOOK:
        terminalreporter.section("seconds per phase")
        for phase, seconds in TOOK.items():
            terminalreporter.write_line(f"{seconds:8.1f}  {phase}")


@pytest.fixture(scope="session")
def site_a() -> Site:
    """Where the shop runs."""
    return open_site("REFLOAT_E2E_KUBECONFIG")


@pytest.fixture(scope="session")
def site_b() -> Site:
    """Another cluster, where it is recovered to."""
    return open_site("REFLOAT_E2E_KUBECONFIG_B")


@pytest.fixture(scope="session")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    """An empty prefix of the store, emptied again at the end; kept with REFLOAT_E2E_KEEP=1."""
    root, name = environment("REFLOAT_E2E_VAULT").rstrip("/"), f"run-{secrets.token_hex(4)}"
    password = tmp_path_factory.mktemp("vault") / "password"
    password.write_text(secrets.token_hex(16) + "\n")
    yield Vault(f"{root}/{name}/vault", str(password))
    if not os.environ.get("REFLOAT_E2E_KEEP"):
        store = open_object_store(f"{root}/{name}", os.environ)
        for each in list(store.list()):
            store.delete(each.key)
        store.close()


@pytest.fixture(scope="session")
def refloat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Refloat]:
    """The command, with a home and a Prefect server of this session's own, stopped at the end."""
    home = tmp_path_factory.mktemp("refloat-home")
    command = Refloat({"REFLOAT_HOME": str(home), "REFLOAT_MOVER_IMAGE": environment("REFLOAT_MOVER_IMAGE")}, TOOK)
    yield command
    command("server", "stop")


@pytest.fixture(scope="session")
def shop(site_a: Site, refloat: Refloat) -> Iterator[Shop]:
    """The shop and its neighbour, in one namespace of site a; all namespaces of the proof are removed at the end."""
    assert refloat
    image = environment("REFLOAT_E2E_POSTGRES_IMAGE")
    make_namespace(site_a.cluster, NAMESPACE)
    create_all(site_a.cluster, NAMESPACE, "neighbour.yaml", IMAGE=image)
    running = Shop(site_a.cluster, NAMESPACE).start(image)
    wait_replicas(site_a.cluster, "StatefulSet.apps", "neighbour", NAMESPACE, 1)
    yield running
    if not os.environ.get("REFLOAT_E2E_KEEP"):
        for name in (NAMESPACE, ELSEWHERE, BROKEN_OFF):
            remove_namespace(site_a.cluster, name)


@pytest.fixture(scope="session")
def protected(shop: Shop, site_a: Site, vault: Vault, refloat: Refloat) -> Protected:
    """The shop protected by label while customers place orders."""
    neighbour = neighbour_facts(site_a.cluster, shop.namespace)
    digest = shop.bulk_digest()
    for _ in range(20):
        shop.place_order()
    words = ("protect", "shop", "-n", shop.namespace, "-l", LABEL, *site_a.flags, *vault.flags)
    with Customers(shop) as customers:
        before = customers.committed
        refloat.done(*words, phase="protect (first, vault created, Prefect server started)")
    assert not customers.failure, f"the shop could not take orders during the run: {customers.failure}"
    points = refloat.done("points", "shop", *site_a.flags, *vault.flags, "-o", "json").json
    assert len(points) == 1, points
    return Protected(
        shop=shop,
        bulk_digest=digest,
        committed_before=before,
        committed_after=customers.committed,
        neighbour_before=neighbour,
        neighbour_after=neighbour_facts(site_a.cluster, shop.namespace),
        left=leftovers(site_a.cluster),
        point=points[0]["point"],
        point_id=points[0]["point"]["id"],
    )
