"""A run's story, told to Prefect: log lines, one progress artifact, and how long each step took."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger

from blocks.courtesy import courteously
from refloat.clock import monotonic_seconds
from refloat.progress import Event, listening
from refloat.report import StepTime
from refloat.transfer import Progress

UPDATE_EVERY_SECONDS = 3.0


class Story:
    """Listens to one run. Only mover progress calls Prefect's API, and never inside a hold."""

    def __init__(self, logger: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> None:
        self._logger = logger
        self._begun: dict[str, float] = {}
        self._took: dict[str, float] = {}
        self._volumes: dict[str, Progress] = {}
        self._artifact: UUID | None = None
        self._subject = ""
        self._updated = 0.0
        self._guard = threading.Lock()

    def hear(self, event: Event) -> None:
        """One event: kept, logged, and now and then shown as progress."""
        if event.progress is not None:
            self._moved(event.progress)
        elif event.kind == "started":
            self._begun[event.step] = monotonic_seconds()
        elif event.kind in ("finished", "failed"):
            took = monotonic_seconds() - self._begun.get(event.step, monotonic_seconds())
            self._took[event.step] = max(took, self._took.get(event.step, 0.0))
        level = {"warning": logging.WARNING, "failed": logging.ERROR, "note": logging.INFO}.get(event.kind)
        if level is not None:
            self._logger.log(level, "%s: %s", event.step, event.text)

    @property
    def steps(self) -> tuple[StepTime, ...]:
        """Every step that ended, with its time; of steps that run side by side, the longest."""
        return tuple(StepTime(step=name, duration=timedelta(seconds=took)) for name, took in self._took.items())

    def show_progress(self, description: str) -> None:
        """Begin the run's progress artifact; a Prefect server that does not answer never fails a run."""
        self._subject = description
        made = courteously(lambda: create_progress_artifact(progress=0.0, key="progress", description=description))
        self._artifact = made if isinstance(made, UUID) else None

    def _moved(self, progress: Progress) -> None:
        with self._guard:
            self._volumes[progress.volume] = progress
            due = progress.is_last or monotonic_seconds() - self._updated > UPDATE_EVERY_SECONDS
            if self._artifact is None or not due:
                return
            self._updated = monotonic_seconds()
            artifact, (share, text) = self._artifact, totals(list(self._volumes.values()))
        description = f"{self._subject}: {text}"
        courteously(lambda: update_progress_artifact(artifact, progress=share, description=description))


def totals(volumes: Sequence[Progress]) -> tuple[float, str]:
    """(percent done, bytes, files and rate in words) of all movers of a run together."""
    done = sum(each.bytes_done for each in volumes)
    total = sum(each.bytes_total or each.bytes_done for each in volumes)
    files, rate = sum(each.files_done for each in volumes), sum(each.bytes_per_second for each in volumes)
    share = min(100.0, 100.0 * done / total) if total else 100.0
    return share, f"{done:,} of {total:,} bytes, {files:,} files, {rate:,.0f} bytes/s"


@contextmanager
def telling_prefect() -> Iterator[Story]:
    """Tell the present flow run's story to Prefect while the block runs."""
    story = Story(get_run_logger())
    with listening(story.hear):
        yield story
