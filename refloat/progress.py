"""What a run tells while it works: typed events, sent to whoever listens (command line, Prefect run, notebook)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from refloat.transfer import Progress


@dataclass(frozen=True)
class Event:
    """One line of a run's story. ``step`` is the step's name; ``text`` is for people and holds no secret."""

    step: str
    kind: Literal["started", "note", "warning", "moved", "finished", "failed"]
    text: str = ""
    progress: Progress | None = field(default=None)


Listener = Callable[[Event], None]
_listeners: list[Listener] = []
_guard = threading.Lock()


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send every event of this process to ``listener`` while the block runs."""
    with _guard:
        _listeners.append(listener)
    try:
        yield
    finally:
        with _guard:
            _listeners.remove(listener)


def emit(event: Event) -> None:
    """Tell all listeners; safe from any thread. A listener must not raise and must be quick."""
    with _guard:
        listeners = tuple(_listeners)
    for listener in listeners:
        listener(event)
