"""What a store does wrong, and what refloat says of it; every fault is counted, and one that never fired fails."""

from __future__ import annotations

import multiprocessing
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from hashlib import sha256
from itertools import islice
from pathlib import Path

import pytest

from providers.object_stores.patience import Patience
from providers.object_stores.s3 import S3ObjectStore
from providers.object_stores.s3_client import parse
from refloat.errors import (
    AccessDenied,
    AlreadyExists,
    ConfigError,
    Immutable,
    NotFound,
    Permanent,
    ProviderError,
    RangeNotSatisfiable,
    StoreFull,
    Throttled,
    TimedOut,
    Unavailable,
    Unsupported,
)
from tests.providers.faulty_s3 import BUCKET, Fault, FaultyS3

TRIES = 3
PATIENCE = Patience(read=timedelta(seconds=0.2), tries=TRIES, first_pause=timedelta(milliseconds=1))
SECRET = secrets.token_hex(20)


def environment(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "eu-north-1",
    }


def opened(endpoint: str, bucket: str = BUCKET) -> S3ObjectStore:
    words = environment(endpoint)
    return S3ObjectStore(parse(f"s3://{bucket}/vault", words), words, PATIENCE)


@pytest.fixture
def server() -> Iterator[FaultyS3]:
    with FaultyS3() as server:
        yield server
        assert all(fault.fired for fault in server.faults), "an injected fault never happened"


@pytest.fixture
def store(server: FaultyS3) -> Iterator[S3ObjectStore]:
    store = opened(server.endpoint)
    yield store
    store.close()


CALLS: dict[str, tuple[str, Callable[[S3ObjectStore], object]]] = {
    "put": ("PUT", lambda store: store.put("a", b"body")),
    "create": ("PUT", lambda store: store.put("a", b"body", if_absent=True)),
    "get": ("GET", lambda store: store.get("a")),
    "stat": ("HEAD", lambda store: store.stat("a")),
    "list": ("LIST", lambda store: list(store.list())),
    "delete": ("DELETE", lambda store: store.delete("a")),
}
PASSING = [(503, "SlowDown", Throttled), (500, "InternalError", Unavailable), (503, "ServiceUnavailable", Unavailable)]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(("status", "code", "kind"), PASSING)
def test_a_passing_fault_is_borne_and_a_lasting_one_named(
    server: FaultyS3, store: S3ObjectStore, name: str, status: int, code: str, kind: type[ProviderError]
) -> None:
    """Some faults in a row are repeated over; after the last try the error says which."""
    method, call = CALLS[name]
    if name != "create":
        store.put("a", b"body")
    fault = server.inject(Fault("answer", method, times=TRIES - 1, status=status, code=code))
    call(store)
    assert fault.fired == TRIES - 1
    lasting = server.inject(Fault("answer", method, times=100, status=status, code=code))
    # an answer to HEAD has no body, so no code: it can only be told by its status
    with pytest.raises(kind if method != "HEAD" else Unavailable, match="vault"):
        call(store)
    assert lasting.fired == TRIES


LASTING: list[tuple[int, str, str, type[ProviderError]]] = [
    (507, "InsufficientStorage", "no room", StoreFull),
    (507, "SomethingElse", "no room", StoreFull),
    (403, "QuotaExceeded", "quota", StoreFull),
    (403, "AccessDenied", "Access Denied", AccessDenied),
    (403, "InvalidAccessKeyId", "no such key id", AccessDenied),
    (403, "SignatureDoesNotMatch", "signature", AccessDenied),
    (400, "ExpiredToken", "expired", AccessDenied),
    (403, "RequestTimeTooSkewed", "clock", AccessDenied),
    (501, "NotImplemented", "not here", Unsupported),
    (400, "InvalidRequest", "Object is WORM protected and cannot be overwritten", Immutable),
    (403, "AccessDenied", "Access Denied because object protected by object lock.", Immutable),
    (400, "OddRequest", "never heard of", Permanent),
]


