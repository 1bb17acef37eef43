"""The conformance suite of `ObjectStore`: what every store must do, as plain functions that need no test framework.

Three callers: refloat's own tests, the tests of whoever writes a provider, and an operator who asks about a real
bucket. Each check takes a way to open a fresh store (an empty prefix or folder of its own every time), raises
`AssertionError` with a sentence on what is wrong, and removes what it wrote:

    findings = run(lambda: open_object_store(f"s3://bucket/check/{secrets.token_hex(8)}", os.environ))
    assert all(finding.is_kept for finding in findings)
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from itertools import islice
from typing import TypeVar

from refloat.clock import now
from refloat.errors import AlreadyExists, ConfigError, NotFound, RangeNotSatisfiable, RefloatError
from refloat.ports.object_store import MAX_KEY, ObjectStore

Open = Callable[[], ObjectStore]
Check = Callable[[Open], None]

WRITERS = 16
ROUNDS = 10
MANY = 1001
"""One more than a page of S3's listing holds."""
MOST_SKEW = timedelta(minutes=15)
"""S3 refuses requests signed on a clock further off (RequestTimeTooSkewed)."""
ILLEGAL = ("", "/a", "a/", "a//b", "a/../b", "..", ".", "A", "a b", "a\n", "ä", "a\0b", "a\\b", "a" * (MAX_KEY + 1))

_T = TypeVar("_T")


@dataclass(frozen=True)
class Finding:
    """How one check ended; ``wrong`` is None when the store keeps that part of the contract."""

    check: str
    promise: str
    wrong: str | None

    @property
    def is_kept(self) -> bool:
        """Whether the store does as the contract says."""
        return self.wrong is None


def run(open_fresh: Open, checks: Sequence[Check] | None = None) -> list[Finding]:
    """The checks (all when omitted) in order; a failing one does not keep the others from running."""
    return [_finding(check, open_fresh) for check in (CHECKS if checks is None else checks)]


def _finding(check: Check, open_fresh: Open) -> Finding:
    name, promise = check.__name__, (check.__doc__ or "").strip()
    try:
        check(open_fresh)
    except (AssertionError, RefloatError) as wrong:
        return Finding(
            name, promise, f"{type(wrong).__name__}: {wrong}" if isinstance(wrong, RefloatError) else str(wrong)
        )
    return Finding(name, promise, None)


def require(holds: bool, otherwise: str) -> None:
    """Raise AssertionError with a sentence; unlike ``assert`` also under ``python -O``."""
    if not holds:
        raise AssertionError(otherwise)


@contextmanager
def fresh(open_fresh: Open) -> Iterator[ObjectStore]:
    """A store of the check's own, emptied and closed at the end."""
    store = open_fresh()
    try:
        require(not list(islice(store.list(), 1)), f"{store.url} is not empty: checks need a place of their own")
        try:
            yield store
        finally:
            for found in list(store.list()):
                store.delete(found.key)
    finally:
        store.close()


def raises(kind: type[RefloatError], call: Callable[[], object], what: str) -> None:
    """The call must end with exactly this error."""
    try:
        answer = call()
    except RefloatError as error:
        require(type(error) is kind, f"{what} must be {kind.__name__}, but was {type(error).__name__}: {error}")
        require(bool(str(error)), f"{what}: {kind.__name__} says nothing")
        return
    except Exception as foreign:
        raise AssertionError(f"{what} let a foreign exception out: {type(foreign).__name__}: {foreign}") from foreign
    raise AssertionError(f"{what} must be {kind.__name__}, but succeeded: {str(answer)[:80]}")


def together(call: Callable[[int], _T], times: int = WRITERS) -> list[_T]:
    """What calls from several threads gave that began at one instant."""
    start = threading.Barrier(times)

    def one(number: int) -> _T:
        start.wait(timeout=30)
        return call(number)

    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(one, range(times)))


