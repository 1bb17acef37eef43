"""`Export`: the sanitised manifests of a point between discovery and seal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from refloat.recovery_point import ObjectCopy


@dataclass(frozen=True)
class Export:
    """Manifests by path inside the point, and the facts the descriptor keeps. Holds Secret data: never log it."""

    copies: tuple[ObjectCopy, ...]
    manifests: Mapping[str, bytes] = field(repr=False)
