"""Local processes in groups of their own: started, signalled, and never left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

_WARDEN = Path(__file__).with_name("warden.py")


class Processes:
    """Starts process groups and tells the warden, which kills them if this process dies."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._warden = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_WARDEN)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )

    def keep(self, group: int) -> None:
        """Have the warden end this group should the range die."""
        self._tell(f"+ {group}\n")

    def drop(self, group: int) -> None:
        """The group is over: its number may soon be another's."""
        self._tell(f"- {group}\n")

    def _tell(self, line: str) -> None:
        with self._lock, contextlib.suppress(OSError, ValueError):
            pipe = self._warden.stdin
            if pipe is not None:
                pipe.write(line)
                pipe.flush()

    def start(
        self, argv: Sequence[str], env: Mapping[str, str], cwd: Path, log: IO[bytes], ended: Callable[[int], None]
    ) -> int:
        """Start a group with output to ``log``; ``ended`` gets the exit code (128 + n for signal n). Returns its id.

        Raises:
            OSError: The program does not exist or may not be run.
        """
        started = subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.keep(started.pid)

        def reap() -> None:
            code = started.wait()
            send(started.pid, signal.SIGKILL)
            self.drop(started.pid)
            ended(128 - code if code < 0 else code)

        threading.Thread(target=reap, name=f"reap-{started.pid}", daemon=True).start()
        return started.pid

    def close(self) -> None:
        """End every group still known, by closing the warden's pipe."""
        with self._lock, contextlib.suppress(OSError):
            if self._warden.stdin is not None:
                self._warden.stdin.close()
        self._warden.wait(timeout=10)


def send(group: int, number: signal.Signals) -> None:
    """Signal a whole group; one that is over is fine."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
