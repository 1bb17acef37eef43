"""Durations as people write them (``90s``, ``15m``, ``1h30m``, ``7d``), as a pydantic field type."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_duration(value: Any) -> Any:
    """``"1h30m"`` → timedelta; whatever is not text is left for pydantic to judge.

    Raises:
        ValueError: The text is no sequence of numbers with units ms, s, m, h, d or w.
    """
    if not isinstance(value, str):
        if isinstance(value, timedelta):
            return value
        raise ValueError("a duration is written with its unit, for example 30s, 15m, 1h30m or 7d")
    text = value.strip().lower().replace(" ", "")
    if not text or _PART.sub("", text):
        raise ValueError(f"{value!r} is no duration; write for example 30s, 15m, 1h30m or 7d")
    return timedelta(seconds=sum(float(n) * _SECONDS[unit] for n, unit in _PART.findall(text)))


def format_duration(value: timedelta) -> str:
    """The shortest exact spelling down to milliseconds: ``timedelta(seconds=90)`` → ``"1m30s"``."""
    left = round(value.total_seconds() * 1000)
    text = ""
    for unit in ("d", "h", "m", "s", "ms"):
        count, left = divmod(left, round(_SECONDS[unit] * 1000))
        text += f"{count}{unit}" if count else ""
    return text or "0s"


Duration = Annotated[
    timedelta, BeforeValidator(parse_duration), PlainSerializer(format_duration, return_type=str, when_used="json")
]
"""A timedelta that documents spell as text with units."""
