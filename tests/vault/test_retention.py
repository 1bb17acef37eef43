"""Retention: stock restic's rules over the same times, the last good point, and clocks that are wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refloat.errors import ClocksDisagree
from refloat.policy import Retention
from refloat.recovery_point import RecoveryPoint, VolumeCopy
from refloat.retention import KEEP_ALL, LAST_GOOD, NO_RULE, Decision, decide, last_good
from refloat.values import Consistency
from tests.tools.restic import needed, restic
from tests.vault.given import PASSWORD
from vault.files import FileKind, key_of, stored
from vault.instants import format_instant, to_nanoseconds
from vault.repository import OpenVault

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
RULES = ("hourly", "daily", "weekly", "monthly", "yearly")


def _point(at: datetime, number: int = 0, **changes: object) -> RecoveryPoint:
    fields: dict[str, object] = {
        "id": f"{number:016x}", "application": "shop", "cluster": "a", "run": "r", "started_at": at, "cut_at": at,
        "sealed_at": at, "consistency": Consistency.CRASH, "cut_method": "none", "objects": (), "volumes": (),
        "refloat_version": "test",
    }  # fmt: skip
    return RecoveryPoint.model_validate({**fields, **changes})


def _points(*ages_hours: float, **changes: object) -> list[RecoveryPoint]:
    return [_point(NOW - timedelta(hours=age), number, **changes) for number, age in enumerate(ages_hours)]


def _kept(decisions: Sequence[Decision]) -> set[str]:
    return {each.point.id for each in decisions if each.is_kept}


def test_every_decision_has_its_reason() -> None:
    """Which bucket keeps a point, or that none does; oldest first."""
    found = decide(_points(0, 1, 24, 25, 50, 9000), Retention(daily=2, yearly=1), NOW)
    assert [(each.point.id[-1], each.is_kept, each.reasons) for each in found] == [
        ("5", False, (NO_RULE,)),
        ("4", False, (NO_RULE,)),
        ("3", False, (NO_RULE,)),
        ("2", True, ("daily 2026-11-23",)),
        ("1", False, (NO_RULE,)),
        ("0", True, ("daily 2026-11-24", "yearly 2026", LAST_GOOD)),
    ]


def test_no_rules_keep_everything() -> None:
    """All zero is the default of a policy."""
    found = decide(_points(0, 1, 9000), Retention(), NOW)
    assert {each.reasons for each in found} == {(KEEP_ALL,)}
    assert all(each.is_kept for each in found)


def test_applications_do_not_count_for_each_other() -> None:
    """Each has its own newest of a day."""
    found = decide([*_points(1, 30), _point(NOW, 7, application="mail")], Retention(daily=1), NOW)
    assert [(each.point.application, each.is_kept) for each in found] == [
        ("mail", True),
        ("shop", False),
        ("shop", True),
    ]


def test_the_last_good_point_is_never_displaced_by_a_lesser_one() -> None:
    """A lower label, missing files, no verification: the newest of the best stays."""
    best, lower = _points(5000, consistency=Consistency.GROUP_CRASH), _points(1, 2, 3)
    best = [best[0].model_copy(update={"id": "f" * 16})]
    found = {each.point.id: each for each in decide([*best, *lower], Retention(hourly=1), NOW)}
    assert found["f" * 16].reasons == (LAST_GOOD,)
    assert [found[f"{number:016x}"].is_kept for number in range(3)] == [True, False, False]
    at = NOW - timedelta(hours=1)
    torn = VolumeCopy(
        namespace="n", claim="c", tree="0" * 64, path="p", driver="d", requested_bytes=1, files=1, data_bytes=1,
        added_bytes=1, unreadable=("x",), cut_at=at,
    )  # fmt: skip
    whole = _points(900)[0]
    assert last_good([whole, _point(at, 7, volumes=(torn,), consistency=Consistency.APPLICATION)]) == whole
    assert last_good([whole, *_points(1)], is_verified=lambda point: point == whole) == whole
    assert last_good([whole, _point(at, 7)]).id == f"{7:016x}"


times = st.lists(
    st.integers(0, 4 * 366 * 24 * 4).map(lambda quarters: NOW - timedelta(minutes=15 * quarters)),
    min_size=1, max_size=40, unique=True,
)  # fmt: skip
rules = st.builds(Retention, **{rule: st.integers(0, 6) for rule in RULES})


@given(times, rules)
@settings(max_examples=200, deadline=None)
def test_something_good_is_always_left_and_no_clock_of_ours_matters(at: list[datetime], rule: Retention) -> None:
    """Whatever rules and times: the newest point stays; a later now decides the same."""
    points = [_point(each, number) for number, each in enumerate(at)]
    now_decided = decide(points, rule, NOW)
    assert last_good(points).id in _kept(now_decided)
    assert max(points, key=lambda point: point.cut_at).id in _kept(now_decided)
    assert decide(points, rule, NOW + timedelta(days=4000)) == now_decided
    assert len(_kept(now_decided)) <= sum(getattr(rule, name) for name in RULES) + 1 or not any(
        getattr(rule, name) for name in RULES
    )


@pytest.mark.lane("restic")
@given(data=st.data())
@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_rules_are_stock_restics(vault: OpenVault, place: Path, data: st.DataObject) -> None:
    """`restic forget --dry-run` keeps the very points that we keep, over the same times."""
    needed()
    at, rule = data.draw(times), data.draw(rules.filter(lambda each: any(getattr(each, name) for name in RULES)))
    names = {}
    for number, each in enumerate(at):
        record = {"time": format_instant(to_nanoseconds(each)), "tree": "0" * 64, "paths": ["/x"], "hostname": "h"}
        names[vault.files.write(FileKind.SNAPSHOT, json.dumps(record).encode())] = f"{number:016x}"
    words = [word for name in RULES if getattr(rule, name) for word in (f"--keep-{name}", str(getattr(rule, name)))]
    try:
        said = restic(str(place), PASSWORD, "forget", "--dry-run", "--json", *words)
    finally:
        for name, _ in list(stored(vault.store, FileKind.SNAPSHOT)):
            vault.store.delete(key_of(FileKind.SNAPSHOT, name))
    (group,) = json.loads(said)
    ours = _kept(decide([_point(each, number) for number, each in enumerate(at)], rule, NOW))
    assert ours == {names[each["id"]] for each in group["keep"]}


@pytest.mark.parametrize("off", [timedelta(hours=1), timedelta(hours=24), timedelta(days=365)])
def test_a_newest_point_of_the_future_is_refused(off: timedelta) -> None:
    """Whoever made it, or we, have a wrong clock; so when it says it was cut after it was sealed, or sealed after the
    store had it.
    """
    old = _points(10, 20, 30)
    ahead = _point(NOW + off, 9)
    with pytest.raises(ClocksDisagree, match="shop: the newest point was cut"):
        decide([*old, ahead], Retention(daily=1), NOW)
    with pytest.raises(ClocksDisagree, match="after it was sealed"):
        decide([*old, _point(NOW, 9, cut_at=NOW + off)], Retention(daily=1), NOW + 2 * off)
    with pytest.raises(ClocksDisagree, match="sealed"):
        decide([*old, ahead], Retention(daily=1), NOW + 2 * off, received={ahead.id: NOW})
    with pytest.raises(ClocksDisagree, match="the store received"):
        decide(old, Retention(daily=1), NOW, received={old[0].id: NOW + off})
    decide([*old, _point(NOW + timedelta(minutes=5), 9)], Retention(daily=1), NOW)


@pytest.mark.parametrize("off", [timedelta(hours=1), timedelta(hours=24), timedelta(days=365)])
def test_a_point_from_a_clock_that_was_behind_does_not_expire_early(off: timedelta) -> None:
    """It looks old and is the newest: the store knows, and what either time keeps is kept."""
    old = _points(*range(1, 200, 3))
    behind = _point(NOW - off, 999)
    received = {point.id: point.sealed_at for point in old} | {behind.id: NOW}
    by_id = {each.point.id: each for each in decide([*old, behind], Retention(hourly=2), NOW, received=received)}
    assert by_id[behind.id].is_kept
    without = _kept(decide(old, Retention(hourly=1), NOW))
    assert without <= {point_id for point_id, each in by_id.items() if each.is_kept}


def test_a_copied_vault_expires_like_the_one_it_is_of() -> None:
    """All its points were received at one moment; one more than there may stay."""
    points = _points(*range(0, 2000, 7))
    rule = Retention(hourly=3, daily=7, weekly=4, monthly=2)
    source = _kept(decide(points, rule, NOW, received={point.id: point.sealed_at for point in points}))
    copied = _kept(decide(points, rule, NOW, received={point.id: NOW for point in points}))
    assert source <= copied
    assert len(copied - source) <= 1
