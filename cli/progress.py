"""A run's progress as people see it: live bars on a terminal, a few plain lines elsewhere, nothing in between."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING

from cli.output import console, remark, size
from refloat.clock import monotonic_seconds
from refloat.progress import Event, listening
from refloat.transfer import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

WIDTH = 18
QUIET_STEPS = {"choose", "plan", "report", "verify", "sweep", "lock"}
"""Steps whose notes are told with ``--verbose`` only: the result says the same."""
PLAIN_EVERY = timedelta(seconds=30)


@contextmanager
def showing(*, verbose: bool) -> Iterator[None]:
    """Show this process's runs on standard error while the block runs."""
    bars = _bars() if sys.stderr.isatty() else None
    with bars or nullcontext(), listening(Teller(bars, verbose=verbose).hear):
        yield


def _bars() -> Bars:
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn(f"{{task.fields[step]:<{WIDTH}}}{{task.description}}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("{task.fields[files]} files"),
    )
    return Bars(*columns, console=console(stderr=True))


class Teller:
    """Listens to one run; callable from several threads."""

    def __init__(self, bars: Bars | None, *, verbose: bool) -> None:
        self._bars, self._verbose = bars, verbose
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, float] = {}
        self._guard = threading.Lock()

    def hear(self, event: Event) -> None:
        """Tell one event, or keep it to oneself."""
        with self._guard:
            if event.progress is not None:
                self._moved(event.step, event.progress)
            elif event.kind == "warning":
                self._line(event.step, f"warning: {event.text}")
            elif event.kind == "note" and (self._verbose or event.step not in QUIET_STEPS):
                self._line(event.step, event.text)
            elif self._verbose and event.kind in ("started", "finished", "failed"):
                self._line(event.step, event.kind)

    def _line(self, step: str, text: str) -> None:
        line = f"{step:<{WIDTH}}{text}"
        if self._bars is not None:
            self._bars.console.print(line)
        else:
            remark(line)

    def _moved(self, step: str, progress: Progress) -> None:
        if self._bars is None:
            self._plainly(step, progress)
            return
        if progress.volume not in self._tasks:
            self._tasks[progress.volume] = self._bars.add_task(progress.volume, step=step, files=0, total=None)
        self._bars.update(
            self._tasks[progress.volume],
            completed=progress.bytes_done,
            total=progress.bytes_done if progress.is_last else progress.bytes_total,
            files=progress.files_done,
        )

    def _plainly(self, step: str, progress: Progress) -> None:
        said, at = self._said.get(progress.volume), monotonic_seconds()
        if said is None or progress.is_last:
            self._said[progress.volume] = at
            return  # the step itself says how it begins and ends
        if at - said < PLAIN_EVERY.total_seconds():
            return
        self._said[progress.volume] = at
        total = f" of {size(progress.bytes_total)}" if progress.bytes_total else ""
        rate = f", {size(progress.bytes_per_second)}/s"
        self._line(step, f"{progress.volume}: {size(progress.bytes_done)}{total}, {progress.files_done} files{rate}")
