"""The `ObjectStore` contract: where bytes live, addressed by key under one bucket and prefix, or one folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from refloat.errors import ConfigError

CONTRACT_VERSION = 1
KEY = re.compile(r"^(?!.*(?:^|/)\.{1,2}(?:/|$))[a-z0-9._-]+(?:/[a-z0-9._-]+)*\Z")
MAX_KEY = 512


@dataclass(frozen=True)
class ObjectStoreCapabilities:
    """What one store can do. ``is_local``: only this machine reaches it, so no pod of another machine can."""

    conditional_create: bool
    """``put(if_absent=True)`` has exactly one winner; probed, not believed."""
    is_local: bool
    max_object_bytes: int
    advised_concurrency: int


@dataclass(frozen=True)
class StoredObject:
    """Facts of one stored object; ``modified_at`` is aware UTC by the store's clock."""

    key: str
    size_bytes: int
    modified_at: datetime


class ObjectStore(Protocol):
    """One bucket and prefix. Callable from several threads at once.

    Keys are relative, lower-case ASCII, match ``KEY`` and have at most ``MAX_KEY`` characters; anything else
    raises ``refloat.errors.ConfigError``. Every method raises ``AccessDenied``, ``Throttled``, ``Unavailable``,
    ``TimedOut`` or ``NotFound`` (bucket gone) as the tree in ``refloat.errors`` says; no foreign exception leaves it.
    """

    @property
    def url(self) -> str:
        """The address it was opened with; holds no secret."""
        ...

    def capabilities(self) -> ObjectStoreCapabilities:
        """What the store can do; may probe it once (writing and removing one object under ``refloat/probe/``)."""
        ...

    def put(
        self, key: str, body: bytes | bytearray | memoryview, *, if_absent: bool = False, sha256: bytes | None = None
    ) -> None:
        """Store ``body`` whole: no reader ever sees a part; visible to all methods on return.

        Args:
            sha256: The body's digest, 32 bytes, where the caller has it: a store that needs it need not hash again.

        Raises:
            AlreadyExists: ``if_absent`` and the key exists; nothing is changed.
            StoreFull: No room.
        """
        ...

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """The bytes from ``start``, exactly ``length`` of them, or all to the end.

        Raises:
            NotFound: No such key.
            RangeNotSatisfiable: Fewer bytes exist than asked for; never a short answer.
        """
        ...

    def stat(self, key: str) -> StoredObject:
        """Size and time.

        Raises:
            NotFound: No such key.
        """
        ...

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Every object whose key starts with ``prefix``, lazily, sorted by key, each once, no unfinished uploads."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object; succeeds when it is already gone.

        Raises:
            Immutable: It is under retention.
        """
        ...

    def mover_environment(self) -> Mapping[str, str]:
        """The environment a mover elsewhere needs to open the same store: credentials that go into a per-run Secret.

        The values are secret. Empty for a store that needs none.
        """
        ...

    def close(self) -> None:
        """Let go of connections; idempotent."""
        ...


class ObjectStoreFactory(Protocol):
    """What an entry point of group ``refloat.object_stores`` names; the entry's name is the URL scheme."""

    def __call__(self, url: str, environment: Mapping[str, str]) -> ObjectStore:
        """Open the store; must not create a bucket, must not fail for a bucket that is merely unreachable."""
        ...


def validate_key(key: str) -> str:
    """The key itself when it is legal.

    Raises:
        ConfigError: It is not.
    """
    if len(key) > MAX_KEY or not KEY.match(key):
        raise ConfigError(f"{key[:80]!r} is no legal store key", key=key[:80])
    return key
