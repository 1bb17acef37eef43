"""Expiry: exactly the points that were shown go, under an exclusive lock, and not before clocks agree."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from refloat.errors import ClocksDisagree, IntegrityError, LeaseHeld, NoEligibleRecoveryPoint
from refloat.policy import Retention
from refloat.recovery_point import CataloguedPoint
from refloat.registry import open_object_store
from tests.vault.clocked import ClockedStore
from tests.vault.given import AT, MANIFEST, PASSWORD, point_over, reopened
from vault.catalogue import points, seal
from vault.expiry import expire, plan_expiry
from vault.files import FileKind, stored
from vault.repository import OpenVault, open_vault

ONE = Retention(hourly=1)


def _sealed(vault: OpenVault, count: int, application: str = "shop") -> list[CataloguedPoint]:
    return [_seal(vault, hours, application) for hours in range(count)]


def _seal(vault: OpenVault, hours: int, application: str = "shop") -> CataloguedPoint:
    """A point, and a store that received it when it says it was sealed."""
    done = seal(vault, point_over(application=application, after=timedelta(hours=hours)), {MANIFEST: b"{}"})
    at = done.point.sealed_at.timestamp()
    os.utime(Path(vault.url.removeprefix("file://")) / "snapshots" / done.snapshot_id, (at, at))
    return done


def _ids(vault: OpenVault) -> list[str]:
    return [each.point.id for each in points(vault)]


def test_what_no_rule_keeps_goes_and_nothing_else(vault: OpenVault, place: Path) -> None:
    """Other applications' points are not touched, and data stays for prune."""
    shop, mail = _sealed(vault, 4), _sealed(vault, 3, "mail")
    packs = [name for name, _ in stored(vault.store, FileKind.PACK)]
    plan = plan_expiry(vault, "shop", Retention(hourly=2))
    assert [each.is_kept for each in plan.decisions] == [False, False, True, True]
    gone = expire(reopened(place), plan, Retention(hourly=2), run="r")
    assert [point.id for point in gone] == [each.point.id for each in shop[:2]]
    assert set(_ids(reopened(place))) == {each.point.id for each in (*shop[2:], *mail)}
    assert [name for name, _ in stored(vault.store, FileKind.PACK)] == packs
    assert not list(stored(vault.store, FileKind.LOCK))
    assert expire(reopened(place), plan, Retention(hourly=2), run="r") == []


def test_every_record_of_a_point_goes(vault: OpenVault, place: Path) -> None:
    """A seal that was repeated, or `restic tag`, leaves two: with one left the point would still be there."""
    first, last = _sealed(vault, 2)
    text = json.loads(vault.files.read(FileKind.SNAPSHOT, first.snapshot_id))
    vault.files.write(FileKind.SNAPSHOT, json.dumps({**text, "tags": [*text["tags"], "again"]}).encode())
    expire(reopened(place), plan_expiry(vault, "shop", ONE), ONE, run="r")
    assert _ids(reopened(place)) == [last.point.id]


def test_only_what_was_shown_goes(vault: OpenVault, place: Path) -> None:
    """A point sealed since lets another be superfluous: that one waits until it was shown."""
    _sealed(vault, 2)
    plan = plan_expiry(vault, "shop", ONE)
    newest = _seal(vault, 5)
    gone = expire(reopened(place), plan, ONE, run="r")
    assert [point.id for point in gone] == [point.id for point in plan.expiring]
    assert _ids(reopened(place)) == [plan.decisions[1].point.id, newest.point.id]


def test_what_is_kept_by_now_stays(vault: OpenVault, place: Path) -> None:
    """The rules got milder between showing and doing."""
    _sealed(vault, 3)
    assert expire(reopened(place), plan_expiry(vault, "shop", ONE), Retention(hourly=9), run="r") == []
    assert len(_ids(reopened(place))) == 3


def test_a_writer_holds_it_off(vault: OpenVault, place: Path) -> None:
    """A record removed while a run builds on it."""
    _sealed(vault, 3)
    plan = plan_expiry(vault, "shop", ONE)
    with reopened(place).lock("writer"), pytest.raises(LeaseHeld, match="refloat-writer"):
        expire(reopened(place), plan, ONE, run="r")
    assert len(_ids(reopened(place))) == 3


def test_what_cannot_be_read_stops_it(vault: OpenVault, place: Path) -> None:
    """A damaged record may be of this application: nothing is decided."""
    first = _sealed(vault, 3)[0]
    path = place / "snapshots" / first.snapshot_id
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError, match=first.snapshot_id):
        plan_expiry(reopened(place), "shop", ONE)


def test_an_application_that_is_not_there_is_an_error(vault: OpenVault) -> None:
    """Absence is no success: the name may be mistyped."""
    _sealed(vault, 1)
    with pytest.raises(NoEligibleRecoveryPoint, match="shopp"):
        plan_expiry(vault, "shopp", ONE)


@pytest.mark.parametrize("off", [timedelta(hours=1), timedelta(hours=24), timedelta(days=365)])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_store_whose_clock_is_wrong_is_refused(vault: OpenVault, place: Path, off: timedelta, sign: int) -> None:
    """As is a machine whose clock is: the lock's time shows it before anything is removed."""
    _sealed(vault, 3)
    plan = plan_expiry(vault, "shop", ONE)
    clocked = ClockedStore(open_object_store(f"file://{place}", {}))
    own = open_vault(clocked, PASSWORD)
    clocked.off = sign * off
    with pytest.raises(ClocksDisagree):
        expire(own, plan, ONE, run="r")
    assert clocked.faults
    assert len(_ids(reopened(place))) == 3
    assert not list(stored(vault.store, FileKind.LOCK))


@pytest.mark.parametrize("behind", [timedelta(hours=1), timedelta(hours=24), timedelta(days=365)])
def test_a_clock_of_ours_that_is_behind_is_refused(vault: OpenVault, behind: timedelta) -> None:
    """The newest point would be of the future."""
    _sealed(vault, 3)
    at: datetime = AT + timedelta(hours=2) - behind
    with pytest.raises(ClocksDisagree, match="nothing is expired"):
        plan_expiry(vault, "shop", ONE, at=at)
