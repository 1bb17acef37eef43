"""What two clouds do wrong, and what refloat says of it; every fault is counted, and one that never fired fails."""

from __future__ import annotations

import random
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from time import monotonic

import pytest

from refloat.clock import now
from refloat.errors import (
    AccessDenied,
    AlreadyExists,
    ConfigError,
    Immutable,
    NotFound,
    Permanent,
    ProviderError,
    RefloatError,
    StoreFull,
    Throttled,
    TimedOut,
    Unavailable,
    Unsupported,
)
from refloat.ports.immutability import Immutability, ImmutableStore
from tests.providers.clouds import BRISK, SHORT, TRIES, Cloud, Store, started
from tests.providers.faulty_cloud import clear, first, storm
from tests.vault.given import MIB

ACROSS = 8
BIG = 20 * MIB + 17
"""More than one request carries."""


@pytest.fixture(params=["gs", "az"])
def cloud(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    """One of the two, on good weather."""
    with started(request.param) as server:
        yield Cloud(request.param, server)


CALLS: dict[str, Callable[[Store], object]] = {
    "put": lambda store: store.put("a", b"body"),
    "create": lambda store: store.put("b", b"body", if_absent=True),
    "get": lambda store: store.get("a"),
    "part": lambda store: store.get("a", start=1, length=2),
    "stat": lambda store: store.stat("a"),
    "list": lambda store: list(store.list()),
    "delete": lambda store: store.delete("a"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_passing_fault_is_borne_and_a_lasting_one_named(cloud: Cloud, name: str) -> None:
    """Some refusals in a row are repeated over; after the last try the error says which."""
    store = cloud.open()
    store.put("a", b"body")
    for fault in ("refuse", "reset"):
        cloud.server.weather = first(TRIES - 1, fault)
        CALLS[name](store)
        assert cloud.server.faults[fault] == TRIES - 1
        cloud.server.weather = clear
        store.put("a", b"body")
        store.delete("b")
    cloud.server.weather = lambda rng, method, path: "refuse"
    seen = len(cloud.server.requests)
    with pytest.raises((Unavailable, Throttled), match=cloud.place):
        CALLS[name](store)
    assert len(cloud.server.requests) == seen + TRIES


@pytest.mark.parametrize("name", CALLS)
def test_expired_credentials_and_missing_buckets_are_named(cloud: Cloud, name: str) -> None:
    """At any request, once, and with the next step."""
    store = cloud.open()
    store.put("a", b"body")
    cloud.server.weather = first(1, "expire")
    with pytest.raises(AccessDenied) as caught:
        CALLS[name](store)
    assert cloud.server.faults["expire"] == 1 and caught.value.guidance
    cloud.server.weather = clear
    with pytest.raises(NotFound, match=r"no (bucket|container) 'nowhere'"):
        CALLS[name](cloud.open(place=f"{cloud.name}://nowhere"))


def test_every_kind_of_request_outlasts_a_storm(cloud: Cloud) -> None:
    """Bar 10, by request: with several in flight no call fails, no byte is wrong, nothing is lost or left."""
    store = cloud.open(patience=BRISK)
    cloud.server.weather = storm

    def work(number: int) -> int:
        rng = random.Random(number)
        for turns in range(4):
            key, body = f"data/{number}/{turns}", rng.randbytes(rng.choice((10, 5_000, 300_000)))
            store.put(key, body, if_absent=bool(turns % 2))
            assert store.get(key) == body and store.get(key, start=3, length=5) == body[3:8]
            assert store.stat(key).size_bytes == len(body)
            assert [one.key for one in store.list(key)][:1] == [key]
            store.delete(key)
        return 4

    with ThreadPoolExecutor(ACROSS) as pool:
        turns = sum(pool.map(work, range(ACROSS)))
    cloud.server.weather = clear
    print(f"{cloud.name}: {turns} turns of six calls, faults {dict(cloud.server.faults)}")
    assert turns and all(cloud.server.faults[fault] for fault in ("refuse", "reset", "lose"))
    assert list(store.list()) == [] and not cloud.names()


class LosesFirstAnswers:
    """Every store request's first answer is lost."""

    def __init__(self, methods: tuple[str, ...]) -> None:
        self._methods, self._seen, self.times = methods, set[str](), 0

    def __call__(self, rng: random.Random, method: str, path: str) -> str | None:
        if method not in self._methods or self.times % 2:
            self.times += method in self._methods
            return None
        self.times += 1
        return "lose"


def test_lost_answers_make_no_false_winner_and_no_duplicate(cloud: Cloud) -> None:
    """Bar 11: of two that create each key, exactly one is told that it did, and the object is the winner's."""
    stores = [cloud.open(patience=BRISK) for _ in range(2)]
    cloud.server.weather = LosesFirstAnswers(cloud.puts)

    def create(turn: tuple[int, int]) -> bool:
        number, writer = turn
        try:
            stores[writer].put(f"locks/{number}", b"writer %d" % writer, if_absent=True)
        except AlreadyExists:
            return False
        return True

    turns = [(number, writer) for number in range(30) for writer in range(2)]
    with ThreadPoolExecutor(ACROSS) as pool:
        won = dict(zip(turns, pool.map(create, turns), strict=True))
    cloud.server.weather = clear
    assert cloud.server.faults["lose"] >= 30
    assert len(list(stores[0].list())) == 30
    for number in range(30):
        winners = [writer for writer in range(2) if won[number, writer]]
        assert len(winners) == 1, f"{len(winners)} writers were told that they created locks/{number}"
        assert stores[0].get(f"locks/{number}") == b"writer %d" % winners[0]


def test_another_writers_object_is_not_ours(cloud: Cloud) -> None:
    """Not even with the same bytes, after a request that was repeated."""
    cloud.open().put("locks/a", b"same", if_absent=True)
    cloud.server.weather = first(1, "reset", *cloud.puts)
    with pytest.raises(AlreadyExists):
        cloud.open().put("locks/a", b"same", if_absent=True)
    assert cloud.server.faults["reset"] == 1


@pytest.mark.parametrize("fault", ["refuse", "lose", "torn", "flip"])
def test_a_large_body_outlasts_faults_in_its_middle(cloud: Cloud, fault: str) -> None:
    """It is sent in parts; wherever one goes wrong, the object that appears is whole, and none appears before."""
    store, body = cloud.open(patience=BRISK), random.Random(5).randbytes(BIG)
    for number in range(3):
        skipped = first(number, "", *cloud.puts)
        struck = first(1, fault, *cloud.puts)

        def weather(rng: random.Random, method: str, path: str, skipped=skipped, struck=struck) -> str | None:  # type: ignore[no-untyped-def]
            return None if skipped(rng, method, path) == "" else struck(rng, method, path)

        cloud.server.weather = weather
        store.put(f"large/{number}", body, if_absent=True)
        cloud.server.weather = clear
        assert store.get(f"large/{number}") == body
    assert cloud.server.faults[fault] >= 2
    assert [one.key for one in store.list()] == [f"large/{number}" for number in range(3)]
    assert store.get("large/0", start=BIG - 5, length=5) == body[-5:]


def test_large_bodies_of_two_writers_are_not_mixed(cloud: Cloud) -> None:
    """Both send parts for one key at once: what stays is whole, and the winner's."""
    bodies = [bytes([number]) * BIG for number in range(2)]
    stores = [cloud.open(patience=BRISK) for _ in range(2)]

    def create(writer: int) -> bool:
        try:
            stores[writer].put("a", bodies[writer], if_absent=True)
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        won = list(pool.map(create, range(2)))
    assert won.count(True) == 1 and stores[0].get("a") == bodies[won.index(True)]


def test_bodies_damaged_or_torn_on_the_way_are_moved_again(cloud: Cloud) -> None:
    """The service compares what comes in with its checksum; what comes back is whole or asked for again."""
    store, body = cloud.open(), secrets.token_bytes(100_000)
    cloud.server.weather = first(1, "flip", *cloud.puts)
    store.put("a", body)
    assert cloud.server.faults["flip"] == 1
    cloud.server.weather = first(1, "torn", "GET")
    assert store.get("a") == body and cloud.server.faults["torn"] == 1


def test_damage_at_rest_is_no_answer(cloud: Cloud) -> None:
    """A body that is not as its stored checksum says is never given."""
    store = cloud.open()
    store.put("a", b"as it was")
    held = cloud.server.objects if cloud.name == "gs" else cloud.server.blobs
    held["vault/a"].body = b"as it is."
    with pytest.raises(Unavailable, match=r"not as its (MD5|CRC32C)"):
        store.get("a")


def test_a_server_that_hangs_times_out(cloud: Cloud) -> None:
    """Within the time limit times the tries, and with nothing half-written to be seen."""
    begun, store = monotonic(), cloud.open(patience=replace(SHORT, read=timedelta(seconds=0.3)))
    cloud.server.weather = lambda rng, method, path: "stall"
    with pytest.raises(TimedOut, match=f"{cloud.place}/vault/a"):
        store.put("a", b"body", if_absent=True)
    assert monotonic() - begun < 15 and cloud.server.faults["stall"] == TRIES and not cloud.names()


@pytest.mark.parametrize("name", ["put", "list"])
def test_a_web_page_is_no_answer(cloud: Cloud, name: str) -> None:
    """What answers 200 to anything, as the login page of a network does, stores nothing and lists nothing."""
    cloud.server.weather = lambda rng, method, path: "page"
    with pytest.raises(Unavailable):
        CALLS[name](cloud.open())
    assert cloud.server.faults["page"] == TRIES


def test_pages_are_whole_and_asked_for_when_needed(cloud: Cloud) -> None:
    """One more than a page holds; the page that fails is asked for again."""
    store, most = cloud.open(), 1000 if cloud.name == "gs" else 5000
    store.put("0", b"x")
    one = next(iter(cloud.server.objects.values() if cloud.name == "gs" else cloud.server.blobs.values()))
    held = cloud.server.objects if cloud.name == "gs" else cloud.server.blobs
    held.update({f"vault/{number:05}": one for number in range(most)} | {"vault/README": one, "vault2/a": one})
    found, seen = store.list(), len(cloud.server.requests)
    assert next(found).key == "0" and len(cloud.server.requests) == seen + 1
    cloud.server.weather = first(1, "refuse")
    assert [each.key for each in found] == [f"{number:05}" for number in range(most)]
    assert cloud.server.faults["refuse"] == 1


LASTING: list[tuple[str, int, str, str, type[RefloatError], str]] = [
    ("gs", 403, "forbidden", "x does not have storage.objects.create access", AccessDenied, "roles/"),
    ("gs", 403, "quotaExceeded", "The quota is exceeded", StoreFull, "quota"),
    ("gs", 403, "retentionPolicyNotMet", "Object is subject to bucket's retention policy", Immutable, "retention"),
    ("gs", 400, "required", "Bucket is a requester pays bucket", ConfigError, "GOOGLE_CLOUD_QUOTA_PROJECT"),
    ("gs", 403, "forbidden", "Cloud KMS key k is disabled", AccessDenied, "key"),
    ("gs", 400, "odd", "never heard of", Permanent, ""),
    ("az", 403, "AuthorizationPermissionMismatch", "no", AccessDenied, "Storage Blob Data Contributor"),
    ("az", 403, "AuthorizationFailure", "no", AccessDenied, "firewall"),
    ("az", 403, "AuthenticationFailed", "no", AccessDenied, "AZURE_STORAGE_ACCOUNT"),
    ("az", 409, "BlobImmutableDueToPolicy", "kept", Immutable, "retention"),
    ("az", 412, "LeaseIdMissing", "There is a lease", Permanent, "lease"),
    ("az", 409, "BlobArchived", "is archived", Unsupported, "Rehydrate"),
    ("az", 507, "InsufficientStorage", "no room", StoreFull, "room"),
    ("az", 400, "InvalidHeaderValue", "x-ms-version", Permanent, "AZURE_STORAGE_API_VERSION"),
    ("az", 400, "OddRequest", "never heard of", Permanent, ""),
]


@pytest.mark.parametrize(("name", "status", "code", "text", "kind", "step"), LASTING)
def test_a_refusal_is_named_and_not_repeated(
    name: str, status: int, code: str, text: str, kind: type[RefloatError], step: str
) -> None:
    """Waiting does not help: one request, one error, the server's own words, the next step and no secret."""
    with started(name) as server:
        cloud = Cloud(name, server)
        server.refusal = status, code, text
        with pytest.raises(kind) as caught:
            cloud.open().put("a", b"body")
        told = str(caught.value.as_json())
        assert type(caught.value) is kind
        # what is kept is asked whether it is ours, after a lost answer
        assert len(server.requests) == (2 if kind is Immutable else 1)
        assert f"{cloud.place}/vault/a" in caught.value.message and code in caught.value.message
        assert step in caught.value.guidance
        assert name == "gs" or server.key not in told


def test_a_busy_service_is_throttling(cloud: Cloud) -> None:
    """Its own code, borne and named."""
    cloud.server.refusal = (429, "rateLimitExceeded", "slow") if cloud.name == "gs" else (503, "ServerBusy", "slow")
    with pytest.raises(Throttled):
        cloud.open().put("a", b"")
    assert len(cloud.server.requests) == TRIES


def test_what_is_kept_is_not_removed_before_its_date(cloud: Cloud) -> None:
    """By nobody: not deleted, not replaced, its date never earlier; afterwards as any other object."""
    store = cloud.open()
    assert isinstance(store, ImmutableStore)
    store.put("a", b"kept")
    assert store.immutability("a") == Immutability()
    until = (now() + timedelta(days=2)).replace(microsecond=0)
    store.retain("a", until)
    assert store.immutability("a") == Immutability(until, is_locked=True)
    store.retain("a", until - timedelta(days=1))
    assert store.immutability("a").retain_until == until, "a date became earlier"
    store.retain("a", until + timedelta(days=1), locked=False)
    assert store.immutability("a") == Immutability(until + timedelta(days=1), is_locked=True)
    for call in (lambda: store.delete("a"), lambda: store.put("a", b"other")):
        with pytest.raises(Immutable):
            call()
    assert store.get("a") == b"kept"
    cloud.server.skew = timedelta(days=4)
    if cloud.name == "az":  # requests are signed with a date
        cloud.server.skew = timedelta(0)
        cloud.server.blobs["vault/a"].until = now()
    store.delete("a")
    assert not cloud.names()


def test_a_legal_hold_keeps_until_it_is_lifted(cloud: Cloud) -> None:
    """Without a date."""
    store = cloud.open()
    store.put("a", b"kept")
    store.hold("a", True)
    assert store.immutability("a").legal_hold
    with pytest.raises(Immutable):
        store.delete("a")
    store.hold("a", False)
    store.delete("a")
    with pytest.raises(NotFound):
        store.hold("a", True)


def test_a_bucket_that_keeps_nothing_says_so(cloud: Cloud) -> None:
    """With the next step; a promise that is not kept is none."""
    store = cloud.open()
    store.put("a", b"")
    cloud.server.keeps_objects = cloud.server.keeps_versions = False
    with pytest.raises(Unsupported) as caught:
        store.retain("a", now() + timedelta(days=1))
    assert "immutability" in caught.value.guidance or "retention" in caught.value.guidance


def test_a_put_repeated_onto_itself_under_retention_is_a_success(cloud: Cloud) -> None:
    """The bucket keeps every object at once; the answer is lost; the second request meets what the first one made."""
    store = cloud.open()
    if cloud.name == "gs":
        cloud.server.bucket_retention = timedelta(days=1)
    else:
        cloud.server.holds_at_once = True
    cloud.server.weather = first(1, "lose", *cloud.puts)
    store.put("a", b"mine")
    assert cloud.server.faults["lose"] == 1 and store.get("a") == b"mine"
    with pytest.raises(Immutable):
        cloud.open().put("a", b"mine")


def test_an_honest_server_passes_the_probe_once_and_a_lax_one_is_found_out(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two conditional puts, the answer kept, nothing left."""
    store = cloud.open()
    assert store.capabilities().conditional_create and store.capabilities().is_local
    seen = len(cloud.server.requests)
    store.capabilities()
    assert len(cloud.server.requests) == seen and not cloud.names()
    cloud.server.ignores_conditions = True
    assert not cloud.open().capabilities().conditional_create and not cloud.names()


def test_classes_and_keys_of_encryption_are_asked_for(cloud: Cloud) -> None:
    """Large objects in the class named, small ones not: they are read at every run."""
    words = {"REFLOAT_GCS_STORAGE_CLASS": "NEARLINE", "REFLOAT_GCS_KMS_KEY": "projects/p/k"}
    words |= {"REFLOAT_AZURE_ACCESS_TIER": "Cool", "REFLOAT_AZURE_ENCRYPTION_SCOPE": "scope"}
    store = cloud.open(**words)
    store.put("large", bytes(2 * MIB))
    store.put("larger", bytes(BIG))
    store.put("small", b"x")
    for name, is_cold in (("large", True), ("larger", True), ("small", False)):
        if cloud.name == "gs":
            facts = cloud.server.objects[f"vault/{name}"].facts
            assert (facts.get("storageClass") == "NEARLINE") is is_cold and facts["kmsKeyName"] == "projects/p/k"
        else:
            said = cloud.server.blobs[f"vault/{name}"].words
            assert (said.get("x-ms-access-tier") == "Cool") is is_cold and said["x-ms-encryption-scope"] == "scope"


def test_a_mover_opens_the_same_store(cloud: Cloud) -> None:
    """With what it is given and nothing else; no secret is in a representation."""
    store = cloud.open()
    store.put("a", b"body")
    given = dict(store.mover_environment())
    other = Cloud(cloud.name, cloud.server).open(**given)
    assert other.get("a") == b"body" and dict(other.mover_environment()) == given
    assert cloud.name == "gs" or cloud.server.key not in repr(vars(store))


@pytest.mark.parametrize("name", CALLS)
def test_an_endpoint_that_is_not_there(name: str) -> None:
    """A port on which nobody listens."""
    for kind in ("gs", "az"):
        with started(kind) as server:
            store = Cloud(kind, server).open()
        with pytest.raises(ProviderError, match=Cloud(kind, server).place):
            CALLS[name](store)


def test_faults_were_drawn_by_kind() -> None:
    """The storm of these tests is what the bar says: 30 % refused, and some cut and lost."""
    rng = random.Random(1)
    drawn = Counter(storm(rng, "GET", "/") for _ in range(10_000))
    assert 0.28 < drawn["refuse"] / 10_000 < 0.32 and drawn["reset"] > 300 and drawn["lose"] > 100