@pytest.mark.parametrize(("status", "code", "text", "kind"), LASTING)
def test_a_refusal_is_named_and_not_repeated(
    server: FaultyS3, store: S3ObjectStore, status: int, code: str, text: str, kind: type[ProviderError]
) -> None:
    """Waiting does not help: one request, one error, with the server's own words and no secret."""
    fault = server.inject(Fault("answer", "PUT", status=status, code=code, text=text))
    with pytest.raises(kind) as caught:
        store.put("a", b"body")
    assert type(caught.value) is kind
    assert fault.fired == 1 and server.seen("PUT") == 1
    assert "s3://bucket/vault/a" in caught.value.message and code in caught.value.message
    assert SECRET not in str(caught.value.as_json())
    assert server.objects == {}


def test_retention_is_no_lack_of_rights(server: FaultyS3, store: S3ObjectStore) -> None:
    """S3 answers AccessDenied for both; its text tells them apart."""
    server.inject(Fault("answer", "DELETE", status=403, code="AccessDenied", text="protected by object lock."))
    with pytest.raises(Immutable):
        store.delete("a")


def test_a_bare_403_is_a_lack_of_rights(server: FaultyS3, store: S3ObjectStore) -> None:
    """HEAD has no body to say more."""
    server.inject(Fault("answer", "HEAD", status=403, code="AccessDenied"))
    with pytest.raises(AccessDenied):
        store.stat("a")


def test_a_bare_400_is_asked_about(server: FaultyS3, store: S3ObjectStore) -> None:
    """AWS says so when a token has expired; a listing's answer has words."""
    for method in ("HEAD", "LIST"):
        server.inject(Fault("answer", method, status=400, code="ExpiredToken"))
    with pytest.raises(AccessDenied, match="ExpiredToken"):
        store.stat("a")


def test_a_body_that_breaks_off_is_read_again(server: FaultyS3, store: S3ObjectStore) -> None:
    """Whole, or an error; never the half that came."""
    body = secrets.token_bytes(300_000)
    store.put("a", body)
    passing = server.inject(Fault("half-body", "GET", times=TRIES - 1))
    assert store.get("a") == body
    assert passing.fired == TRIES - 1
    server.inject(Fault("half-body", "GET", times=1))
    assert store.get("a", start=7, length=200_000) == body[7:200_007]
    lasting = server.inject(Fault("half-body", "GET", times=100))
    with pytest.raises(Unavailable):
        store.get("a")
    assert lasting.fired == TRIES


def test_a_range_answered_short_is_an_error(server: FaultyS3, store: S3ObjectStore) -> None:
    """A server that says 'half of it' and means it."""
    store.put("a", b"0123456789")
    server.inject(Fault("short-body", "GET"))
    with pytest.raises(RangeNotSatisfiable):
        store.get("a", start=0, length=10)


def test_a_server_that_ignores_ranges_is_found_out(server: FaultyS3, store: S3ObjectStore) -> None:
    """Its answer is not taken for the part that was asked for."""
    store.put("a", b"0123456789")
    server.inject(Fault("ignore-range", "GET"))
    with pytest.raises(Unsupported, match="ranges"):
        store.get("a", start=2, length=3)


@pytest.mark.parametrize("name", CALLS)
def test_a_server_that_hangs_times_out(server: FaultyS3, store: S3ObjectStore, name: str) -> None:
    """Within the time limit times the tries."""
    method, call = CALLS[name]
    fault = server.inject(Fault("hang", method, times=100))
    with pytest.raises(TimedOut):
        call(store)
    assert fault.fired == TRIES


def test_dropped_connections_are_borne(server: FaultyS3, store: S3ObjectStore) -> None:
    """A put whose connection is cut before it was handled is sent again."""
    fault = server.inject(Fault("drop", "PUT", times=2))
    store.put("a", b"body", if_absent=True)
    assert fault.fired == 2
    assert store.get("a") == b"body"


