"""The mover as its Job runs it: a process that takes a spec, tells its progress, and leaves a typed result."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from refloat.errors import (
    AccessDenied,
    ConfigError,
    IntegrityError,
    Interrupted,
    InvalidDocument,
    MissingKey,
    RefloatError,
    UnknownProvider,
    VaultMissing,
    WrongKey,
)
from refloat.transfer import MoverResult, MoverSpec, Progress, parse_result
from tests.tools.restic import find, restic
from tests.vault.given import MIB, PASSWORD, facts, protect, put_oddities, reopened
from vault.catalogue import points
from vault.repository import OpenVault
from vault.verify import verify

ROOT = Path(__file__).parents[2]
MEMORY_LIMIT_MIB = 320
"""Far below what is moved, far above what is needed: interpreter, packs being filled and stored, chunks."""


class Mover:
    """One mover process."""

    def __init__(
        self, spec: str | MoverSpec, path: Path, *, before: tuple[str, ...] = (), password: str | None = PASSWORD
    ) -> None:
        text = spec if isinstance(spec, str) else spec.model_dump_json()
        self.result_file = path.parent / f"{path.name}.result"
        self.result_file.unlink(missing_ok=True)
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        if password is not None:
            environment["REFLOAT_PASSWORD"] = password
        words = [sys.executable, "-m", "vault", "--spec", text, "--path", path, "--result", self.result_file]
        self.process = subprocess.Popen(
            [*before, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/"
        )

    def end(self) -> MoverResult:
        """Wait; its result. Every line of its output was progress, the first at once, the last one marked."""
        self.said, self.errors = self.process.communicate(timeout=120)
        self.progress = [Progress.model_validate_json(line) for line in self.said.splitlines()]
        result = parse_result(self.result_file.read_text())
        assert result is not None
        assert "Traceback" not in self.errors
        return result


def _spec(place: Path, action: str = "archive", **more: object) -> MoverSpec:
    whole = {"action": action, "run": "run", "volume": "shop/data", "vault_url": f"file://{place}"}
    return MoverSpec.model_validate({**whole, **more})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder full of oddities."""
    folder = tmp_path / "source"
    folder.mkdir()
    put_oddities(folder)
    return folder


def test_there_and_back(vault: OpenVault, place: Path, source: Path, tmp_path: Path) -> None:
    """Archive and extract by two processes, spec in a file and as text."""
    out, file = tmp_path / "out", tmp_path / "spec.json"
    out.mkdir()
    file.write_text(_spec(place).model_dump_json())
    there = Mover(str(file), source)
    stored = there.end()
    assert there.process.returncode == 0
    assert stored.error is None
    assert stored.tree
    assert stored.files == sum(1 for path in source.rglob("*") if path.is_file() and not path.is_symlink())
    assert stored.added_bytes > 0
    assert [p.is_last for p in there.progress] == [*([False] * (len(there.progress) - 1)), True]
    assert len(there.progress) >= 2
    assert (there.progress[-1].bytes_done, there.progress[-1].files_done) == (stored.data_bytes, stored.files)
    back = Mover(_spec(place, "extract", tree=stored.tree, top=stored.top), out)
    brought = back.end()
    assert back.process.returncode == 0
    assert (brought.files, brought.data_bytes) == (stored.files, stored.data_bytes)
    assert facts(out) == facts(source)
    again = Mover(_spec(place, parent=stored.tree), source).end()
    assert (again.tree, again.added_bytes) == (stored.tree, 0)


def test_a_mover_needs_neither_prefect_nor_a_cluster_client() -> None:
    """Its image holds none of them; what is imported decides how fast it starts."""
    code = (
        "import sys; sys.argv = ['vault', '--help']\n"
        "import vault.__main__, vault.mover\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"prefect", "kubernetes", "kube", "boto3", "practice", "yaml"} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("change", "password", "error"),
    [
        ({}, "another", WrongKey),
        ({}, None, MissingKey),
        ({"password_env": "NO_SUCH_VARIABLE"}, PASSWORD, MissingKey),
        ({"vault_url": "file:///nowhere/at/all"}, PASSWORD, VaultMissing),
        ({"vault_url": "gopher://hole"}, PASSWORD, UnknownProvider),
        ({"action": "extract"}, PASSWORD, InvalidDocument),
        ({"action": "extract", "tree": "ab:cd"}, PASSWORD, InvalidDocument),
        ({"parent": "../x"}, PASSWORD, InvalidDocument),
        ({"action": "extract", "tree": "ab" * 32}, PASSWORD, IntegrityError),
    ],
)  # fmt: skip
def test_every_failure_is_a_typed_result(
    vault: OpenVault,
    place: Path,
    tmp_path: Path,
    change: dict[str, object],
    password: str | None,
    error: type[RefloatError],
) -> None:
    """Its class, its exit code, one line for people, no traceback, and no password."""
    (tmp_path / "folder").mkdir()
    mover = Mover(_spec(place, **change), tmp_path / "folder", password=password)
    with pytest.raises(error):
        mover.end().raise_if_failed()
    assert mover.process.returncode == error.exit_code
    assert error.code in mover.errors
    assert PASSWORD not in mover.said + mover.errors + mover.result_file.read_text()


@pytest.mark.parametrize(
    ("spec", "error"), [("{", InvalidDocument), ('{"action": "sing"}', InvalidDocument), ("/no/such", ConfigError)]
)
def test_a_bad_spec_is_a_typed_result(tmp_path: Path, spec: str, error: type[RefloatError]) -> None:
    """It tells which field is wrong."""
    mover = Mover(spec, tmp_path)
    with pytest.raises(error):
        mover.end().raise_if_failed()
    assert mover.process.returncode == error.exit_code


