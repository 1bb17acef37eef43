"""Every object store keeps the contract: a folder, S3, Cloud Storage, Blob, and a real S3 where one is named."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from azure.storage.blob import BlobServiceClient
from moto.server import ThreadedMotoServer

from refloat.conformance.object_store import CHECKS, Check, Open, raises
from refloat.errors import AccessDenied, NotFound
from refloat.ports.object_store import ObjectStore
from refloat.registry import open_object_store
from tests.providers import fake_gcs
from tests.tools import azurite

REAL = "REFLOAT_TEST_S3"
BREAKS = "REFLOAT_TEST_S3_BREAKS"
"""Names of checks, by spaces, that the real server under test is known to break."""
BUCKET = "contract"


@pytest.fixture(scope="module")
def emulated_s3() -> Iterator[dict[str, str]]:
    """The environment of an emulated S3 server with one bucket; it listens on loopback and checks no signature."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "emulated",
        "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16),
        "AWS_REGION": "us-east-1",
    }
    boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    ).create_bucket(Bucket=BUCKET)
    yield environment
    server.stop()


@pytest.fixture(scope="module")
def cloud_storage() -> Iterator[dict[str, str]]:
    """The environment of our own strict server of Cloud Storage's JSON API."""
    with fake_gcs.FakeGcs() as cloud:
        yield {"STORAGE_EMULATOR_HOST": cloud.endpoint}


@pytest.fixture(scope="module")
def blob_storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of an Azurite of our own with one container; it checks signatures."""
    program = azurite.find()
    if program is None:
        pytest.skip("NOT RUN: Azurite is missing (python -m tests.tools.azurite gets it)")
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    with azurite.running(program, tmp_path_factory.mktemp("azurite"), key) as endpoint:
        words = {"AZURE_STORAGE_SERVICE_ENDPOINT": endpoint, "AZURE_STORAGE_ACCOUNT": azurite.ACCOUNT}
        credential = {"account_name": azurite.ACCOUNT, "account_key": key}
        BlobServiceClient(endpoint, credential=credential).create_container(BUCKET)
        yield {**words, "AZURE_STORAGE_KEY": key}


KINDS = [
    "folder",
    "emulated",
    "cloud storage",
    pytest.param("azurite", marks=pytest.mark.lane("azurite")),
    pytest.param("real", marks=pytest.mark.lane("s3")),
]


@pytest.fixture(params=KINDS)
def open_fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """How to open an empty store of one kind."""
    if request.param == "folder":
        return lambda: open_object_store(f"file://{tmp_path}/{secrets.token_hex(4)}/vault", {})
    if request.param == "emulated":
        environment = request.getfixturevalue("emulated_s3")
        return lambda: open_object_store(f"s3://{BUCKET}/{secrets.token_hex(4)}", environment)
    if request.param == "cloud storage":
        environment = request.getfixturevalue("cloud_storage")
        return lambda: open_object_store(f"gs://{fake_gcs.BUCKET}/{secrets.token_hex(4)}", environment)
    if request.param == "azurite":
        environment = request.getfixturevalue("blob_storage")
        return lambda: open_object_store(f"az://{BUCKET}/{secrets.token_hex(4)}", environment)
    url = os.environ.get(REAL, "")
    if not url:
        pytest.skip(f"NOT RUN: {REAL} names no real S3 bucket")
    return lambda: open_object_store(f"{url}/{secrets.token_hex(8)}", os.environ)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_store_keeps_the_contract(check: Check, open_fresh: Open, request: pytest.FixtureRequest) -> None:
    """One check of the conformance suite; what a real server is known to break is reported as not run."""
    known = os.environ.get(BREAKS, "").split()
    if check.__name__ in known and request.node.callspec.params["open_fresh"] == "real":
        pytest.skip(f"NOT RUN: {BREAKS} says that this server is known to break {check.__name__}")
    check(open_fresh)


CALLS: dict[str, Callable[[ObjectStore], object]] = {
    "capabilities": lambda store: store.capabilities(),
    "put": lambda store: store.put("a", b""),
    "create": lambda store: store.put("a", b"", if_absent=True),
    "get": lambda store: store.get("a"),
    "stat": lambda store: store.stat("a"),
    "list": lambda store: list(store.list()),
    "delete": lambda store: store.delete("a"),
}


@pytest.fixture
def real_url() -> str:
    """A bucket on a real S3 server."""
    url = os.environ.get(REAL, "")
    if not url:
        pytest.skip(f"NOT RUN: {REAL} names no real S3 bucket")
    return url


@pytest.mark.lane("s3")
@pytest.mark.parametrize("name", CALLS)
def test_a_real_store_refuses_by_name(real_url: str, name: str) -> None:
    """A wrong secret, a key that nobody has, a bucket that is not there."""
    wrong = {"AWS_SECRET_ACCESS_KEY": secrets.token_hex(16)}
    stranger = {"AWS_ACCESS_KEY_ID": secrets.token_hex(8), **wrong}
    nowhere = f"s3://refloat-{secrets.token_hex(8)}/none"
    for url, words, kind in (
        (real_url, wrong, AccessDenied),
        (real_url, stranger, AccessDenied),
        (nowhere, {}, NotFound),
    ):
        store = open_object_store(url, {**os.environ, **words})
        raises(kind, lambda store=store: CALLS[name](store), f"{name} of {url}")  # type: ignore[misc]
        store.close()
