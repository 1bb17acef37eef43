"""Runs one program and tells what it spent: seconds, CPU seconds, and the peak memory of all its processes together."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

SAMPLE_SECONDS = 0.1
SAID_BYTES = 1500
NOTHING = Path(os.devnull)


class Failed(Exception):
    """A tool did not do what it was asked, or gave back something else than it was given."""


@dataclass(frozen=True)
class Spent:
    """What a run took: wall clock, CPU of the process and all its children, and the peak of their memory together.

    Memory is PSS, sampled: pages that several processes share are counted once. (The ``ru_maxrss`` of a child begins
    with what its parent held when it was started: getrusage(2) on Linux, so it is of no use here.)
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def run(
    words: Sequence[str | Path], environment: Mapping[str, str], *, cwd: Path | None = None, given: Path | None = None
) -> tuple[Spent, str]:
    """Run a program to its end, with the file ``given`` as standard input; what it spent, and its standard output.

    Raises:
        Failed: It ended with an error; the message holds the last that it said.
    """
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        (given or NOTHING).open("rb") as fed,
    ):
        os.sync()
        begun = monotonic()
        process = subprocess.Popen(words, env=dict(environment), cwd=cwd, stdin=fed, stdout=out, stderr=err)
        try:
            with _Watch(process.pid) as watch:
                _, status, usage = os.wait4(process.pid, 0)
        except BaseException:  # we were told to end: it must not outlive us
            process.kill()
            process.wait()
            raise
        seconds = monotonic() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        said = out.read().decode(errors="replace")
        if process.returncode:
            complaint = (err.read().decode(errors="replace") or said).strip()[-SAID_BYTES:]
            raise Failed(f"{shlex.join(map(str, words))}: exit code {process.returncode}: {complaint}")
    return Spent(seconds, usage.ru_utime + usage.ru_stime, watch.peak_bytes), said


class _Watch:
    """Samples the memory of a process and of all that it started."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch memory", daemon=True)
        self.peak_bytes = 0

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, sum(map(pss, family(self._pid))))
            if self._ended.wait(SAMPLE_SECONDS):
                return


def family(pid: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            with suppress(OSError):
                # proc_pid_stat(5): the parent is the second word after the name, which stands in brackets
                parent = int((each / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(each.name))
    found = [pid]
    for one in found:
        found.extend(children.get(one, ()))
    return found


def pss(pid: int) -> int:
    """Proportional set size in bytes (proc_pid_smaps(5)); 0 of a process that is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    return 0
