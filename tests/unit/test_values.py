"""Documents, durations and messages: round trips hold, bad input is refused with the field's name."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from refloat.application import Application, Hook, HookCommand, ObjectRule
from refloat.duration import format_duration, parse_duration
from refloat.policy import PasswordSource, ProtectionPolicy, VaultLocation
from refloat.transfer import TERMINATION_LIMIT_BYTES, MoverResult, parse_result
from refloat.values import Consistency


@given(st.integers(min_value=0, max_value=10**12))
def test_durations_round_trip_to_the_millisecond(milliseconds: int) -> None:
    """What is written is what is read."""
    value = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(value)) == value


@pytest.mark.parametrize("text", ["", "5", "5 apples", "-3s", "1h30", "m5"])
def test_a_duration_without_its_unit_is_refused(text: str) -> None:
    """A bare number could be seconds or minutes: nobody guesses."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


def test_rule_matches_kind_with_and_without_group() -> None:
    """`Deployment` and `Deployment.apps` name the same kind; patterns are shell patterns."""
    assert ObjectRule(kind="Deployment", name="web-*").matches("Deployment.apps", "web-1")
    assert ObjectRule(kind="Deployment.apps").matches("Deployment.apps", "x")
    assert not ObjectRule(kind="Deployment", name="web-*").matches("Deployment.apps", "db")
    assert not ObjectRule(kind="Deployment.extensions").matches("Deployment.apps", "x")


def test_a_misspelt_field_is_an_error() -> None:
    """A typo must not silently widen or narrow what is protected."""
    with pytest.raises(ValidationError, match="selecter"):
        Application.model_validate({"name": "shop", "members": [{"namespace": "shop", "selecter": "app=pg"}]})


def test_an_application_needs_a_member_and_a_proper_name() -> None:
    """Nothing selected, or a name no label can carry, is refused."""
    for bad in ({"name": "shop", "members": []}, {"name": "Shop!", "members": [{"namespace": "a"}]}):
        with pytest.raises(ValidationError):
            Application.model_validate(bad)


@pytest.mark.parametrize("timeout", ["0s", "11m"])
def test_a_hooks_time_is_bounded(timeout: str) -> None:
    """A hook without a real limit could hold a database for ever."""
    with pytest.raises(ValidationError, match="timeout"):
        HookCommand.model_validate({"command": ["true"], "timeout": timeout})


def test_an_empty_hook_is_refused() -> None:
    """A hook that runs nothing is a mistake."""
    with pytest.raises(ValidationError, match="pre, post or both"):
        Hook()


def test_exactly_one_password_source() -> None:
    """No default password, and no doubt about which one is meant."""
    for bad in ({}, {"file": "a", "env": "B"}):
        with pytest.raises(ValidationError, match="exactly one"):
            PasswordSource.model_validate(bad)


def test_interval_leaves_time_for_the_run() -> None:
    """A point is as old as the interval plus the run: the schedule is tighter than the RPO."""
    policy = ProtectionPolicy.model_validate({"name": "p", "vault": {"url": "s3://b/p"}, "objectives": {"rpo": "15m"}})
    assert policy.interval == timedelta(minutes=12)
    tight = policy.model_copy(
        update={"objectives": policy.objectives.model_copy(update={"rpo": timedelta(seconds=30)})}
    )
    assert tight.interval == timedelta(minutes=1)


def test_labels_are_ordered() -> None:
    """Labels only go down: the order must be total."""
    assert sorted(Consistency, reverse=True)[0] is Consistency.APPLICATION
    assert Consistency.INCONSISTENT < Consistency.CRASH < Consistency.GROUP_CRASH < Consistency.APPLICATION


def test_vault_address_is_a_url() -> None:
    """A bare path is ambiguous between a folder and a bucket."""
    with pytest.raises(ValidationError):
        VaultLocation(url="backups/shop")


@given(st.lists(st.text(max_size=300), max_size=60), st.text(max_size=9000))
def test_a_result_always_fits_the_termination_message(paths: list[str], message: str) -> None:
    """Kubernetes cuts at 4096 bytes, which would make the JSON unreadable."""
    result = MoverResult(
        action="archive", volume="shop/data", unreadable=tuple(paths), unreadable_count=len(paths),
        error={
            "code": "INTEGRITY", "message": message, "guidance": message, "context": {"x": message},
            "retry": "never", "exit_code": 49,
        },
    )  # fmt: skip
    text = result.to_message()
    assert len(text.encode()) <= TERMINATION_LIMIT_BYTES
    again = parse_result(text)
    assert again is not None
    assert again.error is not None
    assert again.unreadable_count == len(paths)


def test_what_is_no_result_is_none() -> None:
    """A mover that was killed leaves no message, or somebody else's."""
    assert parse_result("") is None
    assert parse_result("OOMKilled") is None
    assert parse_result("[1]") is None
