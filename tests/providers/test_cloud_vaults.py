"""A whole vault in each cloud: archived, sealed, verified and extracted, over good lines and bad ones."""

from __future__ import annotations

import base64
import random
import secrets
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient

from providers.object_stores.patience import Patience
from refloat.errors import AccessDenied
from refloat.registry import open_object_store
from tests.providers.clouds import BRISK, Cloud, started
from tests.providers.faulty_cloud import clear, storm
from tests.tools import azurite
from tests.vault.given import MIB, PASSWORD, facts, protect, put_oddities, tree_of
from vault.catalogue import points
from vault.extract import extract
from vault.repository import init, open_vault
from vault.tally import Tally
from vault.verify import verify


@pytest.fixture(params=["gs", "az"])
def cloud(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    """One of the two."""
    with started(request.param) as server:
        yield Cloud(request.param, server)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder full of oddities."""
    folder = tmp_path / "source"
    folder.mkdir()
    put_oddities(folder)
    return folder


def test_a_vault_outlasts_a_storm_and_comes_back_whole(cloud: Cloud, source: Path, tmp_path: Path) -> None:
    """Bar 10, a run: 30 % of requests refused, some cut, some answers lost; one point, whole, and nothing twice."""
    vault = init(cloud.open(patience=BRISK), PASSWORD)
    cloud.server.weather = storm
    with vault.lock("run"):
        protect(vault, source)
    cloud.server.weather = clear
    print(f"{cloud.name}: {len(cloud.server.requests)} requests, faults {dict(cloud.server.faults)}")
    assert cloud.server.faults["refuse"] >= 3
    fresh = open_vault(cloud.open(patience=Patience()), PASSWORD)
    [point] = points(fresh)
    verify(fresh, point, level="full")
    out = tmp_path / "out"
    out.mkdir()
    extract(fresh, tree_of(point), out, Tally(), top=point.point.volumes[0].top)
    assert facts(out) == facts(source)
    assert len(list(fresh.store.list("snapshots/"))) == 1 and not list(fresh.store.list("locks/"))


def test_credentials_that_expire_leave_no_partial_point(cloud: Cloud, tmp_path: Path) -> None:
    """Bar 12: wherever they expire, the run ends by name, nothing partial is listed, and the next run completes."""
    rng, folder = random.Random(3), tmp_path / "source"
    folder.mkdir()
    init(cloud.open(), PASSWORD)
    ends, samples, whole, sealed = Counter[str](), 8, 0, 0
    for turn in range(samples + 1):
        (folder / "data").write_bytes(rng.randbytes(MIB))
        begun = len(cloud.server.requests)
        last = begun + (turn - 1) * whole // samples if turn else 10**9
        cloud.server.weather = lambda rng, method, path, last=last: (
            "expire" if len(cloud.server.requests) > last else None
        )
        try:
            vault = open_vault(cloud.open(), PASSWORD)
            with vault.lock("run"):
                protect(vault, folder)
            ends["completed"] += 1
        except AccessDenied as denied:
            assert cloud.place in denied.message
            ends["named"] += 1
        cloud.server.weather = clear
        whole = whole or len(cloud.server.requests) - begun
        near = open_vault(cloud.open(), PASSWORD)
        for old in near.store.list("locks/"):  # the dead left their locks
            near.store.delete(old.key)
        listed = points(near)
        assert len(listed) - sealed in (0, 1)
        sealed = len(listed)
        if sealed:
            verify(near, listed[-1], level="full")
    print(f"{cloud.name}: {samples} expiries over {whole} requests: {dict(ends)}")
    assert ends["named"] >= samples - 1 and cloud.server.faults["expire"] >= samples - 1
    with near.lock("run"):
        protect(near, folder)
    verify(near, points(near)[-1], level="full")


@pytest.mark.lane("azurite")
def test_a_vault_on_azurite(source: Path, tmp_path: Path) -> None:
    """The same straight line against Microsoft's own emulator."""
    program = azurite.find()
    if program is None:
        pytest.skip("NOT RUN: Azurite is missing (python -m tests.tools.azurite gets it)")
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    with azurite.running(program, tmp_path, key) as endpoint:
        words = {"AZURE_STORAGE_CONNECTION_STRING": f"AccountName={azurite.ACCOUNT};AccountKey={key};"}
        words["AZURE_STORAGE_CONNECTION_STRING"] += f"BlobEndpoint={endpoint}"
        with BlobServiceClient(endpoint, credential={"account_name": azurite.ACCOUNT, "account_key": key}) as client:
            client.create_container("vaults")
        vault = init(open_object_store("az://vaults/shop", words), PASSWORD)
        with vault.lock("run"):
            protect(vault, source)
        fresh = open_vault(open_object_store("az://vaults/shop", words), PASSWORD)
        [point] = points(fresh)
        verify(fresh, point, level="full")
        (tmp_path / "out").mkdir()
        extract(fresh, tree_of(point), tmp_path / "out", Tally(), top=point.point.volumes[0].top)
        assert facts(tmp_path / "out") == facts(source)
