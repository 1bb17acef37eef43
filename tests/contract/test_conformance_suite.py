"""The conformance suite finds out stores that break the contract: one fault each, and the check that must see it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress

import pytest

from refloat.clock import now
from refloat.conformance import object_store as suite
from refloat.errors import AlreadyExists, NotFound, RangeNotSatisfiable
from refloat.ports.object_store import ObjectStoreCapabilities, StoredObject, validate_key


class Memory:
    """A store in memory that keeps the contract; faults are made by inheriting from it."""

    url = "memory://here"

    def __init__(self) -> None:
        self.held: dict[str, tuple[bytes, StoredObject]] = {}
        self.lock = threading.Lock()

    def capabilities(self) -> ObjectStoreCapabilities:
        return ObjectStoreCapabilities(True, True, 2**40, 4)

    def put(
        self, key: str, body: bytes | bytearray | memoryview, *, if_absent: bool = False, sha256: bytes | None = None
    ) -> None:
        validate_key(key)
        with self.lock:
            if if_absent and key in self.held:
                raise AlreadyExists(key)
            self.held[key] = bytes(body), StoredObject(key, len(body), now())

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        self.stat(key)
        body = self.held[key][0]
        end = len(body) if length is None else start + length
        if start > len(body) or end > len(body):
            raise RangeNotSatisfiable(key)
        return body[start:end]

    def stat(self, key: str) -> StoredObject:
        if validate_key(key) not in self.held:
            raise NotFound(key)
        return self.held[key][1]

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        return iter([self.held[key][1] for key in sorted(self.held.copy()) if key.startswith(prefix)])

    def delete(self, key: str) -> None:
        self.held.pop(validate_key(key), None)

    def mover_environment(self) -> Mapping[str, str]:
        return {}

    def close(self) -> None:
        pass


class IgnoresConditions(Memory):
    def put(
        self, key: str, body: bytes | bytearray | memoryview, *, if_absent: bool = False, sha256: bytes | None = None
    ) -> None:
        super().put(key, body)


class LooksThenPuts(Memory):
    """Checks and stores in two steps, as a server without a lock does; the pause between them is made long."""

    def put(
        self, key: str, body: bytes | bytearray | memoryview, *, if_absent: bool = False, sha256: bytes | None = None
    ) -> None:
        if if_absent and validate_key(key) in self.held:
            raise AlreadyExists(key)
        if if_absent and self.crowd is not None:
            with suppress(threading.BrokenBarrierError):
                self.crowd.wait(timeout=1)
        super().put(key, body)

    @property
    def crowd(self) -> threading.Barrier | None:
        if threading.current_thread() is threading.main_thread():
            return None
        return self.__dict__.setdefault("_crowd", threading.Barrier(suite.WRITERS))


class AnswersShort(Memory):
    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        self.stat(key)
        return self.held[key][0][start : None if length is None else start + length]


class IgnoresRanges(Memory):
    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        return super().get(key)


class ListsAsItPleases(Memory):
    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        return iter([found for _, found in list(self.held.values()) if found.key.startswith(prefix)])


class ListsFolders(Memory):
    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        return (found for found in super().list() if found.key.startswith(folder) or found.key == prefix)


class ListsOnePage(Memory):
    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        return iter(list(super().list(prefix))[:1000])


class ListsALot(Memory):
    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        return list(super().list(prefix))  # type: ignore[return-value]


class DeletesFolders(Memory):
    def delete(self, key: str) -> None:
        for found in [held for held in self.held if held == key or held.startswith(f"{key}/")]:
            super().delete(found)


class DeletesOnce(Memory):
    def delete(self, key: str) -> None:
        self.stat(key)
        super().delete(key)


class TakesAnyKey(Memory):
    def put(
        self, key: str, body: bytes | bytearray | memoryview, *, if_absent: bool = False, sha256: bytes | None = None
    ) -> None:
        super().put("any" if not key.islower() else key, body, if_absent=if_absent)


class ForeignError(Memory):
    def stat(self, key: str) -> StoredObject:
        return self.held[validate_key(key)][1]


class ShowsTheLastButOne(Memory):
    def put(
        self, key: str, body: bytes | bytearray | memoryview, *, if_absent: bool = False, sha256: bytes | None = None
    ) -> None:
        before = self.held.get(key)
        super().put(key, body, if_absent=if_absent)
        if before is not None:
            self.held[key] = before


class WritesInPieces(Memory):
    def put(
        self, key: str, body: bytes | bytearray | memoryview, *, if_absent: bool = False, sha256: bytes | None = None
    ) -> None:
        super().put(key, bytes(body)[: len(body) // 2], if_absent=if_absent)
        threading.Event().wait(0.005)  # how long a reader may see the half
        super().put(key, body)


class LeavesItsProbe(Memory):
    def capabilities(self) -> ObjectStoreCapabilities:
        self.put("refloat/probe/x", b"")
        return super().capabilities()


class TellsItsSecret(Memory):
    url = "memory://hunter2@here"

    def mover_environment(self) -> Mapping[str, str]:
        return {"AWS_SECRET_ACCESS_KEY": "hunter2"}


FAULTS: list[tuple[type[Memory], suite.Check]] = [
    (IgnoresConditions, suite.create_if_absent_changes_nothing),
    (IgnoresConditions, suite.create_if_absent_has_one_winner),
    (LooksThenPuts, suite.create_if_absent_has_one_winner),
    (AnswersShort, suite.ranges_are_never_short),
    (IgnoresRanges, suite.ranges_are_exact),
    (ListsAsItPleases, suite.listing_is_sorted_and_whole),
    (ListsFolders, suite.a_prefix_is_a_beginning_of_keys),
    (ListsOnePage, suite.long_listings_are_whole_and_lazy),
    (ListsALot, suite.long_listings_are_whole_and_lazy),
    (DeletesFolders, suite.delete_may_be_repeated),
    (DeletesOnce, suite.delete_may_be_repeated),
    (TakesAnyKey, suite.illegal_keys_are_refused),
    (ForeignError, suite.a_missing_key_is_not_found),
    (ShowsTheLastButOne, suite.overwriting_is_visible_at_once),
    (WritesInPieces, suite.readers_see_whole_objects),
    (LeavesItsProbe, suite.capabilities_are_probed_without_trace),
    (TellsItsSecret, suite.movers_can_open_it_and_the_address_holds_no_secret),
]


def test_a_store_that_keeps_the_contract_passes_whole() -> None:
    """Every check has a finding, and none finds anything."""
    findings = suite.run(Memory)
    assert [finding.check for finding in findings] == [check.__name__ for check in suite.CHECKS]
    assert [finding for finding in findings if not finding.is_kept] == []
    assert all(finding.promise for finding in findings)


@pytest.mark.parametrize(("kind", "check"), FAULTS, ids=lambda value: value.__name__)
def test_a_fault_is_found(kind: type[Memory], check: suite.Check) -> None:
    """The check for it fails with a sentence."""
    (finding,) = suite.run(kind, (check,))
    assert finding.wrong
