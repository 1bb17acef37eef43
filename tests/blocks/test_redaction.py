"""Redaction: a secret that was loaded is in no log record and no output from then on."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from blocks.redaction import MASK, guard, guard_environment, redacted


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What a handler added long after the fact writes."""
    logger, stream = logging.getLogger("tests.redaction"), io.StringIO()
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield stream
    logger.removeHandler(handler)


def test_records_are_clean(written: io.StringIO) -> None:
    """In the message, its arguments and a traceback; other text is left alone."""
    secret = guard("s3cr3t-of-the-vault")
    logger = logging.getLogger("tests.redaction")
    logger.info("opened with %s", secret)
    logger.info("opened with " + secret + " at %d %%", 7)
    try:
        raise ValueError(f"bad password {secret}")
    except ValueError:
        logger.exception("it failed")
    text = written.getvalue()
    assert secret not in text
    assert text.count(MASK) == 3
    assert "at 7 %" in text
    assert "Traceback" in text


def test_longer_secrets_hide_first() -> None:
    """A secret that begins as another does leaves no tail in sight."""
    guard("alpha")
    guard("alphabet-soup")
    assert redacted("it is alphabet-soup") == f"it is {MASK}"


def test_credentials_of_the_environment() -> None:
    """By the variable's name; what is not secret stays readable."""
    guard_environment({"AWS_SECRET_ACCESS_KEY": "wJalr-secret", "AWS_REGION": "eu-central-1", "EMPTY_TOKEN": ""})
    assert redacted("wJalr-secret in eu-central-1") == f"{MASK} in eu-central-1"