def test_a_path_that_is_not_there(vault: OpenVault, place: Path, tmp_path: Path) -> None:
    """A claim that was not mounted must not become an empty copy."""
    with pytest.raises(ConfigError, match="nowhere"):
        Mover(_spec(place), tmp_path / "nowhere").end().raise_if_failed()


def test_a_result_that_cannot_be_left_is_told(vault: OpenVault, place: Path, tmp_path: Path) -> None:
    """On the error output, with an exit code; nobody could read it elsewhere."""
    (tmp_path / "folder").mkdir()
    words = ["--spec", _spec(place).model_dump_json(), "--path", tmp_path / "folder", "--result", tmp_path]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "REFLOAT_PASSWORD": PASSWORD}
    done = subprocess.run(
        [sys.executable, "-m", "vault", *words], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == ConfigError.exit_code
    assert "result cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_right_to_give_owners_it_fails(vault: OpenVault, place: Path, source: Path, tmp_path: Path) -> None:
    """Never a volume whose files belong to somebody else."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("NOT RUN: needs root and setpriv to take a right away")
    stored, out = Mover(_spec(place), source).end(), tmp_path / "out"
    out.mkdir()
    weak = Mover(_spec(place, "extract", tree=stored.tree), out, before=("setpriv", "--bounding-set", "-chown"))
    with pytest.raises(AccessDenied, match=r"(modes|link) cannot be"):
        weak.end().raise_if_failed()


def test_sigterm_ends_it_cleanly(vault: OpenVault, place: Path, tmp_path: Path) -> None:
    """In the middle of the work: Interrupted, at once; nothing to list; the next one succeeds."""
    folder = _database(tmp_path, seed=50, size_mib=128)
    mover = Mover(_spec(place), folder)
    _wait_for_packs(mover, place, 1)
    mover.process.send_signal(signal.SIGTERM)
    with pytest.raises(Interrupted):
        mover.end().raise_if_failed()
    assert mover.process.returncode == Interrupted.exit_code
    assert mover.progress[-1].is_last
    assert mover.progress[-1].bytes_done < 128 * MIB
    assert Mover(_spec(place), folder).end().error is None


def _database(place: Path, *, seed: int, size_mib: int) -> Path:
    """A folder with one file of random bytes, the same for the same seed."""
    folder = place / "db"
    folder.mkdir(exist_ok=True)
    with (folder / "heap").open("wb") as file:
        for number in range(size_mib // 8):
            file.write(random.Random(seed + number).randbytes(8 * MIB))
    return folder


def _wait_for_packs(mover: Mover, place: Path, count: int) -> None:
    """Until so many packs are stored, or the mover has ended."""
    while mover.process.poll() is None and len(list(place.glob("data/*/*"))) < count:
        pass


def test_killed_at_any_moment_it_costs_nothing_sealed(vault: OpenVault, place: Path, tmp_path: Path) -> None:
    """SIGKILL while packs are stored: the sealed point stays whole, stock restic agrees, the next one succeeds."""
    folder = tmp_path / "db"
    folder.mkdir()
    (folder / "heap").write_bytes(b"first")
    sealed = protect(vault, folder)
    killed = 0
    for more in range(4):
        _database(tmp_path, seed=100 * more, size_mib=96)
        packs = len(list(place.glob("data/*/*")))
        mover = Mover(_spec(place), folder)
        _wait_for_packs(mover, place, packs + more)
        mover.process.kill()
        mover.process.communicate(timeout=30)
        killed += mover.process.returncode == -signal.SIGKILL
    assert killed >= 3
    again = reopened(place)
    assert points(again) == [sealed]
    verify(again, sealed, level="full")
    assert Mover(_spec(place), folder).end().error is None
    if find() is not None:
        restic(str(place), PASSWORD, "check", "--read-data", "--no-lock")


def test_memory_is_bounded(vault: OpenVault, place: Path, tmp_path: Path) -> None:
    """512 MiB in one file, half of it holes, and the mover's peak is a fraction of what it moves, both ways."""
    folder, out = tmp_path / "big", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    with (folder / "sparse").open("wb") as file:
        for seed in range(8):
            file.write(random.Random(seed).randbytes(32 * MIB))
            file.seek(32 * MIB, os.SEEK_CUR)
        file.truncate(512 * MIB)
    stored, archiving = _peak_of(_spec(place), folder)
    brought, extracting = _peak_of(_spec(place, "extract", tree=stored.tree), out)
    assert stored.data_bytes == brought.data_bytes == 512 * MIB
    assert (out / "sparse").stat().st_blocks * 512 <= 257 * MIB
    print(f"peak: archive {archiving} MiB, extract {extracting} MiB")
    assert max(archiving, extracting) < MEMORY_LIMIT_MIB


def _peak_of(spec: MoverSpec, path: Path) -> tuple[MoverResult, int]:
    """A mover's result and its peak resident set in MiB, by the wait4(2) of a process that runs nothing else."""
    code = (
        "import json, resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
        "print(json.dumps(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))"
    )
    result = path.parent / "peak.result"
    words = [
        sys.executable,
        "-m",
        "vault",
        "--spec",
        spec.model_dump_json(),
        "--path",
        str(path),
        "--result",
        str(result),
    ]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "REFLOAT_PASSWORD": PASSWORD}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    found = parse_result(result.read_text())
    assert found is not None
    return found, json.loads(done.stdout) // 1024