def test_a_lost_answer_does_not_make_a_winner_a_loser(server: FaultyS3, store: S3ObjectStore) -> None:
    """The object that the repeated create-if-absent meets is its own."""
    server.inject(Fault("lose-answer", "PUT"))
    store.put("locks/a", b"mine", if_absent=True)
    assert server.seen("PUT") == 2
    assert store.get("locks/a") == b"mine"


def test_a_repeated_request_does_not_make_a_loser_a_winner(server: FaultyS3, store: S3ObjectStore) -> None:
    """Another writer's object is not ours, not even with the same bytes."""
    opened(server.endpoint).put("locks/a", b"same", if_absent=True)
    server.inject(Fault("drop", "PUT"))
    with pytest.raises(AlreadyExists):
        store.put("locks/a", b"same", if_absent=True)
    assert server.seen("PUT") == 3


def test_a_conflict_between_two_creations_is_tried_again(server: FaultyS3, store: S3ObjectStore) -> None:
    """AWS answers 409 where a deletion of the key comes in between, and asks for another try."""
    server.inject(Fault("answer", "PUT", status=409, code="ConditionalRequestConflict"))
    store.put("a", b"body", if_absent=True)
    assert store.get("a") == b"body"


def test_an_honest_server_passes_the_probe_once(server: FaultyS3, store: S3ObjectStore) -> None:
    """Two conditional puts, the answer kept, nothing left."""
    assert store.capabilities().conditional_create
    assert store.capabilities().conditional_create
    assert server.seen("PUT") == 2 and server.objects == {}
    assert all("/vault/refloat/probe/" in path for method, path in server.requests if method == "PUT")


def test_a_server_that_ignores_conditions_is_found_out(server: FaultyS3, store: S3ObjectStore) -> None:
    """It answers 200 to a conditional put and overwrites."""
    server.inject(Fault("ignore-condition", "PUT", times=2))
    assert not store.capabilities().conditional_create
    assert server.objects == {}


def test_a_server_that_refuses_conditions_is_found_out(server: FaultyS3, store: S3ObjectStore) -> None:
    """It says that it does not implement them."""
    server.inject(Fault("answer", "PUT", status=501, code="NotImplemented"))
    assert not store.capabilities().conditional_create


def test_the_probe_needs_no_right_to_delete(server: FaultyS3, store: S3ObjectStore) -> None:
    """A writer may delete under locks/ only; the probe's object stays."""
    server.inject(Fault("answer", "DELETE", status=403, code="AccessDenied"))
    assert store.capabilities().conditional_create
    assert len(server.objects) == 1


def test_pages_are_asked_for_when_they_are_needed(server: FaultyS3, store: S3ObjectStore) -> None:
    """2500 keys are three pages; the first three keys need one; a page that fails is asked for again."""
    keys = [f"{number:04}" for number in range(2500)]
    server.objects.update({f"vault/{key}": (b"x", {}) for key in keys})
    found = store.list()
    assert server.seen("LIST") == 0
    assert [one.key for one in islice(found, 3)] == keys[:3]
    assert server.seen("LIST") == 1
    server.inject(Fault("answer", "LIST", status=503, code="SlowDown"))
    assert [one.key for one in found] == keys[3:]
    assert server.seen("LIST") == 4


def test_foreign_objects_under_the_prefix_are_not_listed(server: FaultyS3, store: S3ObjectStore) -> None:
    """Folder markers and names that no key has; and a neighbour whose prefix begins alike."""
    server.objects.update(
        {name: (b"", {}) for name in ("vault/", "vault/data/", "vault/README", "vault2/a", "vault/b")}
    )
    assert [one.key for one in store.list()] == ["b"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("<html>Please log in</html>", Unavailable),
        ("<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>", Permanent),
        (
            "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>vault/a</Key></Contents></ListBucketResult>",
            Permanent,
        ),
        (
            "<ListBucketResult><IsTruncated>false</IsTruncated>"
            + "".join(
                f"<Contents><Key>vault/{key}</Key><Size>1</Size><LastModified>2026-01-02T03:04:05Z</LastModified></Contents>"
                for key in "ba"
            )
            + "</ListBucketResult>",
            Unsupported,
        ),
    ],
    ids=["a web page", "no next page", "no size", "out of order"],
)
def test_a_listing_that_makes_no_sense_is_an_error(
    server: FaultyS3, store: S3ObjectStore, text: str, kind: type[ProviderError]
) -> None:
    """Never an empty vault."""
    server.inject(Fault("lists", "LIST", times=100, text=text))
    with pytest.raises(kind) as caught:
        list(store.list())
    assert type(caught.value) is kind


