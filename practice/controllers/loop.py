"""The one thread on which every controller works: events in, keys out, each reconciled until it is content."""

from __future__ import annotations

import heapq
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from practice.refusal import Refusal
from practice.store import Event, Store

_LOG = logging.getLogger("practice")
_RETRY_SECONDS = 0.2
Key = tuple[str, ...]


class Controller(Protocol):
    """Level-triggered: `keys` says what an event concerns, `reconcile` looks at the present and acts."""

    def keys(self, event: Event) -> Iterable[Key]:
        """What to look at after this event."""
        ...

    def reconcile(self, key: Key) -> float | None:
        """Bring one key nearer to what is wanted; the seconds after which to look again, or None."""
        ...


class Loop:
    """Runs controllers on one thread; a refusal or a missing thing is tried again a little later."""

    def __init__(self, store: Store) -> None:
        self._events: queue.SimpleQueue[Event | Callable[[], None] | None] = queue.SimpleQueue()
        self._due: list[tuple[float, int, Controller, Key]] = []
        self._waiting: dict[tuple[int, Key], float] = {}
        self._order = itertools.count()
        self._controllers: list[Controller] = []
        self._thread = threading.Thread(target=self._run, name="practice-controllers", daemon=True)
        store.listen(self._events.put)

    def start(self, controllers: list[Controller]) -> None:
        """Begin; events published since the loop was made are not lost."""
        self._controllers = controllers
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._events.put(None)
        self._thread.join(timeout=10)

    def call(self, act: Callable[[], None]) -> None:
        """Run ``act`` on the controllers' thread, soon; callable from any thread."""
        self._events.put(act)

    def schedule(self, controller: Controller, key: Key, seconds: float = 0.0) -> None:
        """Look at a key after ``seconds``; only from the controllers' thread."""
        at, known = time.monotonic() + seconds, self._waiting.get((id(controller), key))
        if known is None or at < known:
            self._waiting[id(controller), key] = at
            heapq.heappush(self._due, (at, next(self._order), controller, key))

    def _run(self) -> None:
        while True:
            wait = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
            try:
                event = self._events.get(timeout=wait) if wait != 0.0 else self._events.get_nowait()
            except queue.Empty:
                self._reconcile_next()
                continue
            if event is None:
                return
            if not isinstance(event, Event):
                event()
                continue
            for controller in self._controllers:
                for key in controller.keys(event):
                    self.schedule(controller, key)

    def _reconcile_next(self) -> None:
        if not self._due or self._due[0][0] > time.monotonic():
            return
        at, _, controller, key = heapq.heappop(self._due)
        if self._waiting.get((id(controller), key)) != at:
            return
        del self._waiting[id(controller), key]
        again: float | None
        try:
            again = controller.reconcile(key)
        except Refusal as refusal:
            _LOG.debug("%s %s: %s", type(controller).__name__, key, refusal)
            again = _RETRY_SECONDS
        except Exception:  # noqa: BLE001  one object's fault must not stop every controller
            _LOG.exception("%s %s", type(controller).__name__, key)
            again = _RETRY_SECONDS
        if again is not None:
            self.schedule(controller, key, again)
