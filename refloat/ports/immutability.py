"""The `ImmutableStore` contract: an object store that keeps single objects from removal until a date, or while held."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

CONTRACT_VERSION = 1


@dataclass(frozen=True)
class Immutability:
    """What keeps one object from being removed or replaced."""

    retain_until: datetime | None = None
    """Aware UTC; None where no date was set."""
    is_locked: bool = False
    """Nobody, whatever their rights, can make the date earlier."""
    legal_hold: bool = False


@runtime_checkable
class ImmutableStore(Protocol):
    """What an `ObjectStore` offers besides where its bucket allows it; the errors are that contract's."""

    def immutability(self, key: str) -> Immutability:
        """What keeps the object.

        Raises:
            NotFound: No such key.
        """
        ...

    def retain(self, key: str, until: datetime, *, locked: bool = True) -> None:
        """Keep the object until a date, or longer where it is kept longer already: a date is never made earlier.

        Raises:
            NotFound: No such key.
            Unsupported: The bucket was not made for it.
        """
        ...

    def hold(self, key: str, held: bool) -> None:
        """Set or lift the object's legal hold.

        Raises:
            NotFound: No such key.
            Unsupported: The bucket was not made for it.
        """
        ...
