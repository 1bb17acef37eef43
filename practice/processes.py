"""Local processes in groups of their own: started, signalled, and never left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_WARDEN = Path(__file__).with_name("warden.py")
_LOOK_SECONDS = 0.2
Files = tuple[int, int, int]
"""Descriptors (or ``subprocess.DEVNULL``) for standard input, output and error."""


class Processes:
    """Starts process groups and tells the warden, which kills them if this process dies."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reapers: set[threading.Thread] = set()
        self._warden = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_WARDEN)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )

    def _tell(self, sign: str, group: int) -> None:
        with self._lock, contextlib.suppress(OSError, ValueError):
            pipe = self._warden.stdin
            if pipe is not None:
                pipe.write(f"{sign} {group}\n")
                pipe.flush()

    def start(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: Path,
        files: Files,
        ended: Callable[[int], None],
        *,
        ends_group: bool,
    ) -> int:
        """Start a group; ``ended`` gets its leader's exit code (128 + n for signal n). Returns the group's id.

        ``ends_group``: the rest of the group is killed with its leader, as a container's processes are.

        Raises:
            OSError: The program does not exist or may not be run.
        """
        started = subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd=cwd,
            stdin=files[0],
            stdout=files[1],
            stderr=files[2],
            start_new_session=True,
        )
        self._tell("+", started.pid)

        def reap() -> None:
            code = started.wait()
            if ends_group:
                send(started.pid, signal.SIGKILL)
            ended(128 - code if code < 0 else code)
            while is_alive(started.pid):
                time.sleep(_LOOK_SECONDS)
            self._tell("-", started.pid)
            self._reapers.discard(threading.current_thread())

        reaper = threading.Thread(target=reap, name=f"reap-{started.pid}", daemon=True)
        self._reapers.add(reaper)
        reaper.start()
        return started.pid

    def run(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path, timeout_seconds: float) -> int | None:
        """Run a command to its end, output thrown away; None: it was killed because it took too long.

        Raises:
            OSError: As `start`.
        """
        over, codes, nothing = threading.Event(), list[int](), subprocess.DEVNULL

        def ended(code: int) -> None:
            codes.append(code)
            over.set()

        group = self.start(argv, env, cwd, (nothing, nothing, nothing), ended, ends_group=True)
        if over.wait(timeout_seconds):
            return codes[0]
        send(group, signal.SIGKILL)
        return None

    def close(self) -> None:
        """End every group still known, by closing the warden's pipe, and wait until all are reaped."""
        with self._lock, contextlib.suppress(OSError):
            if self._warden.stdin is not None:
                self._warden.stdin.close()
        self._warden.wait(timeout=10)
        for reaper in list(self._reapers):
            reaper.join(timeout=10)


def send(group: int, number: signal.Signals) -> None:
    """Signal a whole group; one that is over is fine."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def ask(leader: int) -> None:
    """SIGTERM to the first process of a group alone, as a container's first process gets it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(leader, signal.SIGTERM)


def is_alive(group: int) -> bool:
    """Whether the group has a member that is more than a zombie nobody collects (proc(5) stat: state, ppid, pgrp)."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    stats = list(Path("/proc").glob("[0-9]*/stat"))
    for stat in stats:
        with contextlib.suppress(OSError, ValueError):
            state, _, of = stat.read_text().rpartition(") ")[2].split()[:3]
            if int(of) == group and state not in "ZX":
                return True
    return not stats
