"""A mover's log: progress as it comes, and the last words of one that died. Never the result."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any

from kube.cluster import Cluster
from kube.home import HOME
from kube.mover_job import CONTAINER
from refloat.clock import pause
from refloat.errors import ObjectMissing, RefloatError
from refloat.transfer import Progress

RESUMED_AFTER = timedelta(seconds=1)
READ_WITHIN = timedelta(seconds=5)
"""How long the rest of a log may take once its container has ended."""
KEPT_LINES, KEPT_LETTERS = 4, 600


class MoverLog:
    """Follows one pod's log on a thread of its own; a connection that breaks is made anew, and harms nothing."""

    def __init__(self, cluster: Cluster, on_progress: Callable[[Progress], None], secrets: Iterable[str]) -> None:
        self._cluster, self._on_progress = cluster, on_progress
        self._secrets = sorted({each for each in secrets if len(each) > 3}, key=len, reverse=True)
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._furthest = (-1, -1, False)
        self._words: tuple[str, ...] = ()

    def look(self, pod: Mapping[str, Any]) -> None:
        """Begin to follow once the container has started."""
        states = [each.get("state") or {} for each in (pod.get("status") or {}).get("containerStatuses") or []]
        if self._thread is None and any("running" in state or "terminated" in state for state in states):
            name = pod["metadata"]["name"]
            self._thread = threading.Thread(target=self._follow, args=(name,), name=f"log {name}", daemon=True)
            self._thread.start()

    def leave(self) -> None:
        """Nobody listens any more."""
        self._ended.set()

    def end(self) -> None:
        """The container has ended: read what is left, within its time."""
        self.leave()
        if self._thread is not None:
            self._thread.join(READ_WITHIN.total_seconds())

    @property
    def last_words(self) -> str:
        """The last lines that were no progress, without secrets."""
        text = " | ".join(self._words)[-KEPT_LETTERS:]
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _follow(self, pod: str) -> None:
        while True:
            is_last = self._ended.is_set()  # read from its beginning after the end, a log is whole
            self._words = ()
            try:
                for line in self._cluster.log_lines(HOME, pod, CONTAINER):
                    self._hear(line)
            except ObjectMissing:
                return
            except RefloatError:
                pass  # asked again below
            if is_last:
                return
            pause(RESUMED_AFTER, until=self._ended)

    def _hear(self, line: str) -> None:
        try:
            progress = Progress.model_validate_json(line)
        except ValueError:
            if line.strip():
                self._words = (*self._words, line.strip())[-KEPT_LINES:]
            return
        reached = (progress.bytes_done, progress.files_done, progress.is_last)
        if reached > self._furthest:  # a log read again begins at its beginning
            self._furthest = reached
            self._on_progress(progress)
