"""Where a cloud's store is and who asks: URLs, endpoints, keys, identities, proxies, CAs and clocks."""

from __future__ import annotations

import base64
import json
import secrets
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from providers.object_stores import azure, gcs
from refloat.clock import now
from refloat.errors import AccessDenied, ConfigError, Unavailable, UnknownProvider
from refloat.registry import open_object_store
from tests.providers.clouds import Cloud
from tests.providers.fake_blob import ACCOUNT, CONTAINER, FakeBlob
from tests.providers.fake_gcs import BUCKET, FakeGcs

SECRET = "ab/+" + base64.b64encode(secrets.token_bytes(32)).decode()
KEYS = {"AZURE_STORAGE_ACCOUNT": "someone", "AZURE_STORAGE_KEY": SECRET}


@pytest.mark.parametrize(
    "rest",
    ["", "/prefix", "b/prefix", "bucket/a//b", "bucket/../b", "bucket/a b", "bucket/a?sig=SECRET", "bucket/a#b",
     "bucket:80/a", "[bucket/a", f"bucket/{'a' * 600}", "someone:SECRET@bucket/a", "UPPER/a"],
)  # fmt: skip
@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_a_wrong_address_is_refused_at_once(scheme: str, rest: str) -> None:
    """Before anything is asked of a server, and without repeating a secret that somebody put into it."""
    with pytest.raises(ConfigError) as caught:
        open_object_store(f"{scheme}://{rest.replace('SECRET', SECRET)}", KEYS)
    assert SECRET not in str(caught.value.as_json()) and caught.value.guidance


@pytest.mark.parametrize(
    ("url", "shown", "endpoint"),
    [
        ("az://box", "az://box", "https://someone.blob.core.windows.net"),
        ("az://box/a/B_1/", "az://box/a/B_1", "https://someone.blob.core.windows.net"),
        ("az://other.blob.core.windows.net/box/a", "az://other.blob.core.windows.net/box/a",
         "https://other.blob.core.windows.net"),
        ("az://other.blob.core.usgovcloudapi.net/box", "az://other.blob.core.usgovcloudapi.net/box",
         "https://other.blob.core.usgovcloudapi.net"),
    ],
)  # fmt: skip
def test_the_account_is_the_urls_or_the_environments(url: str, shown: str, endpoint: str) -> None:
    """A container's name is unique in its account only; two accounts in one run are two URLs."""
    address = azure.parse(url)
    assert address.url == shown and azure.read(address, KEYS).endpoint == endpoint


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("gs://bucket/a", {"API_ENDPOINT_OVERRIDE": "localhost:9000"}),
        ("gs://bucket/a", {"STORAGE_EMULATOR_HOST": f"http://someone:{SECRET}@store"}),
        ("gs://bucket/a", {"GOOGLE_APPLICATION_CREDENTIALS": "/no/such/file"}),
        ("gs://bucket/a", {"GOOGLE_CREDENTIALS": f'{{"private_key": "{SECRET}"'}),
        ("gs://bucket/a", {"GOOGLE_CREDENTIALS": "{}"}),
        ("gs://bucket/a", {"REFLOAT_GCS_STORAGE_CLASS": "FROZEN"}),
        ("az://box/a", {}),
        ("az://box/a", {"AZURE_STORAGE_ACCOUNT": "No.Name"}),
        ("az://box/a", {**KEYS, "REFLOAT_AZURE_ACCESS_TIER": "Archive"}),
        ("az://box/a", {**KEYS, "AZURE_STORAGE_SERVICE_ENDPOINT": f"https://store?sig={SECRET}"}),
        ("az://box/a", {"AZURE_STORAGE_CONNECTION_STRING": f"Key={SECRET}"}),
    ],
)
def test_a_wrong_environment_is_refused_at_once(url: str, words: dict[str, str]) -> None:
    """Endpoint, credentials, class, account."""
    with pytest.raises(ConfigError) as caught:
        open_object_store(url, words)
    assert SECRET not in str(caught.value.as_json())


def test_a_missing_client_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """`pip install refloat` brings no cloud."""
    import sys

    for module, url, extra in (("gcs_store", "gs://bucket", "gcs"), ("azure_store", "az://box", "azure")):
        monkeypatch.setitem(sys.modules, f"providers.object_stores.{module}", None)
        with pytest.raises(UnknownProvider) as caught:
            open_object_store(url, KEYS)
        assert f"refloat[{extra}]" in caught.value.guidance


