"""The error tree: codes are unique and stable, every class guides, movers' errors come back as themselves."""

from __future__ import annotations

import pytest

from refloat import errors
from refloat.errors import RefloatError, Retry, from_json, tree

STABLE = {
    "CONFIG": 10, "INVALID-DOCUMENT": 10, "UNKNOWN-PROVIDER": 10, "MISSING-KEY": 10,
    "PROVIDER": 21, "TRANSIENT": 20, "THROTTLED": 20, "UNAVAILABLE": 20, "TIMED-OUT": 20,
    "PERMANENT": 21, "NOT-FOUND": 21, "ALREADY-EXISTS": 21, "ACCESS-DENIED": 21, "RANGE": 21, "IMMUTABLE": 21,
    "UNSUPPORTED": 21, "STORE-FULL": 21,
    "CLUSTER": 30, "UNREACHABLE": 30, "EXPIRED": 30, "FORBIDDEN": 30, "CONFLICT": 30,
    "OBJECT-MISSING": 30, "OBJECT-EXISTS": 30, "REJECTED": 30, "NOT-READY": 30, "EMPTY-SELECTION": 30,
    "VAULT": 40, "VAULT-MISSING": 40, "WRONG-KEY": 41, "LEASE-HELD": 42, "UNSUPPORTED-FORMAT": 43, "NOT-A-VAULT": 44,
    "TRANSFER-FAILED": 45, "CLOCKS-DISAGREE": 46, "INTEGRITY": 49,
    "CONSISTENCY": 50, "QUIESCE-FAILED": 50, "THAW-UNCONFIRMED": 51, "SNAPSHOT-FAILED": 52, "CONSISTENCY-TOO-LOW": 53,
    "RECOVERY": 60, "NO-RECOVERY-POINT": 60, "PLAN-BLOCKED": 61, "FENCE-UNCONFIRMED": 62, "PROBE-FAILED": 63,
    "OBJECTIVE-MISSED": 64, "APPROVAL-MISSING": 65, "DRILL-FAILED": 66,
    "INTERRUPTED": 130, "REFLOAT": 1,
}  # fmt: skip


def test_codes_and_exit_codes_are_what_scripts_rely_on() -> None:
    """A code or exit code that changes breaks somebody's script: change this table only on purpose."""
    assert {cls.code: cls.exit_code for cls in tree()} == STABLE
    assert len(list(tree())) == len(STABLE), "two classes share a code"


@pytest.mark.parametrize("cls", list(tree()), ids=lambda cls: cls.__name__)
def test_every_error_guides_and_survives_the_wire(cls: type[RefloatError]) -> None:
    """Guidance is one imperative sentence, and JSON brings back the same class, text and context."""
    error = cls("it broke", claim="shop/data", size=3)
    assert error.guidance.endswith(".")
    assert len(error.guidance) < 160
    again = from_json(error.as_json())
    assert type(again) is cls
    assert (again.message, again.guidance) == ("it broke", error.guidance)
    assert again.context == {"claim": "shop/data", "size": "3"}


def test_an_unknown_code_is_still_an_error() -> None:
    """A mover of a later version may know more codes than we do."""
    assert type(from_json({"code": "FUTURE", "message": "m"})) is RefloatError


def test_only_passing_faults_may_be_retried() -> None:
    """Integrity and configuration are never retried."""
    assert errors.IntegrityError.retry is Retry.NEVER
    assert {cls.code for cls in tree() if cls.retry is not Retry.NEVER} == {
        "TRANSIENT", "THROTTLED", "UNAVAILABLE", "TIMED-OUT", "UNREACHABLE", "CONFLICT", "EXPIRED", "NOT-READY",
        "LEASE-HELD", "TRANSFER-FAILED",
    }  # fmt: skip
