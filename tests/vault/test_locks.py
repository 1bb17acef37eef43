"""The vault lock: there while a run works, gone afterwards whatever happens, respectful of others'."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from refloat.clock import Deadline, now
from refloat.errors import LeaseHeld, RefloatError, Unavailable
from refloat.registry import open_object_store
from tests.tools.restic import needed, version
from tests.vault.faulty import FaultyStore
from tests.vault.given import PASSWORD, reopened
from vault.files import FileKind, stored
from vault.judging import Verdict, judge, read_store_clock
from vault.locks import hold
from vault.processes import mark_of
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


def _write(vault: OpenVault, place: Path, *, own: timedelta, store: timedelta, **fields: object) -> str:
    """A lock of these ages by its own time and by the store's."""
    text = {"time": (now() - own).isoformat(), "exclusive": False, "hostname": "h", "username": "eve", "pid": 7}
    name = vault.files.write(FileKind.LOCK, json.dumps({**text, **fields}).encode())
    at = (now() - store).timestamp()
    os.utime(place / "locks" / name, (at, at))
    return name


HOUR, NONE = timedelta(hours=1), timedelta(0)


@pytest.mark.parametrize(
    ("own", "store", "verdict"),
    [
        (NONE, NONE, Verdict.LIVE),
        (timedelta(minutes=29), timedelta(minutes=29), Verdict.LIVE),
        (timedelta(minutes=31), timedelta(minutes=31), Verdict.STALE),
        (timedelta(days=300), HOUR, Verdict.STALE),
        (HOUR, NONE, Verdict.CLOCKS),
        (NONE, HOUR, Verdict.CLOCKS),
        (-HOUR, NONE, Verdict.CLOCKS),
        (NONE, -HOUR, Verdict.CLOCKS),
        (-timedelta(days=365), HOUR, Verdict.CLOCKS),
    ],
)
def test_a_lock_is_judged_by_both_times(
    vault: OpenVault, place: Path, own: timedelta, store: timedelta, verdict: Verdict
) -> None:
    """Stale only when its own time and the store's say so; where they disagree, that is the verdict."""
    _write(vault, place, own=own, store=store, exclusive=True)
    (lock,) = judge(vault.files)
    assert (lock.verdict, lock.is_exclusive, lock.who) == (verdict, True, "eve@h, process 7")
    assert lock.reason


def test_a_machine_whose_clock_differs_from_the_stores_calls_nothing_stale(vault: OpenVault, place: Path) -> None:
    """It cannot know how old a lock is."""
    _write(vault, place, own=timedelta(days=9), store=timedelta(days=9))
    for off in (HOUR, -HOUR, timedelta(days=365), -timedelta(days=365)):
        (lock,) = judge(vault.files, store_at=now() + off)
        assert (lock.verdict, lock.is_left_behind) == (Verdict.CLOCKS, False)
    assert judge(vault.files, store_at=now())[0].verdict is Verdict.STALE
    assert abs(read_store_clock(vault.store) - now()) < timedelta(minutes=1)


def test_the_dead_are_known_by_their_run_or_their_process(vault: OpenVault, place: Path) -> None:
    """However young the lock: the run is known to have ended, or its process on this machine has."""
    _write(vault, place, own=NONE, store=NONE, username="refloat-gone")
    _write(vault, place, own=NONE, store=NONE, username="refloat-there")
    verdicts = {lock.who.split("@")[0]: lock.verdict for lock in judge(vault.files, is_dead=lambda run: run == "gone")}
    assert verdicts == {"refloat-gone": Verdict.DEAD, "refloat-there": Verdict.LIVE}
    child = subprocess.Popen(["sleep", "60"])
    mark = mark_of(child.pid)
    here = socket.gethostname()
    name = _write(vault, place, own=NONE, store=NONE, hostname=here, pid=child.pid, refloat=mark)
    assert {lock.name: lock.verdict for lock in judge(vault.files)}[name] is Verdict.LIVE
    child.kill()
    child.wait()
    assert {lock.name: lock.verdict for lock in judge(vault.files)}[name] is Verdict.DEAD
    assert mark is not None
    for other in ({**mark, "boot": "another"}, {**mark, "namespace": 1}, None):
        name = _write(vault, place, own=NONE, store=NONE, hostname=here, pid=child.pid, refloat=other)
        assert {lock.name: lock.verdict for lock in judge(vault.files)}[name] is Verdict.LIVE
    name = _write(vault, place, own=NONE, store=NONE, pid=child.pid, refloat=mark)
    assert {lock.name: lock.verdict for lock in judge(vault.files)}[name] is Verdict.LIVE, "another host's"
    reused = {**mark, "started": 1}
    name = _write(vault, place, own=NONE, store=NONE, hostname=here, pid=os.getpid(), refloat=reused)
    assert {lock.name: lock.verdict for lock in judge(vault.files)}[name] is Verdict.DEAD


