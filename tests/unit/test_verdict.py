"""The verdict: every fact of a proof is needed, a worse one never helps, and what is stored is what was judged."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refloat.certificate import Certificate, HeldPart, PodState
from refloat.recovery_point import RecoveryPoint
from refloat.values import Consistency
from refloat.verdict import judged
from tests.unit.certificates import LOSSES, at, point, proving, second

GOLDEN = Path(__file__).parent / "golden" / "certificate.json"
NEUTRAL = {"part", "method", "engine", "ends_with", "namespace", "pod", "container"}
"""Facts that name, and prove nothing."""


def test_the_proof_proves() -> None:
    """What the losses below are taken from."""
    found = judged(proving(verdict=Consistency.INCONSISTENT, reasons=("old",)))
    assert (found.verdict, found.reasons) == (Consistency.APPLICATION, ())


@pytest.mark.parametrize("name", LOSSES)
def test_every_fact_is_needed(name: str) -> None:
    """Without it the label is what the cuts alone prove, and the reason names what is missing."""
    lose, words = LOSSES[name]
    found = judged(lose(proving()))
    assert found.verdict is Consistency.GROUP_CRASH
    assert any(words in reason for reason in found.reasons), found.reasons


@pytest.mark.parametrize(
    ("changed", "label"),
    [
        ({"group": True}, Consistency.GROUP_CRASH),
        ({"group": False}, Consistency.INCONSISTENT),
        ({"group": False, "cuts": proving().cuts[:1]}, Consistency.CRASH),
        ({"group": False, "cuts": ()}, Consistency.CRASH),
    ],
    ids=["one group", "one by one", "one volume", "no volume"],
)
def test_without_a_hold_the_cuts_decide(changed: dict[str, Any], label: Consistency) -> None:
    """One volume is never worse than a power cut; several need one instant."""
    found = judged(proving(parts=(), **changed))
    assert found.verdict is label
    assert found.reasons[0] == "nothing was held"
    assert judged(proving(**changed)).verdict is Consistency.APPLICATION, "within a proven hold the cuts may differ"


@given(st.lists(st.sampled_from(sorted(LOSSES)), max_size=6), st.booleans(), st.integers(0, 2))
def test_losing_more_never_raises_the_label(names: list[str], group: bool, cuts: int) -> None:
    """Step by step, in any order and combination."""
    facts = proving(group=group, cuts=proving().cuts[:cuts])
    label = judged(facts).verdict
    assert label is Consistency.APPLICATION
    for name in names:
        if facts.parts:
            facts = LOSSES[name][0](facts)
        now = judged(facts).verdict
        assert now <= label
        assert now < Consistency.APPLICATION
        label = now


@given(
    st.sampled_from(sorted(set(HeldPart.model_fields) - NEUTRAL - {"before", "after", "beats", "confirmed"})),
    st.integers(-100_000, 100_000),
)
def test_times_moved_at_will(field: str, milliseconds: int) -> None:
    """Whatever one recorded time of a part becomes: the best label stands only if the order still encloses the cut."""
    facts = proving()
    value = getattr(facts.parts[1], field)
    if not hasattr(value, "tzinfo"):
        return
    moved = second(**{field: value + timedelta(milliseconds=milliseconds)})(facts)
    one = moved.parts[1]
    assert one.held_at is not None
    assert one.release_sent_at is not None
    encloses = one.held_at <= at(50) and one.release_sent_at >= at(707)
    assert (judged(moved).verdict is Consistency.APPLICATION) == encloses


@given(st.sampled_from(sorted(LOSSES)), st.sampled_from(list(Consistency)), st.lists(st.text(max_size=9), max_size=2))
def test_it_believes_no_verdict(name: str, claimed: Consistency, reasons: list[str]) -> None:
    """What the certificate says of itself changes nothing, and judging twice changes nothing."""
    facts = LOSSES[name][0](proving())
    found = judged(facts)
    assert judged(facts.model_copy(update={"verdict": claimed, "reasons": tuple(reasons)})) == found
    assert judged(found) == found


@given(st.lists(st.sampled_from(list(Consistency))))
def test_labels_are_in_order(labels: list[Consistency]) -> None:
    """As the words say, whatever order they come in."""
    order = ["inconsistent", "crash-consistent", "group-crash-consistent", "application-consistent"]
    assert [each.value for each in sorted(labels)] == sorted((each.value for each in labels), key=order.index)


@pytest.mark.parametrize("name", [*LOSSES, None])
def test_it_comes_back_as_it_was_stored(name: str | None) -> None:
    """Within its point, as JSON; fields of a later version are passed over."""
    facts = judged(LOSSES[name][0](proving()) if name else proving())
    text = point(facts).model_dump_json()
    assert RecoveryPoint.model_validate_json(text).certificate == facts
    later = json.loads(text)
    later["certificate"]["later"] = {"deep": [1]}
    for each in (*later["certificate"]["parts"], *later["certificate"]["cuts"]):
        each["later"] = "yes"
    assert RecoveryPoint.model_validate(later).certificate == facts


def test_a_point_of_before_certificates() -> None:
    """It opens, and has none."""
    old = json.loads(point(None).model_dump_json())
    del old["certificate"]
    assert RecoveryPoint.model_validate(old).certificate is None


def test_the_stored_form_does_not_change() -> None:
    """Certificates are kept for years: whoever changes this form must still read the old one."""
    stored = GOLDEN.read_text()
    assert judged(Certificate.model_validate_json(stored)) == judged(proving())
    assert json.loads(stored) == json.loads(judged(proving()).model_dump_json())


def test_a_pod_that_says_no_facts_is_judged_by_what_there_is() -> None:
    """An engine without a role: uid and restarts decide."""
    state = PodState(uid="u", restarts=0)
    assert judged(second(before=state, after=state)(proving())).verdict is Consistency.APPLICATION
