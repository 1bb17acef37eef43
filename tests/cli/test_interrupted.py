"""Ctrl-C, SIGTERM and SIGKILL in the middle of a run: what was held is let go, what was made is removed."""

from __future__ import annotations

import os
import re
import signal
from datetime import timedelta
from pathlib import Path

import pytest

from kube.cluster import Cluster
from kube.thawing import left_holds
from practice.access import Fault
from practice.range import PracticeRange
from refloat.clock import Deadline
from tests.cli import small
from tests.cli.command import LIMIT_SECONDS, Program
from tests.e2e.leftovers import leftovers
from tests.until import WITHIN, until

NAMESPACE = "cli-held"
CUT_SECONDS = 4.0
HARD_BUDGET = timedelta(seconds=30)
DOCUMENTS = """\
apiVersion: refloat/v1
kind: Application
name: held
members: [{{namespace: {namespace}, selector: app=db}}]
hooks:
  - selector: app=db
    pre: {{command: [touch, /data/held]}}
    post: {{command: [sh, -c, "touch /data/releasing; sleep 2; rm /data/held /data/releasing"]}}
---
apiVersion: refloat/v1
kind: ProtectionPolicy
name: held
vault: {{url: "file://{folder}/vault", password: {{file: "{password}"}}}}
"""


@pytest.fixture
def held_range(practice: PracticeRange) -> tuple[Cluster, Fault]:
    """The range's own cluster with the application in it, and the fault that makes its cut take long."""
    cluster = Cluster.open(kubeconfig=str(practice.kubeconfig))
    small.create(cluster, NAMESPACE)
    path = f"/namespaces/{NAMESPACE}/volumesnapshots"
    return cluster, practice.access.inject(Fault("delay", path, "POST", delay_seconds=CUT_SECONDS))


def document_with(folder: Path, password: Path, hooks: str = "") -> Path:
    """The two documents; ``hooks`` stands in the place of theirs."""
    text = DOCUMENTS.format(namespace=NAMESPACE, folder=folder, password=password)
    document = folder / "held.yaml"
    document.write_text(re.sub(r"(?ms)^hooks:.*?(?=^---)", hooks, text) if hooks else text)
    return document


def test_a_hold_is_released_whoever_presses_what(
    practice: PracticeRange, held_range: tuple[Cluster, Fault], program: Program, password_file: Path, tmp_path: Path
) -> None:
    """A signal while the cut is awaited; more of them while the post-hook runs do not keep it from its end."""
    cluster, cut = held_range

    def there(name: str) -> bool:
        return cluster.exec(NAMESPACE, "db-0", "db", ["test", "-f", f"/data/{name}"], timeout=WITHIN).exit_code == 0

    document = document_with(tmp_path, password_file)
    process = program.start("protect", "-f", document, "--kubeconfig", practice.kubeconfig)
    try:
        until(lambda: cut.fired == 1, "the cut was asked for")
        assert there("held")
        os.kill(process.pid, signal.SIGTERM)
        until(lambda: there("releasing"), "the post-hook ran")
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(process.pid, number)
        stdout, stderr = process.communicate(timeout=WITHIN.total_seconds())
    finally:
        process.kill()
    assert process.returncode == 130, stdout + stderr
    assert "error INTERRUPTED: interrupted; nothing was sealed" in stderr
    assert "Traceback" not in stderr
    assert not there("held")
    assert leftovers(cluster) == []
    flags = ("--vault", f"file://{tmp_path}/vault", "--password-file", password_file)
    assert program("points", *flags, "-o", "json").done().json == []
    practice.access.heal()
    program("protect", "-f", document, "--kubeconfig", practice.kubeconfig).done()
    assert not there("held")


def test_what_a_killed_run_held_by_hooks_lets_itself_go(
    practice: PracticeRange, held_range: tuple[Cluster, Fault], program: Program, password_file: Path, tmp_path: Path
) -> None:
    """SIGKILL while the cut is awaited: the guard in the pod runs the post-hook, without janitor or sweep."""
    cut, held = held_range[1], tmp_path / "held"
    commands = f"pre: {{command: [touch, {held}]}}, post: {{command: [rm, {held}]}}"
    document = document_with(tmp_path, password_file, f"hooks: [{{selector: app=db, {commands}}}]\n")
    process = program.start("protect", "-f", document, "--kubeconfig", practice.kubeconfig)
    try:
        until(lambda: cut.fired == 1, "the cut was asked for")
        assert held.exists()
        process.kill()
        process.communicate()
        until(lambda: not held.exists(), "the guard ran the post-hook")
    finally:
        process.kill()
        practice.access.heal()


def test_a_hold_outlives_its_prefect_server_and_ends_in_time(
    practice: PracticeRange, held_range: tuple[Cluster, Fault], password_file: Path, tmp_path: Path
) -> None:
    """SIGKILL to the server while the pod is held: it is let go by refloat as ever, and the run ends by itself."""
    cluster, cut = held_range
    own = Program({"REFLOAT_HOME": str(tmp_path / "home"), "PREFECT_CLIENT_MAX_RETRIES": "0"})
    own("server", "start").done()
    held = tmp_path / "held"
    commands = f"{{freeze: touch {held}, thaw: rm -f {held}, confirm: 'true', stopsWrites: 'true'}}"
    rule = f"quiesce: [{{selector: app=db, engine: commands, options: {commands}}}]\n"
    document = document_with(tmp_path, password_file, rule)
    process = own.start("protect", "-f", document, "--kubeconfig", practice.kubeconfig)
    try:
        until(lambda: cut.fired == 1, "the cut was asked for")
        assert held.exists()
        os.kill(own("server", "status", "-o", "json").done().json["pid"], signal.SIGKILL)
        killed = Deadline.after(HARD_BUDGET)
        until(lambda: not held.exists(), "the pod was let go")
        assert not killed.is_over
        stdout, stderr = process.communicate(timeout=LIMIT_SECONDS)
    finally:
        process.kill()
        own("server", "stop")
        practice.access.heal()
    assert process.returncode != 0 or '"application-consistent"' in stdout, stdout + stderr
    assert "Traceback" not in stderr
    assert not left_holds(cluster)
