"""The `KeyWrapper` contract: a key service that encrypts a vault password, so that nobody need keep the password."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

CONTRACT_VERSION = 1
LARGEST_SECRET_BYTES = 1024
"""Every wrapper must take secrets up to this size; key services take 4096 bytes and more."""


class KeyWrapper(Protocol):
    """One key of one key service. Callable from several threads at once.

    Every method raises ``WrongKey``, ``IntegrityError``, ``AccessDenied``, ``Throttled``, ``Unavailable``,
    ``TimedOut``, ``NotFound`` (the key is gone) or ``ConfigError`` as the tree in ``refloat.errors`` says; no foreign
    exception leaves it, and no message holds the secret or the key.
    """

    @property
    def url(self) -> str:
        """The address it was opened with; holds no secret."""
        ...

    def wrap(self, secret: bytes, context: Mapping[str, str]) -> bytes:
        """The secret encrypted under the key and bound to the context; another value every time.

        The context is no secret; key services show it in their audit logs.
        """
        ...

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """The secret; only with the key it was wrapped by and exactly the same context.

        Raises:
            WrongKey: It was wrapped by another key or for another context, or was changed since.
            IntegrityError: It is nothing that this kind of wrapper made.
        """
        ...

    def close(self) -> None:
        """Let go of connections; idempotent."""
        ...


class KeyWrapperFactory(Protocol):
    """What an entry point of group ``refloat.key_wrappers`` names; the entry's name is the URL scheme."""

    def __call__(self, url: str, environment: Mapping[str, str]) -> KeyWrapper:
        """Open the wrapper; must not make a key, must not fail for a service that is merely unreachable."""
        ...
