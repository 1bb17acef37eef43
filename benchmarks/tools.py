"""The tools that are measured, behind one shape: refloat's mover as a process of its own, and stock restic."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Protocol

from refloat.registry import open_object_store
from refloat.transfer import MoverResult, MoverSpec, parse_result
from tests.tools.restic import find
from vault.repository import init

PASSWORD = "benchmark"
ROOT = Path(__file__).parents[1]


class Tool(Protocol):
    """One backup tool with one repository."""

    name: str

    def prepare(self, repository: Path) -> None:
        """Make an empty repository."""

    def backup(self, source: Path) -> None:
        """Store the folder."""

    def restore(self, target: Path) -> None:
        """Bring the last backup back into an empty folder."""

    def stored_bytes(self) -> int:
        """Size of the repository."""


def size_of(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class Refloat:
    """The mover process, as its Job runs it."""

    name = "refloat"

    def prepare(self, repository: Path) -> None:
        """Make an empty vault."""
        self._repository, self._tree = repository, None
        init(open_object_store(f"file://{repository}", {}), PASSWORD).close()

    def backup(self, source: Path) -> None:
        """Archive the folder, the last tree as parent."""
        self._tree = self._move("archive", source, parent=self._tree).tree

    def restore(self, target: Path) -> None:
        """Extract the last tree."""
        target.mkdir(parents=True)
        self._move("extract", target, tree=self._tree)

    def stored_bytes(self) -> int:
        """Size of the vault."""
        return size_of(self._repository)

    def _move(self, action: str, path: Path, **trees: str | None) -> MoverResult:
        spec = MoverSpec(action=action, run="bench", volume="bench", vault_url=f"file://{self._repository}", **trees)
        place = self._repository.parent
        (place / "spec.json").write_text(spec.model_dump_json())
        words = [
            sys.executable,
            "-m",
            "vault",
            "--spec",
            place / "spec.json",
            "--path",
            path,
            "--result",
            place / "result",
        ]
        environment = {**os.environ, "REFLOAT_PASSWORD": PASSWORD, "PYTHONPATH": str(ROOT)}
        subprocess.run(words, env=environment, check=True, stdout=subprocess.DEVNULL)
        result = parse_result((place / "result").read_text())
        if result is None:
            raise SystemExit("the mover left no result")
        result.raise_if_failed()
        return result


class Restic:
    """Stock restic with its default settings and no cache."""

    name = "restic"

    def __init__(self, program: str) -> None:
        self._program = program

    @classmethod
    def find(cls) -> Restic | None:
        """The one that tests use."""
        program = find()
        return cls(program) if program else None

    def version(self) -> str:
        """Its own word."""
        return self._run("version").split(" compiled")[0]

    def prepare(self, repository: Path) -> None:
        """Make an empty repository."""
        self._repository = repository
        self._run("init")

    def backup(self, source: Path) -> None:
        """Back up the folder's content."""
        self._run("backup", ".", cwd=source)

    def restore(self, target: Path) -> None:
        """Restore the latest snapshot."""
        self._run("restore", "latest", "--target", str(target))

    def stored_bytes(self) -> int:
        """Size of the repository."""
        return size_of(self._repository)

    def _run(self, *words: str, cwd: Path | None = None) -> str:
        environment = {
            **os.environ,
            "RESTIC_PASSWORD": PASSWORD,
            "RESTIC_REPOSITORY": str(getattr(self, "_repository", "")),
        }
        done = subprocess.run(
            [self._program, "--no-cache", *words], env=environment, cwd=cwd, check=False, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"restic {json.dumps(words)}: {done.stderr}")
        return done.stdout
