"""Keeps loaded secrets out of every log record of this process, whoever writes it and wherever it goes."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Mapping
from typing import Any

MASK = "****"
_SECRET_NAME = re.compile(
    r"SECRET|PASSWORD|TOKEN|ACCOUNT_KEY|STORAGE_KEY|CONNECTION_STRING|^GOOGLE_CREDENTIALS$", re.IGNORECASE
)
_guard = threading.Lock()
_secrets: set[str] = set()
_pattern: re.Pattern[str] | None = None


def guard(value: str) -> str:
    """Remember a secret and give it back: from now on no log record shows it."""
    global _pattern  # noqa: PLW0603 - one process, one set of secrets
    with _guard:
        if not _secrets:
            _install()
        _secrets.update(each for each in (value, value.strip()) if each)
        longest_first = sorted(_secrets, key=len, reverse=True)
        _pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
    return value


def guard_environment(environment: Mapping[str, str]) -> None:
    """Remember the values of variables whose name says that they are secret."""
    for name, value in environment.items():
        if _SECRET_NAME.search(name):
            guard(value)


def redacted(text: str) -> str:
    """The text with every loaded secret masked."""
    return _pattern.sub(MASK, text) if _pattern else text


def _install() -> None:
    """Records are cleaned when they are made, so handlers added later (Prefect's) need nothing of their own."""
    make = logging.getLogRecordFactory()
    if getattr(make, "redacts", False):
        return

    def make_clean(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        clean(record)
        return record

    make_clean.redacts = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(make_clean)


def clean(record: logging.LogRecord) -> None:
    """Mask secrets in the record's message and traceback."""
    try:
        message = record.getMessage()
    except (TypeError, ValueError):  # malformed by its writer: the handler reports that
        return
    if redacted(message) != message:
        record.msg, record.args = redacted(message), None
    if record.exc_info and record.exc_info[0]:
        trace = logging.Formatter().formatException(record.exc_info)
        if redacted(trace) != trace:
            record.exc_info, record.exc_text = None, redacted(trace)
