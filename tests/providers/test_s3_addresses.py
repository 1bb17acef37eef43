"""Where an S3 store is and who asks: URLs, endpoints, credentials, and what a mover is given."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from providers.object_stores.s3 import open_store
from refloat.errors import AccessDenied, ConfigError

SECRET = secrets.token_hex(20)
KEYS = {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": SECRET}


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which boto3's own chain finds nothing."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3:///prefix",
        "s3://b/prefix",
        "s3://bucket/a//b",
        "s3://bucket/../b",
        "s3://bucket/a b",
        "s3://bucket/a?b=c",
        "s3://bucket/a#b",
        "s3://bucket:80/a",
        "s3://[bucket/a",
        f"s3://bucket/{'a' * 600}",
        f"s3://someone:{SECRET}@bucket/a",
        f"s3://someone:some/{SECRET}@bucket/a",
    ],
)
def test_a_wrong_address_is_refused_at_once(url: str) -> None:
    """Before anything is asked of a server, and without repeating a secret that somebody put into it."""
    with pytest.raises(ConfigError) as caught:
        open_store(url, KEYS)
    assert SECRET not in str(caught.value.as_json())


@pytest.mark.parametrize(
    ("url", "shown"), [("s3://bucket", "s3://bucket"), ("s3://bucket/a/B_1/", "s3://bucket/a/B_1")]
)
def test_an_address_is_shown_as_it_is_meant(url: str, shown: str) -> None:
    """A prefix may be missing."""
    assert open_store(url, KEYS).url == shown


@pytest.mark.parametrize(
    "words",
    [
        {"AWS_ENDPOINT_URL": "localhost:9000"},
        {"AWS_ENDPOINT_URL": "ftp://store"},
        {"AWS_ENDPOINT_URL": "http://store:99999"},
        {"AWS_ENDPOINT_URL": f"http://someone:{SECRET}@store"},
        {"AWS_ENDPOINT_URL_S3": "http://"},
        {"AWS_PROFILE": "nobody"},
        {"AWS_SECRET_ACCESS_KEY": ""},
    ],
    ids=str,
)
def test_a_wrong_environment_is_refused_at_once(words: dict[str, str]) -> None:
    """Endpoint, profile, half of a pair of keys."""
    with pytest.raises(ConfigError) as caught:
        open_store("s3://bucket/a", {**KEYS, **words})
    assert SECRET not in str(caught.value.as_json())


def test_a_mover_is_given_what_opens_the_same_store() -> None:
    """Keys, token, region, and the endpoint that counts for S3."""
    words = {
        **KEYS,
        "AWS_SESSION_TOKEN": "token",
        "AWS_DEFAULT_REGION": "eu-north-1",
        "AWS_ENDPOINT_URL": "http://all:1",
        "AWS_ENDPOINT_URL_S3": "http://store:9000",
    }
    given = open_store("s3://bucket/a", words).mover_environment()
    assert given == {
        **KEYS,
        "AWS_SESSION_TOKEN": "token",
        "AWS_REGION": "eu-north-1",
        "AWS_ENDPOINT_URL": "http://store:9000",
    }
    assert open_store("s3://bucket/a", given).mover_environment() == given


def test_the_environment_given_counts_and_not_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two stores in one process may have two endpoints."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://process:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "process")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "process")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "process")
    given = open_store("s3://bucket/a", {**KEYS, "AWS_ENDPOINT_URL": "http://store:9000"}).mover_environment()
    assert given == {**KEYS, "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": "http://store:9000"}


def test_a_profile_is_resolved_for_the_mover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod has no profile files: it gets what they say here."""
    config = tmp_path / "config"
    config.write_text(
        "[profile lab]\nregion = eu-west-1\nendpoint_url = http://lab:7070\n"
        f"aws_access_key_id = filed\naws_secret_access_key = {SECRET}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    assert open_store("s3://bucket/a", {"AWS_PROFILE": "lab"}).mover_environment() == {
        "AWS_ACCESS_KEY_ID": "filed",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL": "http://lab:7070",
    }


def test_without_credentials_the_guidance_says_how_to_give_them() -> None:
    """Opening is not refused: only asking is."""
    store = open_store("s3://bucket/a", {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"})
    for call in (store.mover_environment, lambda: store.put("a", b"")):
        with pytest.raises(AccessDenied) as caught:
            call()
        assert "AWS_ACCESS_KEY_ID" in caught.value.guidance


@pytest.mark.parametrize(
    ("endpoint", "is_local"),
    [("http://127.0.0.1:{}", True), ("http://localhost:{}", True), ("http://0.0.0.0:{}", False)],
)
def test_a_store_on_loopback_is_no_store_for_pods(endpoint: str, is_local: bool) -> None:
    """What only this machine reaches is said to be local, as a folder is."""
    from tests.providers.faulty_s3 import FaultyS3

    with FaultyS3() as server:
        words = {**KEYS, "AWS_ENDPOINT_URL": endpoint.format(server.endpoint.rpartition(":")[2])}
        assert open_store("s3://bucket/a", words).capabilities().is_local is is_local
