"""A store with faults: counted, and told apart by the test from what works."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from refloat.errors import AlreadyExists, Unavailable
from refloat.ports.object_store import ObjectStore, ObjectStoreCapabilities, StoredObject


class FaultyStore:
    """Passes everything on, counts calls, and dies at a given put: that one and all later calls fail."""

    def __init__(self, inner: ObjectStore, *, dies_at_put: int | None = None) -> None:
        self._inner, self._dies_at_put = inner, dies_at_put
        self._guard = threading.Lock()
        self.calls: Counter[str] = Counter()
        self.faults = 0
        self.on_put: Callable[[str], None] = lambda key: None
        """Called after every put."""
        self.loses_answers: Callable[[str], bool] = lambda key: False
        """Puts of these keys succeed once, and say on the repeated request that the key exists."""

    @property
    def url(self) -> str:
        return self._inner.url

    def capabilities(self) -> ObjectStoreCapabilities:
        return self._inner.capabilities()

    def _count(self, verb: str, key: str) -> None:
        with self._guard:
            self.calls[verb] += 1
            self.calls[f"{verb} {key.partition('/')[0]}"] += 1
            if self._dies_at_put is not None and self.calls["put"] > self._dies_at_put:
                self.faults += 1
                raise Unavailable(f"injected: the store is dead ({verb} {key})")

    def put(
        self, key: str, body: bytes | bytearray | memoryview, *, if_absent: bool = False, sha256: bytes | None = None
    ) -> None:
        self._count("put", key)
        self._inner.put(key, body, if_absent=if_absent, sha256=sha256)
        self.on_put(key)
        if self.loses_answers(key):
            self.faults += 1
            raise AlreadyExists(f"injected: the first answer was lost ({key})")

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        self._count("get", key)
        return self._inner.get(key, start=start, length=length)

    def stat(self, key: str) -> StoredObject:
        self._count("stat", key)
        return self._inner.stat(key)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        self._count("list", prefix)
        return self._inner.list(prefix)

    def delete(self, key: str) -> None:
        self._count("delete", key)
        self._inner.delete(key)

    def mover_environment(self) -> Mapping[str, str]:
        return self._inner.mover_environment()

    def close(self) -> None:
        self._inner.close()