@pytest.mark.parametrize("name", CALLS)
def test_a_missing_bucket_is_named(server: FaultyS3, name: str) -> None:
    """Also where the server says only 404."""
    with pytest.raises(NotFound, match="no bucket 'nowhere'"):
        CALLS[name][1](opened(server.endpoint, "nowhere"))


def test_a_missing_key_is_no_missing_bucket(store: S3ObjectStore) -> None:
    """Both are 404 to HEAD."""
    with pytest.raises(NotFound, match="s3://bucket/vault/a"):
        store.stat("a")


def test_a_bucket_elsewhere_is_the_operators_matter(server: FaultyS3, store: S3ObjectStore) -> None:
    """The guidance names the variables."""
    server.inject(Fault("answer", "PUT", times=9, status=301, code="PermanentRedirect"))
    with pytest.raises(ConfigError) as caught:
        store.put("a", b"")
    assert "AWS_REGION" in caught.value.guidance


@pytest.mark.parametrize("name", CALLS)
def test_an_endpoint_that_is_not_there(name: str) -> None:
    """A port on which nobody listens, and one that does not speak TLS."""
    with FaultyS3() as server:
        gone = server.endpoint
        with pytest.raises(Unavailable) as caught:
            CALLS[name][1](opened(gone.replace("http:", "https:")))
        assert "AWS_CA_BUNDLE" in caught.value.guidance
    with pytest.raises(Unavailable, match="s3://bucket/vault"):
        CALLS[name][1](opened(gone))


def test_a_slow_line_is_no_dead_one(server: FaultyS3) -> None:
    """A body that takes longer than the time limits arrives, as each piece of it is in time."""
    server.pace = 1 / 16  # seconds between pieces of 256 KiB: 2.5 s for the whole, less what the system holds
    words = environment(server.endpoint)
    patience = Patience(connect=timedelta(seconds=0.5), read=timedelta(seconds=2), tries=1)
    store = S3ObjectStore(parse(f"s3://{BUCKET}/vault", words), words, patience)
    body = secrets.token_bytes(10 * 2**20)
    store.put("a", body)
    assert server.paced >= 40, "the line was not slow"
    assert store.get("a") == body


def test_a_web_page_is_no_stored_object(server: FaultyS3, store: S3ObjectStore) -> None:
    """What answers 200 to anything, as the login page of a network does, has stored nothing."""
    page = server.inject(Fault("page", "PUT", times=100))
    with pytest.raises(Unavailable, match="no S3 server"):
        store.put("a", b"body")
    assert page.fired == TRIES


def test_a_body_damaged_on_the_way_is_sent_again(server: FaultyS3, store: S3ObjectStore) -> None:
    """The server compares it with the digest that the request was signed with, given or computed."""
    body = secrets.token_bytes(100_000)
    for digest in (None, sha256(body).digest()):
        torn = server.inject(Fault("flip", "PUT"))
        store.put("a", body, sha256=digest)
        assert torn.fired == 1 and store.get("a") == body


def test_a_refused_body_is_not_sent_twice(server: FaultyS3, store: S3ObjectStore) -> None:
    """A repeated put asks first: the body goes out once the server wants it."""
    server.inject(Fault("answer", "PUT", status=503, code="SlowDown"))
    store.put("a", b"body" * 1000)
    assert server.expected == [False, True]
    assert store.get("a") == b"body" * 1000


