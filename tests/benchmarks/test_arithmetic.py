"""What the benchmarks make of their samples: medians, ratios, verdicts; and that they notice a wrong restore."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import data
from benchmarks.comparing import compare_bytes, compare_folders
from benchmarks.goals import GOALS, Goal
from benchmarks.rounds import Measured, Sample
from benchmarks.sets import QUICK, data_sets
from benchmarks.spent import Failed, Spent, family, run
from benchmarks.table import outcomes, rows_of

PLAIN = {"PATH": os.environ["PATH"]}


def measured(**seconds: list[float]) -> Measured:
    """First backups of some tools; refloat stores 100 bytes, every other tool 250."""
    found = Measured()
    for tool, each in seconds.items():
        stored = 100 if tool == "refloat" else 250
        found.samples["first", tool] = [Sample(Spent(second, second / 2, int(second * 1e6)), stored) for second in each]
    return found


def test_a_ratio_is_the_peers_median_by_refloats() -> None:
    ours, theirs = rows_of(measured(refloat=[2.0, 9.0, 1.0], restic=[5.0, 4.0, 6.0]))
    assert (ours.tool, ours.median_seconds, ours.speed_ratio, ours.size_ratio) == ("refloat", 2.0, None, None)
    assert (theirs.tool, theirs.speed_ratio, theirs.size_ratio, theirs.peak_bytes) == ("restic", 2.5, 2.5, 6_000_000)
    assert "5.00 (4.00-6.00)" in theirs.text()


def test_peers_without_refloat_have_no_ratio() -> None:
    (theirs,) = rows_of(measured(restic=[1.0]))
    assert theirs.speed_ratio is None


@pytest.mark.parametrize(
    ("goal", "value", "verdicts"),
    [
        (Goal("big", "first", "restic", "seconds", 2.0, 3.0), 2.0, ("met", "missed")),
        (Goal("big", "first", "restic", "seconds", 2.0, 3.0), 1.99, ("missed", "missed")),
        (Goal("big", "first", "refloat itself", "peak", 200e6, 120e6), 120e6, ("met", "met")),
        (Goal("big", "first", "refloat itself", "peak", 200e6, 120e6), 200e6 + 1, ("missed", "missed")),
        (Goal("big", "first", "restic", "stored", 1.0), 0.99, ("missed", None)),
    ],
)
def test_verdicts(goal: Goal, value: float, verdicts: tuple[str, str | None]) -> None:
    assert goal.judge(value) == verdicts


def test_a_goal_whose_peer_is_absent_says_so_and_is_never_met() -> None:
    rows = rows_of(measured(refloat=[1.0], restic=[4.0]))
    found = {
        (each.goal.work, each.goal.peer, each.goal.quantity): each
        for each in outcomes("big", rows, {"kopia": "NOT RUN: no Go"})
    }
    assert found["first", "restic", "seconds"].value == 4.0
    assert "met" in found["first", "restic", "seconds"].text()
    assert found["first", "kopia", "seconds"].text().endswith("NOT RUN: no Go")
    assert found["restore", "restic", "seconds"].value is None
    assert "met" not in found["restore", "restic", "seconds"].text()


def test_every_goal_is_of_a_set_and_a_peer_that_are_measured() -> None:
    sets = {each.name: each for each in data_sets(QUICK)}
    for goal in GOALS:
        assert goal.quantity == "peak" or goal.peer in sets[goal.set].peers


def flip(path: Path) -> None:
    """One bit, and the file's size stays."""
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)


@pytest.mark.parametrize(
    "spoil", [flip, Path.unlink, lambda path: path.with_name("new").touch(), lambda path: os.truncate(path, 1)]
)
def test_a_wrong_restore_is_noticed(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    for name in ("source", "target"):
        data.small(tmp_path / name, 20)
    compare_folders(tmp_path / "source", tmp_path / "target", is_whole=True)
    spoil(tmp_path / "target" / "0000" / "000007")
    with pytest.raises(Failed):
        compare_folders(tmp_path / "source", tmp_path / "target", is_whole=True)


def test_a_wrong_device_is_noticed(tmp_path: Path) -> None:
    for name in ("source", "target"):
        data.device(tmp_path / name, 4 * data.MIB, 0.5)
    compare_bytes(tmp_path / "source", tmp_path / "target")
    flip(tmp_path / "target")
    with pytest.raises(Failed, match="source: restored with other bytes"):
        compare_bytes(tmp_path / "source", tmp_path / "target")


def test_data_is_the_same_every_time_and_every_change_is_another(tmp_path: Path) -> None:
    for name in ("one", "two"):
        data.database(tmp_path / name, 8 * data.MIB)
        data.change(tmp_path / name, 0.02, 1)
    compare_folders(tmp_path / "one", tmp_path / "two", is_whole=True)
    data.change(tmp_path / "one", 0.02, 2)
    with pytest.raises(Failed):
        compare_folders(tmp_path / "one", tmp_path / "two", is_whole=True)
    assert len(data.page(random.Random(1))) == data.MIB


def test_a_run_counts_the_work_and_the_memory_of_children() -> None:
    child = "x = bytearray(60_000_000); x[::4096] = b'x' * len(x[::4096]); sum(range(20_000_000))"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    spent, _ = run([sys.executable, "-c", parent], PLAIN)
    assert spent.peak_bytes > 60_000_000
    assert spent.cpu_seconds > 0.1


def test_a_failing_tool_is_told_with_what_it_said() -> None:
    with pytest.raises(Failed, match="exit code 3: no room"):
        run(["sh", "-c", "echo no room >&2; exit 3"], PLAIN)


def test_a_family_is_a_process_and_all_below_it() -> None:
    with subprocess.Popen(["sh", "-c", "cat & cat; wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        assert shell.pid in family(os.getpid())
        assert family(shell.pid)[0] == shell.pid
        assert os.getpid() not in family(shell.pid)
