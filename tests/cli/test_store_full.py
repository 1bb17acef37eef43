"""A store that is full: the run fails by name, seals nothing, leaves nothing, and succeeds once there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kube.cluster import Cluster
from tests.cli.command import Program
from tests.e2e.leftovers import leftovers

ROOM_BYTES, MORE_BYTES = 4 * 4096, 64 << 20
"""Room for config, key, lock and one pack of the mover; then a file system for all."""
STORE_FULL = 21


def resize(folder: Path, size_bytes: int) -> None:
    """Give the small file system so much room."""
    subprocess.run(["mount", "-o", f"remount,size={size_bytes}", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a vault's beginnings and nothing more."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={ROOM_BYTES}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("NOT RUN: no right to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_full_store(
    program: Program, application: str, cluster_flags: tuple[str, ...], password_file: Path, small_disk: Path,
    range_cluster: Cluster,
) -> None:  # fmt: skip
    """The movers of a run find the store full; later there is room."""
    vault = ("--vault", f"file://{small_disk}/vault", "--password-file", password_file)
    words = ("protect", "shop", "-n", application, *cluster_flags, *vault)
    failed = program(*words)
    assert (failed.error_code, failed.exit_code) == ("STORE-FULL", STORE_FULL), str(failed)
    assert "group snapshot    cut 1 volumes" in failed.stderr, "it was full before a mover had begun"
    assert "Traceback" not in failed.stderr
    assert leftovers(range_cluster) == []
    resize(small_disk, MORE_BYTES)
    assert program("points", *vault, "-o", "json").done().json == []
    program(*words).done()
    assert len(program("points", *vault, "-o", "json").done().json) == 1
