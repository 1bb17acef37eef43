"""The folders of the images: made of the sources as they are, and enough for a Python that has nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from refloat.transfer import MoverSpec, parse_result

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "deployments/images"
MADE = "REFLOAT_TEST_MOVER_APP"
JANITOR = "REFLOAT_TEST_JANITOR_APP"


def made(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [IMAGES / "rootfs", *words],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    """It is replaced only if it is one of refloat's; nothing is fetched before that is known."""
    (tmp_path / "thesis.txt").write_text("years of work")
    done = made("mover", tmp_path)
    assert done.returncode == 1 and "left alone" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert made("mover").returncode == made("mouse", tmp_path).returncode == 2


@pytest.mark.parametrize("image", ["mover", "janitor"])
def test_the_dockerfile_copies_what_is_there(image: str) -> None:
    """Every source of a COPY exists, and what ``rootfs`` takes for this image is copied."""
    dockerfile, script = (IMAGES / f"{image}.Dockerfile").read_text(), (IMAGES / "rootfs").read_text()
    common, _, parts = script.partition("case $1 in")
    script = common + parts.partition(f"{image})")[2].partition(";;")[0]
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile, re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert all((ROOT / source).exists() for source in copied)
    taken = {name for group in re.findall(r'"\$root"/\{([^}]*)\}', script) for name in group.split(",")}
    assert {*taken, "constraints.txt", *(["providers"] if image == "mover" else [])} - {"__init__.py"} <= {
        *copied,
        "object_stores",
    }


@pytest.fixture
def app() -> Path:
    """The folder that deployments/images/rootfs made for this run."""
    path = os.environ.get(MADE, "")
    if not path:
        pytest.skip(f"NOT RUN: {MADE} names no folder made by deployments/images/rootfs (it needs a package index)")
    return Path(path)


@pytest.mark.lane("mover-app")
def test_it_holds_the_sources_as_they_are_and_no_more(app: Path) -> None:
    """Not an older build's, and nothing of the cluster's side."""
    for package in ("refloat", "vault", "providers/object_stores"):
        for source in (ROOT / package).rglob("*.py"):
            copy = app / source.relative_to(ROOT)
            assert copy.read_bytes() == source.read_bytes(), f"{copy} is not as in the sources"
    absent = (
        "kube",
        "practice",
        "tasks",
        "flows",
        "cli",
        "blocks",
        "prefect",
        "kubernetes",
        "pip",
        "providers/snapshotters",
    )
    assert not [name for name in absent if (app / name).exists()]


@pytest.mark.lane("mover-app")
def test_a_python_without_packages_can_be_a_mover(app: Path, tmp_path: Path) -> None:
    """As the Job runs it: a clean environment, the folder as working directory, a vault that is not there."""
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    (tmp_path / "volume").mkdir()
    spec = MoverSpec(action="archive", run="r1", volume="shop/data", vault_url=f"file://{tmp_path}/none")
    command = [bare / "bin/python", "-m", "vault", "--spec", spec.model_dump_json()]
    done = subprocess.run(
        [*command, "--path", tmp_path / "volume", "--result", tmp_path / "result"],
        cwd=app,
        env={"PATH": os.environ["PATH"], "REFLOAT_PASSWORD": "a password"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    result = parse_result((tmp_path / "result").read_text())
    assert result is not None and result.error is not None, done.stderr
    assert result.error["code"] == "VAULT-MISSING"
    assert done.returncode == result.error["exit_code"]


@pytest.mark.lane("janitor-app")
def test_a_python_without_packages_can_be_a_janitor(tmp_path: Path) -> None:
    """It holds no vault, no Prefect and no client of a store, and misses nothing but a cluster."""
    path = os.environ.get(JANITOR, "")
    if not path:
        pytest.skip(f"NOT RUN: {JANITOR} names no folder made by deployments/images/rootfs (it needs a package index)")
    assert not [name for name in ("vault", "providers", "prefect", "boto3", "cli") if (Path(path) / name).exists()]
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    done = subprocess.run(
        [bare / "bin/python", "-m", "kube.janitor"],
        cwd=path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "no usable kubeconfig" in done.stdout, done.stderr
    assert done.returncode != 0
