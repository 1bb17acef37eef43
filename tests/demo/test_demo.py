"""`refloat demo`, as a newcomer runs it: it ends well, says what it does, and leaves a vault stock restic opens."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.demo import compare
from refloat.errors import IntegrityError
from tests.tools import restic

PROGRAM = Path(sys.executable).with_name("refloat")
TAKEN_OUT = re.compile(r"REFLOAT_|PREFECT_|KUBECONFIG")


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment in which nothing is set up, and a Prefect server that goes with it."""
    kept = {name: value for name, value in os.environ.items() if not TAKEN_OUT.match(name)}
    environment = {**kept, "REFLOAT_HOME": str(tmp_path_factory.mktemp("home"))}
    yield environment
    subprocess.run([PROGRAM, "server", "stop"], env=environment, check=True, capture_output=True)


def demo(place: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The demo in its default folder."""
    place.mkdir(exist_ok=True)
    return subprocess.run(
        [PROGRAM, "demo"], cwd=place, env=environment, text=True, capture_output=True, check=False, timeout=240
    )


@pytest.fixture(scope="module")
def shown(newcomer: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The first demo's folder and what it said."""
    place = tmp_path_factory.mktemp("place")
    done = demo(place, newcomer)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    return place, done.stdout


def test_it_protects_destroys_recovers_and_compares(shown: tuple[Path, str]) -> None:
    """Its own words, in this order; the numbers are those of the shop."""
    _, said = shown
    parts = ("refloat demo:", "500 orders placed", "sealed", "deleted", "recover  ", "500 orders before, 500 after")
    places = [said.index(part) for part in parts]
    assert places == sorted(places)
    assert "12 objects of 12 identical; 13 files, identical" in said


@pytest.mark.lane("restic")
def test_stock_restic_opens_what_it_leaves(shown: tuple[Path, str]) -> None:
    """The last command it prints works as printed, and every byte of the vault is what it says."""
    place, said = shown
    (line,) = re.findall(r"^  (restic -r .* snapshots)$", said, re.MULTILINE)
    program = Path(restic.needed())
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    listed = subprocess.run(line, shell=True, cwd=place, env=environment, text=True, capture_output=True, check=False)
    assert listed.returncode == 0, listed.stderr
    assert "1 snapshots" in listed.stdout
    password = (place / "demo" / "password").read_text().strip()
    assert "no errors were found" in restic.restic(str(place / "demo" / "vault"), password, "check", "--read-data")


def test_nothing_else_is_left(shown: tuple[Path, str]) -> None:
    """The range's volumes and processes are gone; the password is for its owner alone."""
    place, _ = shown
    assert sorted(path.name for path in (place / "demo").iterdir()) == [".refloat-demo", "password", "vault"]
    assert (place / "demo" / "password").stat().st_mode & 0o777 == 0o600
    mine = str(place).encode()
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [line for line in lines if mine in line]


def test_run_again_it_begins_anew(shown: tuple[Path, str], newcomer: dict[str, str]) -> None:
    """An earlier demo's folder is replaced."""
    place, _ = shown
    before = (place / "demo" / "password").read_text()
    done = demo(place, newcomer)
    assert done.returncode == 0, done.stderr
    assert (place / "demo" / "password").read_text() != before


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path, newcomer: dict[str, str]) -> None:
    """A folder named demo that no demo made is refused by name, and keeps what it holds."""
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "thesis.tex").write_text("years of work")
    done = demo(tmp_path, newcomer)
    assert (done.returncode, "error CONFIG:" in done.stderr) == (10, True)
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["thesis.tex"]


def test_a_difference_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """The comparison can fail: a lost order, a changed and a missing object are named."""
    shop = {"orders": 500, "journal": 500, "files": 13, "digest": "a"}
    before = {"objects": {"objects/x.json": b"1", "objects/y.json": b"2"}, "shop": shop}
    after = {"objects": {"objects/x.json": b"3"}, "shop": {**shop, "orders": 499}}
    with pytest.raises(IntegrityError):
        compare(before, after)
    said = capsys.readouterr().out
    assert "changed: objects/x.json" in said
    assert "missing: objects/y.json" in said
    assert "499 after" in said
