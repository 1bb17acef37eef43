"""The `refloat` command as tests run it: in this process where no flow runs, else as a process of its own."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cli.main import main

PROGRAM = Path(sys.executable).with_name("refloat")
LIMIT_SECONDS = 120
ERROR = re.compile(r"^error ([A-Z][A-Z-]*): (.*)$", re.MULTILINE)
TAKEN_OUT = re.compile(r"^(KUBECONFIG|PREFECT_.*|REFLOAT_.*|AWS_.*)$")


@dataclass(frozen=True)
class Outcome:
    """How one command ended."""

    words: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str

    @property
    def error_code(self) -> str | None:
        """The code of the error named on standard error; None when none is."""
        found = ERROR.search(self.stderr)
        return found[1] if found else None

    @property
    def json(self) -> Any:
        """Standard output as one JSON value."""
        return json.loads(self.stdout)

    def done(self) -> Outcome:
        """Itself; it must have succeeded."""
        assert self.exit_code == 0, str(self)
        return self

    def __str__(self) -> str:
        return f"$ refloat {' '.join(self.words)}\n{self.stdout}{self.stderr}exit status {self.exit_code}"


class InProcess:
    """Runs commands that need no Prefect in this process."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *words: object) -> Outcome:
        self._capture.readouterr()
        texts = tuple(map(str, words))
        exit_code = main(texts)
        return Outcome(texts, exit_code, *self._capture.readouterr())


class Program:
    """Runs commands as processes in one environment, with no terminal."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        kept = {name: value for name, value in os.environ.items() if not TAKEN_OUT.match(name)}
        self.environment = {**kept, **environment}

    def __call__(self, *words: object, **environment: str) -> Outcome:
        process = self.start(*words, **environment)
        try:
            stdout, stderr = process.communicate(timeout=LIMIT_SECONDS)
        finally:
            process.kill()
        return Outcome(tuple(map(str, words)), process.returncode, stdout, stderr)

    def start(self, *words: object, **environment: str) -> subprocess.Popen[str]:
        """Begin a command in a process group of its own."""
        return subprocess.Popen(
            [str(PROGRAM), *map(str, words)], env={**self.environment, **environment}, text=True,
            start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip


def on_terminal(program: Program, *words: object, answer: str) -> tuple[int, str]:
    """Run a command on a terminal of its own, type ``answer`` when it asks; its exit code and all it showed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [str(PROGRAM), *map(str, words)], env={**program.environment, "TERM": "xterm", "COLUMNS": "160"},
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    shown, asked = b"", False
    try:
        with suppress(OSError):  # the terminal closes when the command ends
            while piece := os.read(ours, 1 << 16):
                shown += piece
                if not asked and b"[y/N]" in shown:
                    os.write(ours, answer.encode() + b"\n")
                    asked = True
        return process.wait(LIMIT_SECONDS), shown.decode(errors="replace")
    finally:
        process.kill()
        os.close(ours)
