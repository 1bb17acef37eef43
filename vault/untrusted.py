"""Untrusted JSON: a text that is small may be huge in memory, so it is weighed before it is parsed."""

from __future__ import annotations

from typing import Any

import orjson

LIMIT_BYTES = 64 << 20
VALUE_BYTES = 100
"""About what a list, a dictionary, or a short string takes in memory, and more than a number does."""


def weigh(text: bytes, limit_bytes: int = LIMIT_BYTES) -> None:
    """See that a JSON text becomes no more than that in memory, by its length and its number of values.

    Raises:
        ValueError: It might.
    """
    weight = len(text)
    if weight * VALUE_BYTES > limit_bytes:
        weight += VALUE_BYTES * (text.count(b",") + text.count(b"[") + text.count(b"{"))
        if weight > limit_bytes:
            raise ValueError(f"{len(text)} bytes of JSON that might need {weight >> 20} MiB of memory")


def load(text: bytes, limit_bytes: int = LIMIT_BYTES) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: It is none, or might need more memory than that.
    """
    weigh(text, limit_bytes)
    return orjson.loads(text)
