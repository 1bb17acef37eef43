"""Child processes that SIGKILL ends: at a chosen call of the store, or whenever the parent thinks fit."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping

from refloat.ports.object_store import ObjectStore, ObjectStoreCapabilities, StoredObject


class KillingStore:
    """Passes everything on; the process dies at the call of a number, before or after it is carried out."""

    def __init__(self, inner: ObjectStore, *, dies_at: int | None = None, is_after: bool = False) -> None:
        self._inner, self._dies_at, self._is_after = inner, dies_at, is_after
        self._guard = threading.Lock()
        self.calls = 0

    @property
    def url(self) -> str:
        return self._inner.url

    def capabilities(self) -> ObjectStoreCapabilities:
        return self._inner.capabilities()

    def _number(self) -> int:
        with self._guard:
            self.calls += 1
            number = self.calls
        self._die(number, is_after=False)
        return number

    def _die(self, number: int, *, is_after: bool) -> None:
        if number == self._dies_at and is_after == self._is_after:
            os.kill(os.getpid(), signal.SIGKILL)

    def put(
        self, key: str, body: bytes | bytearray | memoryview, *, if_absent: bool = False, sha256: bytes | None = None
    ) -> None:
        number = self._number()
        self._inner.put(key, body, if_absent=if_absent, sha256=sha256)
        self._die(number, is_after=True)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        number = self._number()
        found = self._inner.get(key, start=start, length=length)
        self._die(number, is_after=True)
        return found

    def stat(self, key: str) -> StoredObject:
        number = self._number()
        found = self._inner.stat(key)
        self._die(number, is_after=True)
        return found

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        number = self._number()
        yield from self._inner.list(prefix)
        self._die(number, is_after=True)

    def delete(self, key: str) -> None:
        number = self._number()
        self._inner.delete(key)
        self._die(number, is_after=True)

    def mover_environment(self) -> Mapping[str, str]:
        return self._inner.mover_environment()

    def close(self) -> None:
        self._inner.close()


def run_child(work: Callable[[], object], *, killed_after_seconds: float | None = None) -> bool:
    """Run work in a forked process; whether SIGKILL ended it. Any other end than that or success is a failure."""
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(killed_after_seconds)
    if child.exitcode is None and killed_after_seconds is not None:
        child.kill()
    child.join(120)
    assert child.exitcode in (0, -signal.SIGKILL), f"the child ended with {child.exitcode}"
    return child.exitcode != 0