def what_was_put_is_read(open_fresh: Open) -> None:
    """Bytes, bytearray and memoryview, empty and large, come back as they were."""
    with fresh(open_fresh) as store:
        large = secrets.token_bytes(3 * 2**20 + 1)
        bodies: dict[str, bytes | bytearray | memoryview] = {
            "empty": b"",
            "one": b"\0",
            "large": large,
            "array": bytearray(b"ab"),
            "view": memoryview(large)[5:99],
        }
        for key, body in bodies.items():
            store.put(f"a/{key}", body)
            require(store.get(f"a/{key}") == bytes(body), f"{key}: {len(body)} bytes do not come back as they were put")
            require(isinstance(store.get(f"a/{key}"), bytes), f"{key}: get must give bytes")
        for key, body in bodies.items():
            store.put(f"b/{key}", body, if_absent=True, sha256=sha256(body).digest())
            require(
                store.get(f"b/{key}") == bytes(body), f"{key}: put with its digest does not come back as it was put"
            )


def overwriting_is_visible_at_once(open_fresh: Open) -> None:
    """After put returns, get, stat and list show the new object, and after delete none."""
    with fresh(open_fresh) as store:
        for size in (10, 3, 0, 7):
            body = secrets.token_bytes(size)
            store.put("config", body)
            require(store.get("config") == body, "get shows an older object than the last put")
            require(store.stat("config").size_bytes == size, "stat shows an older object than the last put")
            require([o.size_bytes for o in store.list()] == [size], "list shows an older object than the last put")
        store.delete("config")
        require(not list(store.list()), "list shows a deleted object")


def readers_see_whole_objects(open_fresh: Open) -> None:
    """While an object is replaced again and again, a reader gets one of its versions whole."""
    with fresh(open_fresh) as store:
        versions = [bytes([number]) * (2**18 + number) for number in range(4)]
        store.put("a", versions[0])
        written = threading.Event()

        def work(number: int) -> bool:
            if number:
                whole = store.get("a") in versions
                while whole and not written.is_set():
                    whole = store.get("a") in versions
                return whole
            try:
                for version in versions * 4:
                    store.put("a", version)
            finally:
                written.set()
            return True

        require(all(together(work, 4)), "a reader saw a part of an object")


def create_if_absent_changes_nothing(open_fresh: Open) -> None:
    """A second put with if_absent raises AlreadyExists and leaves the first object as it was."""
    with fresh(open_fresh) as store:
        require(store.capabilities().conditional_create, "capabilities say that if_absent is not kept")
        store.put("locks/a", b"first", if_absent=True)
        raises(AlreadyExists, lambda: store.put("locks/a", b"second", if_absent=True), "a second put with if_absent")
        require(store.get("locks/a") == b"first", "put with if_absent replaced an object")
        store.put("locks/a", b"third")
        raises(AlreadyExists, lambda: store.put("locks/a", b"third", if_absent=True), "put with if_absent after put")
        store.delete("locks/a")
        store.put("locks/a", b"fourth", if_absent=True)
        require(store.get("locks/a") == b"fourth", "after delete, put with if_absent did not store")


def create_if_absent_has_one_winner(open_fresh: Open) -> None:
    """Of many that create one key at once exactly one succeeds, and its object is the one that stays."""
    with fresh(open_fresh) as store:
        for turn in range(ROUNDS):
            key = f"locks/{turn}"

            def create(number: int, key: str = key) -> bool:
                try:
                    store.put(key, f"writer {number}".encode(), if_absent=True)
                except AlreadyExists:
                    return False
                return True

            winners = [number for number, won in enumerate(together(create)) if won]
            require(len(winners) == 1, f"{len(winners)} of {WRITERS} writers created the same key")
            require(store.get(key) == f"writer {winners[0]}".encode(), "the object is not the winner's")


def ranges_are_exact(open_fresh: Open) -> None:
    """get gives exactly the bytes asked for, wherever they lie."""
    with fresh(open_fresh) as store:
        body = secrets.token_bytes(1000)
        store.put("a", body)
        for start, length in ((0, 1), (0, 1000), (999, 1), (10, 20), (0, None), (10, None), (999, None), (1000, None)):
            wanted = body[start:] if length is None else body[start : start + length]
            require(
                store.get("a", start=start, length=length) == wanted, f"bytes from {start}, {length} of them, are wrong"
            )
        require(store.get("a", start=5, length=0) == b"", "no bytes were asked for, some came")