def test_a_bucket_in_another_region_is_followed(server: FaultyS3, store: S3ObjectStore) -> None:
    """The server names the region that requests must be signed for; puts and gets go there from then on."""
    server.region = "eu-central-1"
    store.put("a", b"body")
    assert store.get("a") == b"body" and store.get("a", start=1, length=2) == b"od"
    assert server.misdirected, "no request was signed for the wrong region"
    assert {region for method, region in server.signed if method == "GET"} == {"eu-central-1"}


def test_a_proxy_of_the_environment_is_used(server: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY carries bodies as it carries everything else, and NO_PROXY keeps them off it."""
    monkeypatch.setenv("HTTP_PROXY", server.endpoint)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    store = opened("http://store.example:9000")
    store.put("a", b"body")
    assert store.get("a") == b"body" and store.stat("a").size_bytes == 4
    assert {path.partition("/bucket")[0] for _, path in server.requests} == {"http://store.example:9000"}
    monkeypatch.setenv("NO_PROXY", "store.example")
    with pytest.raises(ProviderError):
        opened("http://store.example:9000").put("a", b"body")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for loopback that signs itself, with its key."""
    file = tmp_path_factory.mktemp("tls") / "certificate.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=store"]
    words += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{file}.key", "-out", str(file)]
    if shutil.which("openssl") is None:
        pytest.skip("NOT RUN: openssl is missing")
    subprocess.run(words, check=True, capture_output=True)
    file.write_text(file.read_text() + Path(f"{file}.key").read_text())
    return file


def test_a_ca_of_ones_own_is_trusted_when_named(certificate: Path) -> None:
    """AWS_CA_BUNDLE holds for bodies as for everything else; without it nothing is sent."""
    with FaultyS3(certificate) as server:
        words = {**environment(server.endpoint), "AWS_CA_BUNDLE": str(certificate)}
        store = S3ObjectStore(parse(f"s3://{BUCKET}/vault", words), words, PATIENCE)
        store.put("a", b"body")
        assert store.get("a") == b"body" and store.stat("a").size_bytes == 4
        seen = len(server.requests)
        for call in (lambda other: other.put("a", b"other"), lambda other: other.get("a")):
            with pytest.raises(Unavailable) as caught:
                call(opened(server.endpoint))
            assert "AWS_CA_BUNDLE" in caught.value.guidance
        assert len(server.requests) == seen


def test_keys_of_any_prefix_are_signed_as_they_are_sent(server: FaultyS3) -> None:
    """Signs that a prefix may have are escaped in the address; the server takes them back."""
    words = environment(server.endpoint)
    store = S3ObjectStore(parse(f"s3://{BUCKET}/it's=(a)@b!*", words), words, PATIENCE)
    store.put("a", b"body")
    assert store.get("a") == b"body" and [one.key for one in store.list()] == ["a"]


@pytest.mark.parametrize("is_for_the_same", [True, False])
def test_a_fork_has_connections_of_its_own(certificate: Path, *, is_for_the_same: bool) -> None:
    """A worker takes the client over, not its connections: what both ask for at once reaches each unmixed."""
    with FaultyS3(certificate) as server:
        words = {**environment(server.endpoint), "AWS_CA_BUNDLE": str(certificate)}
        others = words if is_for_the_same else {**words, "AWS_ACCESS_KEY_ID": "somebody else"}
        store = S3ObjectStore(parse(f"s3://{BUCKET}/vault", words), words, PATIENCE)
        bodies = {f"key-{number}": secrets.token_bytes(50_000) for number in range(20)}
        for key, body in bodies.items():
            store.put(key, body)

        def work() -> None:
            own = S3ObjectStore(parse(f"s3://{BUCKET}/vault", others), others, PATIENCE)
            for key, body in bodies.items():
                assert own.get(key) == body
            own.close()

        workers = [multiprocessing.get_context("fork").Process(target=work) for _ in range(2)]
        for worker in workers:
            worker.start()
        for key, body in bodies.items():
            assert store.get(key) == body
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [0, 0]
        assert all(store.get(key) == body for key, body in bodies.items())
        store.close()