def test_a_key_that_is_no_key_is_named() -> None:
    """Not base64, or half of a document: said at the first call, without repeating it."""
    with pytest.raises((ConfigError, AccessDenied)) as caught:
        open_object_store("az://box/a", {**KEYS, "AZURE_STORAGE_KEY": "no base64!"}).put("a", b"")
    assert "no base64!" not in str(caught.value.as_json())
    with pytest.raises((ConfigError, AccessDenied)):
        open_object_store("gs://bucket/a", {"GOOGLE_CREDENTIALS": '{"type": "service_account"}'}).put("a", b"")


def test_without_credentials_the_guidance_says_how_to_give_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening is not refused: only asking is."""
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", "/nowhere")
    store = open_object_store("gs://bucket/a", {})
    for call in (store.mover_environment, lambda: store.put("a", b"")):
        with pytest.raises(AccessDenied) as caught:
            call()
        assert "GOOGLE_APPLICATION_CREDENTIALS" in caught.value.guidance


@pytest.fixture(scope="module")
def account() -> tuple[dict[str, str], bytes]:
    """A service account's document, but for where its tokens come from, and its public key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    document = {"type": "service_account", "client_email": "refloat@project", "private_key": private}
    return document, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def asking_for_tokens(cloud: FakeGcs, document: dict[str, Any]) -> dict[str, str]:
    """An environment with a document whose tokens come from the server."""
    cloud.tokens = {}
    return {"API_ENDPOINT_OVERRIDE": cloud.endpoint, "GOOGLE_CREDENTIALS": json.dumps(document)}


def test_a_service_account_gets_tokens_renews_them_and_is_handed_on(account: tuple[dict[str, str], bytes]) -> None:
    """A token that was taken back is renewed once; a mover gets the document."""
    document, public = account
    with FakeGcs() as cloud:
        words = asking_for_tokens(cloud, {**document, "token_uri": f"{cloud.endpoint}/token"})
        cloud.public_key = public
        store = open_object_store(f"gs://{BUCKET}/a", words)
        store.put("a", b"body")
        cloud.tokens = {}
        assert store.get("a") == b"body" and len(cloud.tokens) == 1
        given = store.mover_environment()
        assert json.loads(given["GOOGLE_CREDENTIALS"])["client_email"] == "refloat@project"
        assert open_object_store(f"gs://{BUCKET}/a", given).get("a") == b"body"


def test_a_wrong_clock_or_key_of_an_account_is_named(account: tuple[dict[str, str], bytes]) -> None:
    """An hour off, tokens are refused; so they are for a key that was taken back."""
    document, public = account
    with FakeGcs() as cloud:
        words = asking_for_tokens(cloud, {**document, "token_uri": f"{cloud.endpoint}/token"})
        cloud.public_key, cloud.skew = public, timedelta(hours=2)
        with pytest.raises(AccessDenied) as caught:
            open_object_store(f"gs://{BUCKET}/a", words).put("a", b"")
        assert "clock" in caught.value.guidance
        cloud.skew = timedelta(0)
        other = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
        cloud.public_key = other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        with pytest.raises(AccessDenied, match="Invalid JWT Signature") as caught:
            open_object_store(f"gs://{BUCKET}/a", words).put("a", b"")
        assert document["private_key"] not in str(caught.value.as_json())


def test_a_workload_identity_pool_is_used_and_a_mover_gets_a_token(tmp_path: Path) -> None:
    """The file that a pod finds is exchanged; a token of somebody's making ends, and that is said."""
    (tmp_path / "token").write_text("the pod's own")
    with FakeGcs() as cloud:
        cloud.subject_token = "the pod's own"
        document = {
            "type": "external_account", "audience": "//iam.googleapis.com/projects/1/locations/global/pools/p",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "token_url": f"{cloud.endpoint}/token",
            "credential_source": {"file": str(tmp_path / "token")},
        }  # fmt: skip
        words = asking_for_tokens(cloud, document)
        store = open_object_store(f"gs://{BUCKET}/a", words)
        store.put("a", b"body")
        given = store.mover_environment()
        assert "GOOGLE_CREDENTIALS" not in given and given["GOOGLE_ACCESS_TOKEN"] in (cloud.tokens or {})
        mover = open_object_store(f"gs://{BUCKET}/a", given)
        assert mover.get("a") == b"body"
        cloud.skew = timedelta(hours=2)
        with pytest.raises(AccessDenied, match="expired"):
            mover.get("a")


