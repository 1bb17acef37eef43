"""What a holder leaves to a container's process 1: nothing that a postmaster would take for a crashed server."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from kube.held_part import holder_text
from refloat.ports.quiescer import HoldScript

ROOT = Path(__file__).parents[2]
# a client like psql: it ends with 2 when its session went away, and with 3 on an error
FUNCTIONS = """arm() {
  client sh -c 'while read -r word; do echo "$word"; [ "$word" != wrong ] || exit 3; done; exit 2' || return 1
  tell ready; hear ready
}
freeze() { tell held; hear held; }
beat() { tell beat; hear beat; }
release() { tell released; hear released; }
facts() { facts=; }
undo() { sleep 0.2; }
"""


def fates(scenario: str) -> tuple[list[str], dict[str, int]]:
    """What the holder said, and how each process ended that was left to process 1."""
    script = HoldScript("test", "a client", True, "session", FUNCTIONS, ("true",), ("true",))
    token = f"orphans-{secrets.token_hex(4)}"
    text = holder_text(script, token=token, lease=timedelta(seconds=2), hard=timedelta(seconds=30))
    done = subprocess.run(
        [sys.executable, "-m", "tests.kube.orphans", scenario, text],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [line.split()[2] for line in found["said"][:2]] == ["ARMED", "HELD"]
    assert not list(Path("/dev/shm").glob(f"*{token}*"))
    return found["said"], found["ended"]


@pytest.mark.parametrize("scenario", ["release", "end of input", "silence"])
def test_a_holder_that_ends_by_itself_leaves_nobody(scenario: str) -> None:
    """It waits for its client and its watchdog, however they end."""
    _, ended = fates(scenario)
    assert ended == {}


@pytest.mark.parametrize("scenario", ["killed", "stopped"])
def test_what_a_dead_holder_leaves_ends_well(scenario: str) -> None:
    """Orphans there are, and none is ended by a signal or with more than 1 (postmaster.c, CleanupBackend)."""
    _, ended = fates(scenario)
    assert ended, "the fault did not fire: nobody was orphaned"
    bad = {pid: status for pid, status in ended.items() if not os.WIFEXITED(status) or os.WEXITSTATUS(status) > 1}
    assert bad == {}, f"taken for crashed servers: {bad}"
