"""A store in memory, whose objects a torture changes at will, and a vault of many points in it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from refloat.errors import AlreadyExists, NotFound, RangeNotSatisfiable
from refloat.ports.object_store import ObjectStoreCapabilities, StoredObject
from refloat.recovery_point import CataloguedPoint
from tests.vault.given import MANIFEST, PASSWORD, point_over
from vault.archive import archive
from vault.catalogue import seal
from vault.repository import VERSION, OpenVault, init
from vault.tally import Tally


class MemoryStore:
    """One prefix. Tests read and change ``objects`` directly."""

    url = "memory://vault"

    def __init__(self, objects: Mapping[str, bytes] | None = None) -> None:
        self.objects = dict(objects or {})

    def capabilities(self) -> ObjectStoreCapabilities:
        return ObjectStoreCapabilities(
            conditional_create=True, is_local=True, max_object_bytes=1 << 40, advised_concurrency=8
        )

    def put(
        self, key: str, body: bytes | bytearray | memoryview, *, if_absent: bool = False, sha256: bytes | None = None
    ) -> None:
        del sha256
        if if_absent and key in self.objects:
            raise AlreadyExists(f"{key} exists")
        self.objects[key] = bytes(body)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        body = self._body(key)
        end = len(body) if length is None else start + length
        if start > len(body) or end > len(body):
            raise RangeNotSatisfiable(f"{key} has {len(body)} bytes, asked for {start} to {end}")
        return body[start:end]

    def stat(self, key: str) -> StoredObject:
        return StoredObject(key, len(self._body(key)), datetime(2026, 1, 1, tzinfo=UTC))

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        return (self.stat(key) for key in sorted(self.objects) if key.startswith(prefix))

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def mover_environment(self) -> Mapping[str, str]:
        return {}

    def close(self) -> None:
        pass

    def _body(self, key: str) -> bytes:
        if key not in self.objects:
            raise NotFound(f"there is no {key}")
        return self.objects[key]


def seen_anew(vault: OpenVault) -> OpenVault:
    """The vault as another process would see it, without paying for its key derivation again."""
    return OpenVault(vault.store, vault.files.key, {"id": vault.id, "version": VERSION})


def vault_of_points(scratch: Path, rng: random.Random, *, count: int) -> tuple[OpenVault, list[CataloguedPoint]]:
    """Points of three applications whose folders grow and shrink, so that every pack is needed by other points."""
    vault = init(MemoryStore(), PASSWORD)
    points, serial = list[CataloguedPoint](), 0
    for number in range(count):
        application = ("shop", "wiki", "mail")[number % 3]
        folder = scratch / application
        folder.mkdir(exist_ok=True)
        for _ in range(2):
            serial += 1
            below = folder / f"folder{rng.randrange(4)}"
            below.mkdir(exist_ok=True)
            (below / f"file{serial}").write_bytes(rng.randbytes(rng.randrange(1, 3000)))
        (folder / "text").write_text(f"row {serial}\n" * 50)
        old = sorted(path for path in folder.glob("*/*"))
        if len(old) > 8:
            rng.choice(old).unlink()
        done = archive(vault, folder, Tally())
        descriptor = point_over(("data", done), application=application, after=timedelta(hours=number))
        points.append(seal(vault, descriptor, {MANIFEST: f'{{"kind": "ConfigMap", "n": {number}}}'.encode()}))
    return vault, points
