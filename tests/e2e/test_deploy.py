"""`refloat deploy`: the shop on a schedule, as a Prefect deployment that a stock worker runs."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

from tests.e2e.command import PROGRAM, Refloat
from tests.e2e.given import Protected, Site, Vault
from tests.e2e.leftovers import leftovers

DOCUMENTS = """\
apiVersion: refloat/v1
kind: Application
name: shop
members:
  - namespace: shop-e2e
    selector: app.kubernetes.io/part-of=shop
---
apiVersion: refloat/v1
kind: ProtectionPolicy
name: shop-daily
application: shop
vault:
  url: {url}
  password: {{file: {password_file}}}
objectives: {{rpo: 20m, rto: 10m}}
"""
WORKER_SECONDS = 300


def ask(api: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Prefect's API: GET, or POST with a body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{api}{path}", data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def server_of(refloat: Refloat) -> str:
    """The API address of refloat's own Prefect server, as `refloat server status` says it."""
    said = refloat.done("server", "status").stdout
    found = re.search(r"http://[^\s]+/api", said)
    assert found, said
    return found[0]


def test_a_worker_runs_the_deployment(
    protected: Protected, site_a: Site, vault: Vault, refloat: Refloat, tmp_path: Path
) -> None:
    """Deployed from documents with a schedule of 80 % of the RPO; a worker makes a point; no secret is a parameter."""
    assert protected
    scheduled = vault.beside("scheduled")
    file = tmp_path / "shop.yaml"
    file.write_text(DOCUMENTS.format(url=scheduled.url, password_file=scheduled.password_file))
    refloat.done("deploy", "shop", "-f", file, *site_a.flags, phase="deploy")
    api = server_of(refloat)

    deployment = ask(api, "/deployments/name/protect/shop")
    assert [each["schedule"]["interval"] for each in deployment["schedules"]] == [16 * 60.0]
    assert Path(scheduled.password_file).read_text().strip() not in json.dumps(deployment)
    run = ask(api, f"/deployments/{deployment['id']}/create_flow_run", {"name": "by-hand"})
    work_once(refloat, api, deployment["work_pool_name"])

    ended = ask(api, f"/flow_runs/{run['id']}")
    assert ended["state"]["type"] == "COMPLETED", ended["state"]
    points = refloat.done("points", "shop", *scheduled.flags, "-o", "json").json
    assert [each["point"]["application"] for each in points] == ["shop"]
    assert leftovers(site_a.cluster) == []


def work_once(refloat: Refloat, api: str, pool: str) -> None:
    """Prefect's stock worker, taking what is due and ending with it."""
    words = [str(PROGRAM.with_name("prefect")), "worker", "start", "--pool", pool, "--run-once"]
    done = subprocess.run(
        words, env={**refloat.environment, "PREFECT_API_URL": api}, capture_output=True, text=True, check=False,
        timeout=WORKER_SECONDS,
    )  # fmt: skip
    print(done.stdout, done.stderr)
    assert done.returncode == 0
