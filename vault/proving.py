"""Proving: every file of a vault that is stored is read back and hashed before anything relies on it.

Names are the SHA-256 of what they name, so that the proof is exact, whatever the store says it has.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from refloat.errors import AlreadyExists, IntegrityError, RangeNotSatisfiable
from refloat.ports.object_store import ObjectStore, ObjectStoreCapabilities, StoredObject
from vault.files import NAME, FileKind

PART_BYTES = 8 << 20
_FOLDERS = tuple(f"{kind.value}/" for kind in FileKind)


def is_whole(store: ObjectStore, key: str, name: str, size_bytes: int) -> bool:
    """Whether an object of that size is what its name says; read a few MiB at a time.

    Raises:
        ProviderError: The store does not answer, or the object is gone.
    """
    digest = hashlib.sha256()
    try:
        for start in range(0, size_bytes, PART_BYTES):
            digest.update(store.get(key, start=start, length=min(PART_BYTES, size_bytes - start)))
    except RangeNotSatisfiable:
        return False
    return digest.hexdigest() == name


class ProvingStore:
    """Passes everything on, and reads back what is put under a name that tells its content."""

    def __init__(self, inner: ObjectStore) -> None:
        self._inner = inner

    @property
    def url(self) -> str:
        return self._inner.url

    def capabilities(self) -> ObjectStoreCapabilities:
        return self._inner.capabilities()

    def put(
        self, key: str, body: bytes | bytearray | memoryview, *, if_absent: bool = False, sha256: bytes | None = None
    ) -> None:
        """As the inner store; an object that is there and whole is left alone, a damaged one is replaced.

        Raises:
            IntegrityError: What was stored is not what reads back.
        """
        name = key.rpartition("/")[2]
        if not (NAME.fullmatch(name) and key.startswith(_FOLDERS)):
            self._inner.put(key, body, if_absent=if_absent, sha256=sha256)
            return
        try:
            self._inner.put(key, body, if_absent=if_absent, sha256=sha256)
        except AlreadyExists:
            if is_whole(self._inner, key, name, len(body)):
                raise
            self._inner.put(key, body, sha256=sha256)
        if not is_whole(self._inner, key, name, len(body)):
            raise IntegrityError(f"{key} of {self.url} does not read back as stored: the store cannot be trusted")

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        return self._inner.get(key, start=start, length=length)

    def stat(self, key: str) -> StoredObject:
        return self._inner.stat(key)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        return self._inner.list(prefix)

    def delete(self, key: str) -> None:
        self._inner.delete(key)

    def mover_environment(self) -> Mapping[str, str]:
        return self._inner.mover_environment()

    def close(self) -> None:
        self._inner.close()


class Room:
    """How many bytes may be in memory at once; what is larger than all of it waits until it is alone."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit, self._used = limit_bytes, 0
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, size_bytes: int) -> Iterator[None]:
        """Wait for room, and hold it while the block runs."""
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + size_bytes <= self._limit)
            self._used += size_bytes
        try:
            yield
        finally:
            with self._changed:
                self._used -= size_bytes
                self._changed.notify_all()