def ranges_are_never_short(open_fresh: Open) -> None:
    """Where fewer bytes exist than asked for, get raises RangeNotSatisfiable."""
    with fresh(open_fresh) as store:
        store.put("a", b"0123456789")
        store.put("empty", b"")
        require(store.get("empty") == b"", "an empty object reads as something")
        for key, start, length in (
            ("a", 9, 2),
            ("a", 0, 11),
            ("a", 10, 1),
            ("a", 50, 5),
            ("a", 11, None),
            ("empty", 0, 1),
        ):

            def read(key: str = key, start: int = start, length: int | None = length) -> bytes:
                return store.get(key, start=start, length=length)

            raises(RangeNotSatisfiable, read, f"get of {key} from {start}, {length} bytes,")


def a_missing_key_is_not_found(open_fresh: Open) -> None:
    """get, in whole or part, and stat of a key that is not there raise NotFound, also below and above a key."""
    with fresh(open_fresh) as store:
        store.put("data/aa/pack", b"x")
        for key in ("missing", "data", "data/aa", "data/aa/pack/x", "data/aa/pac"):
            raises(NotFound, lambda key=key: store.get(key), f"get of {key}")  # type: ignore[misc]
            raises(NotFound, lambda key=key: store.get(key, start=1, length=1), f"ranged get of {key}")  # type: ignore[misc]
            raises(NotFound, lambda key=key: store.stat(key), f"stat of {key}")  # type: ignore[misc]


def delete_may_be_repeated(open_fresh: Open) -> None:
    """delete removes one object only, and succeeds for what is not there."""
    with fresh(open_fresh) as store:
        store.put("a/b", b"1")
        store.put("a/bc", b"2")
        for key in ("missing", "a", "a/b/c", "a/b", "a/b"):
            store.delete(key)
        require([o.key for o in store.list()] == ["a/bc"], "delete removed too much or too little")


def listing_is_sorted_and_whole(open_fresh: Open) -> None:
    """list gives every object once, in the order of the keys' bytes, with size and time."""
    keys = [
        "config",
        "data/00/a",
        "data/00-a",
        "data/00.a",
        "data/0",
        "data-x",
        "data.x",
        "d",
        "data/00/a-b",
        "z/z/z",
        "_",
    ]
    with fresh(open_fresh) as store:
        for number, key in enumerate(keys):
            store.put(key, b"x" * number)
        found = list(store.list())
        require([o.key for o in found] == sorted(keys), f"list gave {[o.key for o in found]}")
        require([o.size_bytes for o in found] == [keys.index(o.key) for o in found], "list gave wrong sizes")
        for one in found:
            require(one.modified_at.utcoffset() == timedelta(0), f"{one.key}: the time is not aware UTC")


def a_prefix_is_a_beginning_of_keys(open_fresh: Open) -> None:
    """list("ab") gives a key "abc" and one "ab/c": a prefix is no folder."""
    keys = ["a", "ab/c", "abc", "abd/e", "b"]
    with fresh(open_fresh) as store:
        for key in keys:
            store.put(key, b"")
        for prefix in ("", "a", "ab", "ab/", "abc", "abd/e", "abd/ef", "c", "b/"):
            found = [o.key for o in store.list(prefix)]
            require(found == [key for key in keys if key.startswith(prefix)], f"list({prefix!r}) gave {found}")


def long_listings_are_whole_and_lazy(open_fresh: Open) -> None:
    """More objects than a page holds are listed once each; list returns an iterator that may be left half-way."""
    with fresh(open_fresh) as store:
        keys = [f"data/{number % 7:02}/{number:04}" for number in range(MANY)]
        with ThreadPoolExecutor(store.capabilities().advised_concurrency) as pool:
            list(pool.map(lambda key: store.put(key, b"x"), keys))
        found = store.list("data/")
        require(iter(found) is found, "list must give an iterator")
        require([o.key for o in islice(found, 3)] == sorted(keys)[:3], "the first objects of a long list are wrong")
        require([o.key for o in store.list("data/")] == sorted(keys), "a long list is not whole")
        with ThreadPoolExecutor(store.capabilities().advised_concurrency) as pool:
            list(pool.map(store.delete, keys))


