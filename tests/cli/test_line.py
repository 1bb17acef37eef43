"""The straight line by the command, on the practice range: protect, look, recover, sweep, on a Prefect server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kube.cluster import Cluster
from refloat.application import RUN_LABEL
from tests.cli import small
from tests.cli.command import Outcome, Program, on_terminal
from tests.cli.conftest import PASSWORD
from tests.e2e.leftovers import HOME, leftovers

COPY, ELSEWHERE, ASKED = "cli-copy", "cli-elsewhere", "cli-asked"
DEAD_RUN = "deadbeefdeadbeef"


@dataclass(frozen=True)
class Line:
    """The command, and what leads it to cluster and vault."""

    program: Program
    cluster: Cluster
    cluster_flags: tuple[str, ...]
    vault_flags: tuple[str, ...]
    namespace: str
    said: list[Outcome]

    def __call__(self, *words: object) -> Outcome:
        outcome = self.program(*words)
        self.said.append(outcome)
        return outcome

    @property
    def flags(self) -> tuple[str, ...]:
        return (*self.cluster_flags, *self.vault_flags)

    def protect(self, *words: object) -> Outcome:
        return self("protect", "db", "-n", self.namespace, "-l", small.LABEL, *self.flags, *words)

    def points(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self("points", "db", *self.vault_flags, "-o", "json").done().json
        return found


@pytest.fixture(scope="module")
def line(
    program: Program,
    range_cluster: Cluster,
    application: str,
    cluster_flags: tuple[str, ...],
    password_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Line]:
    """An empty vault and the running application."""
    vault = f"file://{tmp_path_factory.mktemp('line')}/vault"
    flags = ("--vault", vault, "--password-file", str(password_file))
    yield Line(program, range_cluster, cluster_flags, flags, application, [])
    for name in (COPY, ELSEWHERE, ASKED):
        range_cluster.delete("Namespace", name)


@pytest.fixture(scope="module")
def first(line: Line) -> Outcome:
    """The first run, told to people."""
    return line.protect().done()


@pytest.fixture(scope="module")
def second(first: Outcome, line: Line) -> Outcome:
    """The second run, told to scripts."""
    assert first
    return line.protect("-o", "json").done()


def test_protect_says_what_is_true_now(first: Outcome, line: Line) -> None:
    """Progress beside, one result line: id, label, counts; nothing is left in the cluster."""
    assert first.stdout.startswith("sealed    ")
    assert "crash-consistent" in first.stdout
    assert "1 volume " in first.stdout
    assert "preflight" in first.stderr
    assert "upload" in first.stderr
    assert "Prefect server started" not in first.stderr  # it was up
    assert " | INFO" not in first.stderr  # Prefect's own lines go to its pages
    assert leftovers(line.cluster) == []


def test_with_json_standard_output_is_the_report(second: Outcome) -> None:
    """And only that; the achieved RPO is the time between the two cuts."""
    report = second.json
    assert (report["application"], report["verified"]) == ("db", "sample")
    assert report["achieved_rpo"]
    assert report["point"]["volumes"][0]["files"] == 2


def test_points_are_listed_oldest_first(second: Outcome, line: Line) -> None:
    """For scripts and for people; without a name, those of every application."""
    newest = second.json["point"]["id"]
    listed = line.points()
    assert [each["point"]["id"] for each in listed][1:] == [newest]
    shown = line("points", *line.vault_flags).done().stdout.splitlines()
    assert shown[0].split() == ["POINT", "APPLICATION", "AGE", "CUT", "LABEL", "OBJECTS", "VOLUMES", "SIZE"]
    assert shown[2].split()[:2] == [newest, "db"]
    assert line("points", "other", *line.vault_flags, "-o", "json").done().json == []


def test_plan_is_the_dry_run(second: Outcome, line: Line) -> None:
    """Into a new namespace everything is created; onto the living application it is blocked, shown whole, exit 61."""
    assert second
    into = ("db", "--to-namespace", COPY, *line.flags)
    plan = line("plan", *into, "-o", "json").done().json
    assert {each["action"] for each in plan["objects"]} == {"create"}
    assert [(each["claim"], each["action"]) for each in plan["volumes"]] == [(small.CLAIM, "hydrate")]
    assert len(plan["digest"]) == 64
    for words in (("plan", *into), ("recover", *into, "--dry-run")):
        shown = line(*words).done().stdout
        assert [name for name in ("db-auth", "db-conf", small.CLAIM, COPY) if name not in shown] == []
    blocked = line("plan", "db", *line.flags, "-o", "json")
    assert (blocked.exit_code, blocked.error_code) == (61, "PLAN-BLOCKED")
    assert blocked.json["blockers"][0]["subject"].endswith(small.CLAIM)
    assert line.cluster.find("Namespace", COPY) is None


def test_recover_needs_a_yes_and_a_free_place(second: Outcome, line: Line) -> None:
    """Without a terminal nobody said yes; a blocked plan is refused with or without one. Nothing is created."""
    assert second
    unasked = line("recover", "db", "--to-namespace", COPY, *line.flags)
    assert (unasked.exit_code, unasked.error_code) == (65, "APPROVAL-MISSING")
    assert "create" in unasked.stderr  # the plan was shown
    blocked = line("recover", "db", "--yes", *line.flags, "-o", "json")
    assert (blocked.exit_code, blocked.json["error"]["code"]) == (61, "PLAN-BLOCKED")
    assert small.CLAIM in blocked.stdout
    assert line.cluster.find("Namespace", COPY) is None
    assert leftovers(line.cluster) == []


def test_recover_brings_it_back(second: Outcome, line: Line) -> None:
    """Data, Secret, readiness; again, and everything is kept; an older point by how its id begins."""
    into = ("db", "--to-namespace", COPY, "--yes", *line.flags)
    recovered = line("recover", *into).done()
    assert recovered.stdout.startswith("recovered db on ")
    assert "\nRTO " in recovered.stdout
    assert small.orders(line.cluster, COPY) == 500
    again = line("recover", *into, "-o", "json").done().json
    assert (again["created"], again["hydrated"]) == (0, 0)
    oldest = line.points()[0]["point"]["id"]
    assert oldest != second.json["point"]["id"]
    elsewhere = ("db", "--to-namespace", ELSEWHERE, "--point", oldest[:6], "--yes", *line.flags, "-o", "json")
    assert line("recover", *elsewhere).done().json["source"]["point"]["id"] == oldest
    assert small.orders(line.cluster, ELSEWHERE) == 500
    assert leftovers(line.cluster) == []


def test_on_a_terminal_somebody_is_asked(second: Outcome, line: Line) -> None:
    """No is no; yes does what was shown, with bars that carry bytes and files."""
    assert second
    words = ("recover", "db", "--to-namespace", ASKED, *line.flags)
    exit_code, shown = on_terminal(line.program, *words, answer="n")
    assert (exit_code, "the answer was no" in shown) == (65, True), shown
    assert line.cluster.find("Namespace", ASKED) is None
    exit_code, shown = on_terminal(line.program, *words, answer="y")
    assert exit_code == 0, shown
    assert f"{ASKED}/{small.CLAIM}" in shown
    assert "2 files" in shown
    assert "recovered db on" in shown
    assert small.orders(line.cluster, ASKED) == 500


def test_sweep_shows_asks_and_removes(line: Line) -> None:
    """Nothing, then what a dead run left: shown, not removed without a yes, then removed."""
    flags = line.cluster_flags
    assert line("sweep", *flags).done().stdout == "nothing was left behind\n"
    if line.cluster.find("Namespace", HOME) is None:
        line.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HOME}})
    metadata = {"name": "left", "namespace": HOME, "labels": {RUN_LABEL: DEAD_RUN}}
    line.cluster.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata})
    shown = line("sweep", "--run", DEAD_RUN, "--dry-run", *flags).done().stdout
    assert f"Secret {HOME}/left" in shown
    assert "1 temporary object would be removed" in shown
    assert line("sweep", "--run", "0" * 16, "--dry-run", *flags, "-o", "json").done().json == []
    unasked = line("sweep", "--run", DEAD_RUN, *flags)
    assert (unasked.exit_code, unasked.error_code) == (65, "APPROVAL-MISSING")
    assert line.cluster.find("Secret", "left", HOME) is not None
    assert "1 temporary object removed" in line("sweep", "--run", DEAD_RUN, "--yes", *flags).done().stdout
    assert leftovers(line.cluster) == []


def test_no_secret_was_said_or_kept(second: Outcome, line: Line) -> None:
    """Not in any output of this module, nor in any byte of Prefect's database and log, nor in clear in the vault."""
    assert second
    assert len(line.said) > 15
    assert PASSWORD not in json.dumps([str(outcome) for outcome in line.said])
    assert small.SECRET not in json.dumps([str(outcome) for outcome in line.said])
    home = Path(line.program.environment["REFLOAT_HOME"])
    kept = [path for path in home.rglob("*") if path.is_file()]
    assert any(b"crash-consistent" in path.read_bytes() for path in kept), "Prefect keeps the story somewhere else"
    vault = Path(line.vault_flags[1].removeprefix("file://"))
    for path in [*kept, *(each for each in vault.rglob("*") if each.is_file())]:
        content = path.read_bytes()
        assert PASSWORD.encode() not in content, path
        assert small.SECRET.encode() not in content, path
