"""Torture of copies: killed at random moments, again and again; the far end never lists what is not whole."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from refloat.clock import Deadline, pause
from refloat.errors import VaultMissing
from refloat.registry import open_object_store
from tests.tools.restic import find, restic
from tests.vault.given import MIB, PASSWORD, protect, put_oddities, reopened
from vault.catalogue import points
from vault.repository import OpenVault, init
from vault.verify import verify

ROOT = Path(__file__).parents[2]
POINTS = 3
BEGUN = timedelta(seconds=60)
LONGEST_SECONDS = 1.0
"""A copy of this vault takes about as long, so that kills fall everywhere in it."""


@pytest.fixture
def vault(tmp_path: Path, seed: int, rounds: Callable[[int, int], int]) -> OpenVault:
    """Three points of one application, with data of several packs."""
    source, rng = tmp_path / "source", random.Random(seed)
    source.mkdir()
    put_oddities(source)
    made = init(open_object_store(f"file://{tmp_path / 'vault'}", {}), PASSWORD)
    for number in range(POINTS):
        (source / f"big {number}").write_bytes(rng.randbytes(rounds(8, 20) * MIB))
        protect(made, source, after=timedelta(hours=number))
    return made


def start(source: Path, far: Path) -> subprocess.Popen[bytes]:
    """The command, as a process."""
    words = [sys.executable, "-m", "cli.main", "vault", "copy", f"file://{source}", f"file://{far}"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "REFLOAT_PASSWORD": PASSWORD}
    return subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def kill_after(copy: subprocess.Popen[bytes], far: Path, seconds: float) -> bool:
    """Let it work for that long after its first write, then kill it; whether that came before its end."""
    before, limit = _lock_names(far), Deadline.after(BEGUN)
    while copy.poll() is None and not _lock_names(far) - before and not limit.is_over:
        pass
    pause(timedelta(seconds=seconds))
    copy.kill()
    copy.communicate(timeout=30)
    return copy.returncode == -signal.SIGKILL


def _lock_names(far: Path) -> set[str]:
    try:
        return {path.name for path in (far / "locks").iterdir()}
    except FileNotFoundError:
        return set()


def listed(far: Path) -> int:
    """How many points the far end lists; each verifies in full."""
    try:
        opened = reopened(far)
    except VaultMissing:
        return 0
    found = points(opened)
    for point in found:
        verify(opened, point, level="full")
    opened.close()
    return len(found)


@pytest.mark.parametrize("kind", ["mirror", "another key"])
def test_killed_copies(
    kind: str, vault: OpenVault, tmp_path: Path, rounds: Callable[[int, int], int], seed: int
) -> None:
    """After every kill what is listed is whole, and no fewer points than before; the next copies go on to the end."""
    rng, far, number = random.Random(seed), tmp_path / "far 0", 0
    kills = most = finished = half = 0
    wanted = rounds(1, 25)
    while kills < wanted or not half:
        if kind == "another key" and not far.exists():
            init(open_object_store(f"file://{far}", {}), PASSWORD).close()
        was_killed = kill_after(start(tmp_path / "vault", far), far, rng.random() * LONGEST_SECONDS)
        kills += was_killed
        found = listed(far)
        assert found >= most, "a point that was listed is gone"
        most = found
        half += found < POINTS
        if found == POINTS:
            judge(far)
            finished += 1
            number += 1
            far, most = tmp_path / f"far {number}", 0
    if far.exists():
        with start(tmp_path / "vault", far) as last:
            _, said = last.communicate(timeout=120)
        assert last.returncode == 0, said.decode()
        assert listed(far) == POINTS
        judge(far)
        finished += 1
    print(f"{kind}: {kills} kills, {half} of them left the far end half made, {finished} copies converged")


def judge(far: Path) -> None:
    """Stock restic's word, where there is one."""
    if find() is not None:
        assert "no errors were found" in restic(str(far), PASSWORD, "check", "--read-data", "--no-lock")