def test_a_bucket_whose_reader_pays_needs_a_project() -> None:
    """Named, and taken from the variable."""
    with FakeGcs() as cloud:
        cloud.requester_pays = True
        with pytest.raises(ConfigError) as caught:
            Cloud("gs", cloud).open().put("a", b"")
        assert "GOOGLE_CLOUD_QUOTA_PROJECT" in caught.value.guidance
        store = Cloud("gs", cloud).open(GOOGLE_CLOUD_QUOTA_PROJECT="payer")
        store.put("a", b"body")
        assert store.get("a") == b"body" and [one.key for one in store.list()] == ["a"]


def test_a_wrong_clock_or_key_of_a_storage_account_is_named() -> None:
    """Both are refused with one code; its detail tells them apart."""
    with FakeBlob() as server:
        cloud = Cloud("az", server)
        server.skew = timedelta(hours=1)
        with pytest.raises(AccessDenied) as caught:
            cloud.open().put("a", b"")
        assert "clock" in caught.value.guidance
        server.skew = timedelta(0)
        with pytest.raises(AccessDenied) as caught:
            cloud.open(AZURE_STORAGE_KEY=SECRET).put("a", b"")
        assert "AZURE_STORAGE_ACCOUNT" in caught.value.guidance and SECRET not in str(caught.value.as_json())
        assert not server.blobs


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for loopback that signs itself, with its key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "store")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - timedelta(days=1))
        .not_valid_after(now() + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "certificate.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(made.public_bytes(Encoding.PEM) + secret)
    return file


@pytest.mark.parametrize("name", ["gs", "az"])
def test_a_ca_of_ones_own_is_trusted_when_named(name: str, certificate: Path) -> None:
    """Without it nothing is sent, and the guidance names the variable."""
    with FakeGcs(certificate=certificate) if name == "gs" else FakeBlob(certificate=certificate) as server:
        cloud = Cloud(name, server)
        store = cloud.open(REQUESTS_CA_BUNDLE=str(certificate))
        store.put("a", b"body")
        assert store.get("a") == b"body"
        seen = len(server.requests)
        with pytest.raises(Unavailable) as caught:
            cloud.open().put("a", b"other")
        assert "REQUESTS_CA_BUNDLE" in caught.value.guidance and len(server.requests) == seen


def test_an_azure_workload_identity_is_used(certificate: Path, tmp_path: Path) -> None:
    """The token that a pod finds is exchanged at the authority; a wrong one is named."""
    with FakeBlob(certificate=certificate) as server:
        (tmp_path / "token").write_text(server.subject_token)
        words = {
            "AZURE_STORAGE_SERVICE_ENDPOINT": server.endpoint, "AZURE_STORAGE_ACCOUNT": ACCOUNT,
            "AZURE_TENANT_ID": "tenant", "AZURE_CLIENT_ID": "client", "AZURE_AUTHORITY_HOST": server.endpoint,
            "AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "token"), "REQUESTS_CA_BUNDLE": str(certificate),
        }  # fmt: skip
        store = open_object_store(f"az://{CONTAINER}/a", words)
        store.put("a", b"body")
        assert store.get("a") == b"body" and len(server.bearers) == 1
        (tmp_path / "token").write_text("somebody else's")
        with pytest.raises(AccessDenied, match="AADSTS700211"):
            open_object_store(f"az://{CONTAINER}/a", words).put("a", b"")


@pytest.mark.parametrize("name", ["gs", "az"])
def test_a_proxy_of_the_environment_is_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY carries everything, and NO_PROXY keeps it off."""
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
    with FakeGcs() if name == "gs" else FakeBlob() as server:
        monkeypatch.setenv("HTTP_PROXY", server.endpoint)
        words = {"STORAGE_EMULATOR_HOST": "http://store.example:9000"} if name == "gs" else {
            **server.environment, "AZURE_STORAGE_SERVICE_ENDPOINT": "http://store.example:9000"
        }  # fmt: skip
        cloud = Cloud(name, server)
        store = cloud.open(**words)
        store.put("a", b"body")
        assert store.get("a") == b"body"
        assert all(path.startswith("http://store.example:9000/") for _, path in server.requests)
        monkeypatch.setenv("NO_PROXY", "store.example")
        with pytest.raises(Unavailable):
            cloud.open(**words).put("a", b"body")


def test_settings_show_no_secret() -> None:
    """Not in a representation that a traceback or a log may hold."""
    shown = repr(azure.read(azure.parse("az://box"), {**KEYS, "AZURE_STORAGE_SAS_TOKEN": SECRET}))
    document = json.dumps({"type": "x", "k": SECRET})
    shown += repr(gcs.read({"GOOGLE_CREDENTIALS": document, "GOOGLE_ACCESS_TOKEN": SECRET}))
    assert SECRET not in shown
