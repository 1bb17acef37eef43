"""The documents are run: every command in README.md and docs/users.md, against a practice range and an S3 server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import boto3
import pytest
from moto.server import ThreadedMotoServer

from cli.shop import Shop
from kube.cluster import Cluster
from practice.range import PracticeRange
from refloat.errors import tree
from tests.tools import restic

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
TAKEN_OUT = re.compile(r"REFLOAT_|PREFECT_|KUBECONFIG|AWS_")
LIMIT_SECONDS = 480
pytestmark = pytest.mark.timeout(LIMIT_SECONDS + 60)
KEYS = {"AWS_ACCESS_KEY_ID": "documents", "AWS_SECRET_ACCESS_KEY": "documents-secret", "AWS_REGION": "us-east-1"}


def blocks(document: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return [text for found, text in BLOCK.findall((ROOT / document).read_text()) if found == language]


def commands(document: str) -> list[str]:
    """Every line of the console blocks that a reader would type."""
    return [line[2:] for text in blocks(document, "console") for line in text.splitlines() if line.startswith("$ ")]


@pytest.fixture
def endpoint() -> Iterator[str]:
    """An S3 server with the bucket the documents speak of."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    urlopen(Request(f"{url}/moto-api/reset", method="POST")).close()  # one memory for all servers of a process
    client = boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="documents",
        aws_secret_access_key="documents-secret",
    )  # fmt: skip
    client.create_bucket(Bucket="backups")
    yield url
    server.stop()


@pytest.fixture
def place(practice: PracticeRange, endpoint: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a reader whose cluster runs the shop."""
    Shop(Cluster.open(kubeconfig=str(practice.kubeconfig))).open().place(20)
    kept = {
        name: value for name, value in os.environ.items() if not re.match(r"REFLOAT_|PREFECT_|KUBECONFIG|AWS_", name)
    }
    environment = {
        **kept,
        **KEYS,
        "PATH": f"{Path(sys.executable).parent}:{Path(restic.needed()).parent}:{os.environ['PATH']}",
        "KUBECONFIG": str(practice.kubeconfig),
        "AWS_ENDPOINT_URL": endpoint,
        "REFLOAT_HOME": str(tmp_path / "home"),
        "REFLOAT_PASSWORD": "documents-password",
        "RESTIC_PASSWORD": "documents-password",
        "PYTHONPATH": str(ROOT),
    }
    yield environment
    subprocess.run(["refloat", "server", "stop"], env=environment, check=False, capture_output=True)


def run(script: list[str], environment: dict[str, str], folder: Path) -> str:
    """The lines as one shell session; the first that fails fails the test, with everything printed so far."""
    folder.mkdir(exist_ok=True)
    told = [part for line in script for part in (f"echo '+ {line.replace(chr(39), '')}'", line)]
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(told)], env=environment, cwd=folder, text=True, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT_SECONDS,
    )  # fmt: skip
    print(done.stdout)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.lane("restic")
def test_readme(place: dict[str, str], endpoint: str, tmp_path: Path) -> None:
    """The ten lines of a real cluster, typed as they stand; only where things are is replaced."""
    lines = [line for line in commands("README.md") if not line.startswith("make ")]
    here = {
        "~/.kube/config": place["KUBECONFIG"],
        "https://s3.example.org": endpoint,
        "AWS_ACCESS_KEY_ID=…": "AWS_ACCESS_KEY_ID=documents",
        "AWS_SECRET_ACCESS_KEY=…": "AWS_SECRET_ACCESS_KEY=documents-secret",
    }
    script = []
    for line in lines:
        for written, real in here.items():
            line = line.replace(written, real)  # noqa: PLW2901 - one line, several places
        script.append(line)
    said = run(script, {**place, "REFLOAT_PASSWORD": ""}, tmp_path / "reader")
    assert "+ refloat recover shop --to-namespace shop-copy --yes" in said
    cluster = Cluster.open(kubeconfig=place["KUBECONFIG"])
    assert Shop(cluster, "shop-copy").orders() == Shop(cluster).orders()


@pytest.mark.lane("restic")
def test_users_page(place: dict[str, str], tmp_path: Path) -> None:
    """Every command of the page for users in the order of the page, its document as shop.yaml beside them."""
    folder = tmp_path / "reader"
    folder.mkdir()
    (document,) = [text for text in blocks("docs/users.md", "yaml") if "kind: Application" in text]
    (folder / "shop.yaml").write_text(document)
    said = run(commands("docs/users.md"), place, folder)
    assert "recovery-point.json" in said
    for text in blocks("docs/users.md", "python"):
        run([f"{sys.executable} - <<'END'\n{text}\nEND"], place, folder)


def test_doors_in_the_documents_exist() -> None:
    """`make WORD` in any document is a door of the Makefile."""
    doors = set(re.findall(r"^([a-z0-9-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in ("README.md", "CONTRIBUTING.md", "docs/users.md", "docs/developers.md", "tests/e2e/README.md"):
        assert set(re.findall(r"\bmake ([a-z0-9-]+)`", (ROOT / document).read_text())) <= doors, document
    assert {line.split()[1] for line in commands("README.md") if line.startswith("make ")} <= doors


def test_the_table_of_errors_is_the_tree() -> None:
    """Every code is in the table of the page for users, in the row of its exit code, and no other."""
    rows = {}
    for line in (ROOT / "docs/users.md").read_text().splitlines():
        if found := re.match(r"\| *([\d–]+) *\| (.*?) \|", line):
            first, _, last = found[1].partition("–")
            for code in re.findall(r"[A-Z][A-Z-]+[A-Z]", found[2]):
                rows[code] = range(int(first), int(last or first) + 1)
    assert rows.keys() == {cls.code for cls in tree()}
    assert not [cls.code for cls in tree() if cls.exit_code not in rows[cls.code]]


def test_links_lead_somewhere() -> None:
    """Relative links of every document name files of this checkout."""
    documents = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("deployments/**/*.md"),
        *ROOT.glob("tests/**/*.md"),
    ]
    for document in documents:
        for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / link).exists(), f"{document}: {link}"