def test_an_exclusive_lock_is_alone(vault: OpenVault, place: Path) -> None:
    """It waits for nobody, and nobody is let in beside it, be it shared or exclusive."""
    alone = vault.lock("pruner", is_exclusive=True)
    with reopened(place).lock("writer"), pytest.raises(LeaseHeld, match="refloat-writer"), alone:
        pytest.fail("must not be entered")
    with vault.lock("pruner", is_exclusive=True) as held:
        held.confirm()
        for is_exclusive in (False, True):
            other = reopened(place).lock("other", is_exclusive=is_exclusive)
            with pytest.raises(LeaseHeld, match="exclusively by refloat-pruner"), other:
                pytest.fail("must not be entered")
    assert not _locks(vault)


def test_who_removes_passes_over_the_dead_only(vault: OpenVault, place: Path) -> None:
    """A lock that merely looks old, or cannot be read, is for a person to judge."""
    _write(vault, place, own=HOUR, store=HOUR, username="refloat-old")
    with pytest.raises(LeaseHeld, match="stale: not refreshed"), vault.lock("pruner", is_exclusive=True):
        pytest.fail("must not be entered")
    with vault.lock("pruner", is_exclusive=True, is_dead=lambda run: run == "old"):
        pass
    (place / "locks" / ("a" * 64)).write_bytes(b"torn")
    os.utime(place / "locks" / ("a" * 64), (0, 0))
    alone = vault.lock("pruner", is_exclusive=True, is_dead=lambda run: True)
    with pytest.raises(LeaseHeld, match="cannot be read"), alone:
        pytest.fail("must not be entered")


def test_a_lock_that_was_lost_stops_before_the_next_deletion(place: Path, vault: OpenVault) -> None:
    """Not refreshed in time, or removed by somebody: `require` and `confirm` say so."""
    lapsed = hold(vault.files, "run", is_exclusive=True, lapses_after=timedelta(0))
    with pytest.raises(LeaseHeld, match="could not be refreshed"), lapsed as held:
        held.require()
    removed = threading.Event()
    with pytest.raises(LeaseHeld, match="somebody removed"), vault.lock("run", is_exclusive=True) as held:
        held.confirm()
        for name in _locks(vault):
            (place / "locks" / name).unlink()
        removed.set()
        held.confirm()
        pytest.fail("must not be reached")
    assert removed.is_set()


def test_a_lock_that_was_removed_is_told_by_the_next_refresh(place: Path, vault: OpenVault) -> None:
    """A shared one too: somebody may have pruned since."""
    watching = FaultyStore(open_object_store(f"file://{place}", {}))
    ours, refreshed = open_vault(watching, PASSWORD), threading.Event()
    watching.on_put = lambda key: refreshed.set() if watching.calls["put"] > 1 else None
    with pytest.raises(LeaseHeld, match="somebody removed"), ours.lock("run", refresh=timedelta(milliseconds=300)):
        for name in _locks(vault):
            (place / "locks" / name).unlink()
        assert refreshed.wait(timeout=30)
    assert not _locks(vault)


@pytest.mark.lane("restic")
def test_stock_restic_and_we_respect_each_others_locks(vault: OpenVault, place: Path) -> None:
    """Exit code 11 while we hold the vault alone; LeaseHeld while restic does, or merely uses it."""
    words = [needed(), "--no-cache", "-r", str(place)]
    environment = {**os.environ, "RESTIC_PASSWORD": PASSWORD}
    with vault.lock("pruner", is_exclusive=True):
        for command in (("backup", str(place / "config")), ("prune",), ("check",), ("snapshots",)):
            done = subprocess.run([*words, *command], env=environment, capture_output=True, text=True, check=False)
            assert "already locked exclusively" in done.stderr
            assert done.returncode == (11 if version() >= (0, 17) else 1)
    backup = subprocess.Popen(
        [*words, "backup", "--stdin"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert backup.stdin is not None
    _wait_for_lock(place)
    with pytest.raises(LeaseHeld, match="in use by"), vault.lock("pruner", is_exclusive=True):
        pytest.fail("must not be entered")
    with vault.lock("writer"):
        pass
    backup.stdin.write(b"data")
    backup.stdin.close()
    assert backup.wait(timeout=60) == 0
    check = subprocess.Popen([*words, "check"], env=environment, stdout=subprocess.DEVNULL)
    _wait_for_lock(place)
    check.send_signal(signal.SIGSTOP)
    for is_exclusive in (False, True):
        with pytest.raises(LeaseHeld, match="locked exclusively by"), vault.lock("us", is_exclusive=is_exclusive):
            pytest.fail("must not be entered")
    check.send_signal(signal.SIGCONT)
    assert check.wait(timeout=60) == 0


def _wait_for_lock(place: Path) -> None:
    deadline = Deadline.after(timedelta(seconds=60))
    while not list((place / "locks").glob("?" * 64)):
        assert not deadline.is_over, "no lock appeared"
