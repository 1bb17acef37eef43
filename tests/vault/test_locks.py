"""The vault lock: there while a run works, gone afterwards whatever happens, respectful of others'."""

from __future__ import annotations

import json
import os
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from refloat.clock import now
from refloat.errors import LeaseHeld, RefloatError, Unavailable
from refloat.registry import open_object_store
from tests.vault.faulty import FaultyStore
from tests.vault.given import PASSWORD, reopened
from vault.files import FileKind, stored
from vault.locks import hold
from vault.repository import OpenVault, open_vault


def _locks(vault: OpenVault) -> list[str]:
    return [name for name, _ in stored(vault.store, FileKind.LOCK)]


def _lock(vault: OpenVault, place: Path, *, exclusive: bool, age: timedelta = timedelta(0)) -> None:
    """Another client's lock."""
    at = now() - age
    text = {"time": at.isoformat(), "exclusive": exclusive, "hostname": "elsewhere", "username": "eve", "pid": 7}
    name = vault.files.write(FileKind.LOCK, json.dumps(text).encode())
    os.utime(place / "locks" / name, (at.timestamp(), at.timestamp()))


def test_the_lock_is_there_only_while_the_block_runs(vault: OpenVault) -> None:
    """Also when the block fails, whose own failure is what comes out."""
    with vault.lock("run"):
        assert len(_locks(vault)) == 1
    with pytest.raises(KeyError, match="own"), vault.lock("run"):
        assert len(_locks(vault)) == 1
        raise KeyError("own")
    assert not _locks(vault)


def test_runs_share_the_vault(vault: OpenVault) -> None:
    """Non-exclusive locks are held side by side."""
    with vault.lock("one"), vault.lock("two"):
        assert len(_locks(vault)) == 2
    assert not _locks(vault)


def test_an_exclusive_lock_is_respected_and_named(vault: OpenVault, place: Path) -> None:
    """Somebody prunes; nothing of ours stays behind."""
    _lock(vault, place, exclusive=True)
    with pytest.raises(LeaseHeld, match="eve@elsewhere, process 7"), vault.lock("run"):
        pytest.fail("must not be entered")
    assert len(_locks(vault)) == 1


def test_a_lock_that_appears_between_look_and_write_is_seen(vault: OpenVault, place: Path) -> None:
    """Both wrote at the same moment: the second look finds it, and our own lock is withdrawn."""
    racing = FaultyStore(open_object_store(f"file://{place}", {}))
    ours = open_vault(racing, PASSWORD)
    racing.on_put = lambda key: _lock(vault, place, exclusive=True) if key.startswith("locks/") else None
    with pytest.raises(LeaseHeld), ours.lock("run"):
        pytest.fail("must not be entered")
    assert len(_locks(vault)) == 1
    assert racing.calls["put"] == 1


@pytest.mark.parametrize("age", [timedelta(minutes=31), timedelta(days=9)])
def test_a_stale_lock_is_ignored(vault: OpenVault, place: Path, age: timedelta) -> None:
    """Half an hour without a refresh: its owner is dead. It is not ours to remove."""
    _lock(vault, place, exclusive=True, age=age)
    with vault.lock("run"):
        assert len(_locks(vault)) == 2
    assert len(_locks(vault)) == 1


def test_a_clock_that_runs_behind_makes_no_lock_stale(vault: OpenVault, place: Path) -> None:
    """It says it is two hours old, but the store received it just now."""
    text = {"time": (now() - timedelta(hours=2)).isoformat(), "exclusive": True, "hostname": "h", "pid": 1}
    vault.files.write(FileKind.LOCK, json.dumps(text).encode())
    with pytest.raises(LeaseHeld), vault.lock("run"):
        pytest.fail("must not be entered")


def test_others_may_share_and_unreadable_locks_are_not_guessed_at(vault: OpenVault, place: Path) -> None:
    """A foreign non-exclusive lock is no obstacle; a torn one might be exclusive."""
    _lock(vault, place, exclusive=False)
    with vault.lock("run"):
        pass
    torn = place / "locks" / ("a" * 64)
    torn.write_bytes(b"torn")
    with pytest.raises(LeaseHeld, match="cannot be read"), vault.lock("run"):
        pytest.fail("must not be entered")
    os.utime(torn, (0, 0))
    with vault.lock("run"):
        pass


def test_the_lock_is_refreshed_by_a_new_one_before_the_old_is_removed(place: Path, vault: OpenVault) -> None:
    """At no instant is there none."""
    watching = FaultyStore(open_object_store(f"file://{place}", {}))
    ours, counts, thrice = open_vault(watching, PASSWORD), list[int](), threading.Event()

    def look(key: str) -> None:
        counts.append(len(_locks(vault)))
        if len(counts) >= 4:
            thrice.set()

    watching.on_put = look
    with ours.lock("run", refresh=timedelta(milliseconds=20)):
        assert thrice.wait(timeout=30)
    assert counts[0] == 1
    assert set(counts[1:]) == {2}
    assert not _locks(vault)


def test_a_refresh_that_fails_is_tried_again(place: Path, vault: OpenVault) -> None:
    """A store away for a moment does not cost the lock."""
    flaky = FaultyStore(open_object_store(f"file://{place}", {}))
    ours, refreshed = open_vault(flaky, PASSWORD), threading.Event()

    def fail_once(key: str) -> None:
        if flaky.calls["put"] == 2:
            flaky.faults += 1
            raise Unavailable("injected")
        if flaky.calls["put"] > 2:
            refreshed.set()

    flaky.on_put = fail_once
    with ours.lock("run", refresh=timedelta(milliseconds=20)):
        assert refreshed.wait(timeout=30)
    assert flaky.faults == 1


def test_a_lock_that_lapsed_is_told_at_the_end(place: Path, vault: OpenVault) -> None:
    """Nobody could refresh it for too long: others may have pruned, and the run must not end as if nothing were."""
    flaky = FaultyStore(open_object_store(f"file://{place}", {}))
    ours, failed = open_vault(flaky, PASSWORD), threading.Event()

    def fail(key: str) -> None:
        if flaky.calls["put"] > 1:
            flaky.faults += 1
            failed.set()
            raise Unavailable("injected")

    flaky.on_put = fail
    short = timedelta(milliseconds=20)
    held = hold(ours.files, "run", refresh=short, lapses_after=short)
    with pytest.raises(LeaseHeld, match="could not be refreshed") as told, held:
        assert failed.wait(timeout=30)
    assert isinstance(told.value.__cause__, Unavailable)
    assert flaky.faults


def test_a_lock_that_cannot_be_removed_is_told(place: Path, vault: OpenVault) -> None:
    """The block's failure comes first and carries the other; a block that succeeded fails."""
    dying = FaultyStore(open_object_store(f"file://{place}", {}), dies_at_put=1)
    ours = open_vault(dying, PASSWORD)
    with pytest.raises(KeyError) as failure, ours.lock("run"):
        dying.calls["put"] = 2
        raise KeyError("own")
    assert "could not be removed" in failure.value.__notes__[0]
    dying.calls["put"] = 0
    with pytest.raises(RefloatError, match="injected"), ours.lock("run"):
        dying.calls["put"] = 2
    assert dying.faults == 2
    assert len(_locks(reopened(place))) == 2
