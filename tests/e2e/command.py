"""The `refloat` command as a user runs it: a process of its own, judged by exit code, output and time."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = Path(sys.executable).with_name("refloat")
LIMIT_SECONDS = 900
ERROR = re.compile(r"^error ([A-Z][A-Z-]*):", re.MULTILINE)
TAKEN_OUT = re.compile(r"^(KUBECONFIG|PREFECT_.*|REFLOAT_.*)$")


@dataclass(frozen=True)
class Outcome:
    """How one command ended."""

    words: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def error_code(self) -> str | None:
        """The code of the error it named on standard error; None when it named none."""
        found = ERROR.search(self.stderr)
        return found[1] if found else None

    @property
    def json(self) -> Any:
        """Standard output as JSON, for commands run with ``-o json``."""
        return json.loads(self.stdout)

    def __str__(self) -> str:
        return f"$ refloat {' '.join(self.words)}\n{self.stdout}{self.stderr}exit status {self.exit_code}"


class Refloat:
    """Runs commands in one environment: the store's credentials, the mover's image, a private home."""

    def __init__(self, environment: Mapping[str, str], took: dict[str, float]) -> None:
        kept = {name: value for name, value in os.environ.items() if not TAKEN_OUT.match(name)}
        self.environment, self.took = {**kept, **environment}, took

    def with_environment(self, **changed: str | None) -> Refloat:
        """The same, with some variables set, and those given as None taken out."""
        other = Refloat({}, self.took)
        merged: dict[str, str | None] = {**self.environment, **changed}
        other.environment = {name: value for name, value in merged.items() if value is not None}
        return other

    def __call__(self, *words: object, phase: str = "") -> Outcome:
        """Run it to its end, whatever that is."""
        started, process = time.monotonic(), self.start(*words)
        try:
            stdout, stderr = process.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            stdout, stderr = process.communicate()
            stderr += f"\nthe test's limit of {LIMIT_SECONDS} s ended it"
        outcome = Outcome(
            tuple(map(str, words)), process.returncode, stdout, stderr, round(time.monotonic() - started, 2)
        )
        if phase:
            self.took[phase] = outcome.seconds
        print(outcome)
        return outcome

    def start(self, *words: object) -> subprocess.Popen[str]:
        """Begin it in a process group of its own, with no terminal."""
        return subprocess.Popen(
            [str(PROGRAM), *map(str, words)], env=self.environment, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def done(self, *words: object, phase: str = "") -> Outcome:
        """Run it; it must succeed."""
        outcome = self(*words, phase=phase)
        assert outcome.exit_code == 0, str(outcome)
        return outcome
