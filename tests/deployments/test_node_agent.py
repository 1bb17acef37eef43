"""The node agent's own loop, as its manifest has it, over control groups of this machine: nothing stays frozen."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.deployments.installing import MANIFESTS
from tests.quiescers.frozen_group import HIERARCHIES, hierarchy
from tests.until import until

MANIFEST = MANIFESTS / "optional/60-node-agent.yaml"


def script() -> str:
    """What the container runs."""
    documents = yaml.safe_load_all(MANIFEST.read_text())
    agent = next(each for each in documents if each and each["kind"] == "DaemonSet")
    command: list[str] = agent["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command[:2] == ["sh", "-c"]
    return command[2]


@pytest.fixture(params=HIERARCHIES)
def group(request: pytest.FixtureRequest) -> Iterator[Path]:
    """An empty group."""
    made = hierarchy(request.param) / f"refloat-agent-{os.getpid()}"
    made.mkdir()
    yield made
    put(made, is_frozen=False)
    made.rmdir()


def put(group: Path, *, is_frozen: bool) -> None:
    """Freeze or thaw it, whichever kind it is."""
    if (group / "cgroup.freeze").exists():
        (group / "cgroup.freeze").write_text("1" if is_frozen else "0")
    else:
        (group / "freezer.state").write_text("FROZEN" if is_frozen else "THAWED")


def is_frozen(group: Path) -> bool:
    """As the kernel says."""
    if (group / "cgroup.freeze").exists():
        return (group / "cgroup.freeze").read_text().strip() == "1"
    return (group / "freezer.state").read_text().strip() != "THAWED"


def uptime() -> int:
    """Whole seconds."""
    return int(float(Path("/proc/uptime").read_text().split()[0]))


def frozen(group: Path, states: Path, seconds: int) -> Path:
    """Frozen and written down, as the engine does, for so long."""
    note = states / "uid"
    note.write_text(f"{uptime() + seconds} {group}\n")
    put(group, is_frozen=True)
    assert is_frozen(group)
    return note


@pytest.mark.parametrize("when", ["start", "deadline", "end"])
def test_nothing_stays_frozen(group: Path, tmp_path: Path, when: str) -> None:
    """By the next agent, once its time is over, and when the agent is told to end; not before."""
    seconds = 1 if when == "deadline" else 600
    note = frozen(group, tmp_path, seconds) if when == "start" else tmp_path / "uid"
    with subprocess.Popen(["sh", "-c", script()], env={**os.environ, "STATES": str(tmp_path)}) as agent:
        try:
            if when != "start":
                until(Path("/tmp/ready").exists, "it is ready")
                frozen(group, tmp_path, seconds)
            if when == "end":
                agent.send_signal(signal.SIGTERM)
                assert agent.wait(timeout=10) == 0
            until(lambda: not is_frozen(group), "it thawed")
            until(lambda: not note.exists(), "it is off record")
        finally:
            agent.kill()
            Path("/tmp/ready").unlink(missing_ok=True)


def test_what_is_frozen_in_time_is_left_alone(group: Path, tmp_path: Path) -> None:
    """One note is over and one is not: the agent looked at both."""
    with subprocess.Popen(["sh", "-c", script()], env={**os.environ, "STATES": str(tmp_path)}) as agent:
        try:
            until(Path("/tmp/ready").exists, "it is ready")
            frozen(group, tmp_path, 600)
            over = tmp_path / "zz-later"
            over.write_text(f"{uptime() - 10} /nowhere\n")
            until(lambda: not over.exists(), "it looked")
            assert is_frozen(group)
        finally:
            agent.kill()
            Path("/tmp/ready").unlink(missing_ok=True)
