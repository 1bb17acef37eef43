"""Instants as restic's JSON has them: RFC 3339 text with up to nine decimals, here as nanoseconds since 1970, UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

SECOND = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TEXT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)")
_WHOLE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
_FIRST, _LAST = -62135596800, 253402300799
"""Years 1 to 9999: what the text can say, in seconds."""


def format_instant(nanoseconds: int) -> str:
    """The text Go writes for that instant in UTC; years before 1 or after 9999 become the nearest that can be said."""
    seconds, rest = divmod(nanoseconds, SECOND)
    if not rest:
        return _second(seconds) + "Z"
    return f"{_second(seconds)}.{rest:09d}".rstrip("0") + "Z"


def parse_instant(text: str) -> int:
    """Nanoseconds since 1970 of any RFC 3339 text.

    Raises:
        ValueError: It is none.
    """
    decimals = text[20:-1]
    if text[19:20] == "." and text[-1] == "Z" and len(decimals) <= 9 and decimals.isdecimal() and text.isascii():
        return _seconds(text[:19], "Z") * SECOND + int(decimals.ljust(9, "0"))  # as Go writes nearly all
    found = _TEXT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:40]!r} is no instant")
    whole, decimals, zone = found.groups()
    return _seconds(whole, zone) * SECOND + (int(decimals.ljust(9, "0")) if decimals else 0)


def to_nanoseconds(at: datetime) -> int:
    """Of an aware datetime."""
    return (at - _EPOCH) // timedelta(microseconds=1) * 1000


def to_datetime(nanoseconds: int) -> datetime:
    """Aware, in UTC, cut to microseconds."""
    return _EPOCH + timedelta(microseconds=nanoseconds // 1000)


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    at = _EPOCH + timedelta(seconds=min(max(seconds, _FIRST), _LAST))
    return at.isoformat()[:19]


@lru_cache(maxsize=4096)
def _seconds(whole: str, zone: str) -> int:
    if not _WHOLE.fullmatch(whole):
        raise ValueError(f"{whole!r} is no instant")
    if whole.startswith("0000"):  # Go's year 0, which datetime does not know
        whole = "0001" + whole[4:]
    at = datetime.fromisoformat(whole + ("+00:00" if zone == "Z" else zone))
    return (at - _EPOCH) // timedelta(seconds=1)