def illegal_keys_are_refused(open_fresh: Open) -> None:
    """Every method raises ConfigError for a key outside the contract's rule, and stores nothing."""
    with fresh(open_fresh) as store:
        calls: dict[str, Callable[[str], object]] = {
            "put": lambda key: store.put(key, b"x"),
            "put with if_absent": lambda key: store.put(key, b"x", if_absent=True),
            "get": store.get,
            "stat": store.stat,
            "delete": store.delete,
        }
        for key in ILLEGAL:
            for name, call in calls.items():
                raises(ConfigError, lambda call=call, key=key: call(key), f"{name} of {key[:20]!r}")  # type: ignore[misc]
        require(not list(store.list()), "something was stored under an illegal key")


def stat_tells_size_and_time(open_fresh: Open) -> None:
    """stat and list agree; the time is that of the put, by a clock at most 15 minutes off ours."""
    with fresh(open_fresh) as store:
        store.put("a", b"12345")
        found = store.stat("a")
        require((found.key, found.size_bytes) == ("a", 5), f"stat gave {found}")
        require(found.modified_at.utcoffset() == timedelta(0), "the time is not aware UTC")
        require(abs(now() - found.modified_at) < MOST_SKEW, f"the store's clock is off: {found.modified_at}")
        listed = next(iter(store.list("a")))
        require(
            abs(listed.modified_at - found.modified_at) < timedelta(seconds=1), "stat and list tell different times"
        )


def threads_share_a_store(open_fresh: Open) -> None:
    """Calls from many threads on one store do not disturb each other."""
    with fresh(open_fresh) as store:

        def work(number: int) -> bool:
            body = secrets.token_bytes(50_000 + number)
            store.put(f"t/{number:02}", body, if_absent=bool(number % 2))
            same = store.get(f"t/{number:02}") == body and store.stat(f"t/{number:02}").size_bytes == len(body)
            return same and f"t/{number:02}" in [o.key for o in store.list("t/")]

        require(all(together(work, 2 * WRITERS)), "a thread did not find what it had put")
        require(len(list(store.list("t/"))) == 2 * WRITERS, "objects were lost")


def capabilities_are_probed_without_trace(open_fresh: Open) -> None:
    """capabilities gives the same every time and leaves nothing behind."""
    with fresh(open_fresh) as store:
        found = store.capabilities()
        require(found == store.capabilities(), "capabilities changed")
        require(found.conditional_create, "two writers could overwrite each other: if_absent is not kept")
        require(found.max_object_bytes >= 2**27, "objects of 128 MiB do not fit")
        require(found.advised_concurrency >= 1, "the advised concurrency is no number of threads")
        require(not list(store.list()), "the probe left something behind")


def movers_can_open_it_and_the_address_holds_no_secret(open_fresh: Open) -> None:
    """mover_environment holds variables; none of its secrets is in the address; close may be repeated."""
    store = open_fresh()
    words = dict(store.mover_environment())
    require(all(name.isidentifier() and name.isupper() for name in words), f"no variables: {sorted(words)}")
    for name, value in words.items():
        secret = "SECRET" in name or "TOKEN" in name or "PASSWORD" in name
        require(bool(value), f"{name} is empty")
        require(not secret or value not in store.url, f"the address holds the value of {name}")
    store.close()
    store.close()


CHECKS: tuple[Check, ...] = (
    capabilities_are_probed_without_trace,
    what_was_put_is_read,
    overwriting_is_visible_at_once,
    readers_see_whole_objects,
    create_if_absent_changes_nothing,
    create_if_absent_has_one_winner,
    ranges_are_exact,
    ranges_are_never_short,
    a_missing_key_is_not_found,
    delete_may_be_repeated,
    listing_is_sorted_and_whole,
    a_prefix_is_a_beginning_of_keys,
    long_listings_are_whole_and_lazy,
    illegal_keys_are_refused,
    stat_tells_size_and_time,
    threads_share_a_store,
    movers_can_open_it_and_the_address_holds_no_secret,
)
