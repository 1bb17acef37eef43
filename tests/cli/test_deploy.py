"""`refloat deploy`: what is registered, and that a stock worker runs it."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from kube.cluster import Cluster
from tests.cli import small
from tests.cli.command import PROGRAM, Program
from tests.cli.conftest import PASSWORD
from tests.e2e.leftovers import leftovers

DOCUMENTS = """\
apiVersion: refloat/v1
kind: Application
name: scheduled
members: [{{namespace: {namespace}, selector: app=db}}]
---
apiVersion: refloat/v1
kind: ProtectionPolicy
name: scheduled-daily
application: scheduled
vault: {{url: "file://{folder}/vault", password: {{file: "password"}}}}
objectives: {{rpo: 20m, rto: 10m}}
"""
WORKER_SECONDS = 120


@pytest.fixture(scope="module")
def api(program: Program) -> str:
    """The API address of the session's server."""
    return str(program("server", "status", "-o", "json").done().json["api_url"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, application: str) -> Path:
    """Documents, and the password file they name relative to themselves."""
    folder = tmp_path_factory.mktemp("deploy")
    (folder / "shop.yaml").write_text(DOCUMENTS.format(namespace=application, folder=folder))
    (folder / "password").write_text(PASSWORD)
    return folder


def ask(api: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Prefect's API: GET, or POST with a body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{api}{path}", data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def test_what_is_registered(
    program: Program, api: str, folder: Path, cluster_flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A schedule of 80 % of the RPO, one run at a time, a module entry point, the documents as parameters."""
    monkeypatch.chdir(folder)
    said = program("deploy", "scheduled", "-f", "shop.yaml", *cluster_flags, "-o", "json").done().json
    found = ask(api, "/deployments/name/protect/scheduled")
    assert (found["id"], found["work_pool_name"]) == (said["id"], said["work_pool"])
    assert [each["schedule"]["interval"] for each in found["schedules"]] == [16 * 60.0]
    assert found["entrypoint"] == "flows.protect:protect"
    assert found["global_concurrency_limit"]["limit"] == 1
    assert found["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert found["parameters"]["policy"]["vault"]["password"] == {"file": str(folder / "password")}
    assert PASSWORD not in json.dumps(found)
    assert ask(api, f"/work_pools/{said['work_pool']}")["type"] == "process"

    again = program("deploy", "-f", "shop.yaml", "--rpo", "10m", *cluster_flags).done().stdout
    assert "every 8 min, one run at a time" in again
    assert f"prefect worker start --pool {said['work_pool']}" in again
    assert said["ui"] in again
    renewed = ask(api, "/deployments/name/protect/scheduled")
    assert [each["schedule"]["interval"] for each in renewed["schedules"]] == [8 * 60.0]


def test_a_drill_every_quarter(
    program: Program, api: str, folder: Path, cluster_flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the protection, when it is asked for."""
    monkeypatch.chdir(folder)
    said = program("deploy", "-f", "shop.yaml", "--drill", *cluster_flags, "-o", "json").done().json
    assert (said["drill"]["deployment"], said["drill"]["schedule"]) == ("drill/scheduled", "0 3 1 1,4,7,10 *")
    found = ask(api, "/deployments/name/drill/scheduled")
    assert [each["schedule"]["cron"] for each in found["schedules"]] == ["0 3 1 1,4,7,10 *"]
    assert (found["entrypoint"], found["parameters"]["application"]) == ("flows.drill:drill", "scheduled")
    assert PASSWORD not in json.dumps(found)


def test_its_documents_are_blocks(program: Program, api: str, folder: Path, cluster_flags: tuple[str, ...]) -> None:
    """The name alone is enough from then on."""
    assert ask(api, "/deployments/name/protect/scheduled")
    assert small.CLAIM in program("discover", "scheduled", *cluster_flags).done().stdout
    blocked = program("points", "--block", "scheduled")
    assert (blocked.error_code, str(folder) in blocked.stderr) == ("VAULT-MISSING", True), str(blocked)


def test_a_stock_worker_runs_it(
    program: Program, api: str, folder: Path, cluster_flags: tuple[str, ...], range_cluster: Cluster, tmp_path: Path
) -> None:
    """From another folder, on its own: one point, nothing left, and the run's pages hold no secret."""
    deployment = ask(api, "/deployments/name/protect/scheduled")
    run = ask(api, f"/deployments/{deployment['id']}/create_flow_run", {"name": "by-hand"})
    words = [str(PROGRAM.with_name("prefect")), "worker", "start", "--pool", deployment["work_pool_name"], "--run-once"]
    done = subprocess.run(
        words, env={**program.environment, "PREFECT_API_URL": api}, capture_output=True, text=True, check=False,
        timeout=WORKER_SECONDS, cwd=tmp_path,
    )  # fmt: skip
    ended = ask(api, f"/flow_runs/{run['id']}")
    assert ended["state"]["type"] == "COMPLETED", (ended["state"], done.stdout, done.stderr)
    flags = ("--vault", f"file://{folder}/vault", "--password-file", folder / "password")
    points = program("points", "scheduled", *flags, "-o", "json").done().json
    assert [each["point"]["application"] for each in points] == ["scheduled"]
    assert leftovers(range_cluster) == []
    logs = ask(api, "/logs/filter", {"logs": {"flow_run_id": {"any_": [run["id"]]}}})
    assert any("seal" in each["message"] for each in logs)
    assert PASSWORD not in json.dumps([logs, ended, done.stdout, done.stderr])


def test_a_schedule_that_is_none_is_named(
    program: Program, folder: Path, cluster_flags: tuple[str, ...], tmp_path: Path
) -> None:
    """Before anything is registered."""
    text = (folder / "shop.yaml").read_text().replace("objectives:", 'schedule: "61 * * * *"\nobjectives:')
    text = text.replace("name: scheduled\n", "name: never\n").replace("application: scheduled", "application: never")
    (tmp_path / "wrong.yaml").write_text(text)
    outcome = program("deploy", "-f", tmp_path / "wrong.yaml", *cluster_flags)
    assert (outcome.error_code, outcome.exit_code) == ("INVALID-DOCUMENT", 10), str(outcome)
    assert "61 * * * *" in outcome.stderr
