"""A store whose clock is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from refloat.ports.object_store import StoredObject
from tests.vault.faulty import FaultyStore


class ClockedStore(FaultyStore):
    """Every time it tells is off by as much; each is counted as a fault."""

    off = timedelta(0)

    def stat(self, key: str) -> StoredObject:
        return self._shifted(super().stat(key))

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        return map(self._shifted, super().list(prefix))

    def _shifted(self, found: StoredObject) -> StoredObject:
        self.faults += bool(self.off)
        return StoredObject(found.key, found.size_bytes, found.modified_at + self.off)
