"""The crew: worker processes of one mover, forked before it has anything to do, each with work of its own.

Processes and not threads, since most of the time of a small file passes in the interpreter (two threads were slower
than one: ``shared/research/datapath.md`` §3.2). They share what the mover had read before they were forked, the index
above all. A worker that loses its mover ends: its pipe says so.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from refloat.clock import Deadline, pause
from refloat.errors import RefloatError, TransferFailed, from_json
from vault.heap import give_back_freed_memory

MOST_WORKERS = 16
"""Each fills a pack of its own, about 40 MiB of memory with the one on its way to the store."""
AHEAD = 4
"""Jobs that a worker knows of: what it fetches ahead while it works."""
QUIET = threading.Lock()
"""Held while workers are forked, and by any other thread while it holds something: a fork has its locks, and not it."""
PATIENCE_SECONDS = 0.5
"""How often a waiting mover looks whether it was told to end."""

Job = TypeVar("Job")
Answer = TypeVar("Answer")
Job_contra = TypeVar("Job_contra", contravariant=True)
Answer_co = TypeVar("Answer_co", covariant=True)


class Worker(Protocol[Job_contra, Answer_co]):
    """What one process does with jobs. ``begin`` may start fetching; what it returns ends the job and is called in the
    order of the jobs. ``finish`` comes after the last job, ``close`` always.
    """

    def begin(self, job: Job_contra) -> Callable[[], Answer_co]:
        """Take a job."""

    def finish(self) -> Answer_co:
        """Complete what is kept back; the last answer."""

    def close(self) -> None:
        """Let go of everything."""


class Crew(ABC, Generic[Job, Answer]):
    """Does jobs somewhere; what was given to deal with answers is called inside its methods. Not thread-safe."""

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @property
    @abstractmethod
    def lanes(self) -> int:
        """How many workers there are."""

    @abstractmethod
    def has_room(self, lane: int) -> bool:
        """Whether ``do`` would hand a job to that worker without waiting."""

    @abstractmethod
    def do(self, job: Job, done: Callable[[Answer], None], lane: int | None = None) -> None:
        """Hand over a job, to the worker of a number or to whoever has least to do; ``done`` is called with its
        answer, here or in a later call.

        Raises:
            RefloatError: What a job failed with, this or an earlier one; or a worker died.
        """

    @abstractmethod
    def wait(self) -> bool:
        """Deal with at least one answer, waiting for it; False when no job is under way.

        Raises:
            RefloatError: As ``do``.
        """

    @abstractmethod
    def finish(self, done: Callable[[Answer], None]) -> None:
        """Wait for all jobs, then let every worker complete; ``done`` gets each one's last answer.

        Raises:
            RefloatError: As ``do``.
        """


def cores() -> int:
    """Processor cores this process may use: what its affinity and its cgroup's quota allow."""
    allowed = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):  # no cgroup v2, or no quota: "max"
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        allowed = min(allowed, -(-int(quota) // int(period)))
    return max(1, allowed)


class Alone(Crew[Job, Answer]):
    """The crew of one, in this very process: for one core, and for stores that cannot be opened twice."""

    def __init__(self, worker: Worker[Job, Answer]) -> None:
        self._worker = worker

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.close()

    @property
    def lanes(self) -> int:
        return 1

    def has_room(self, lane: int) -> bool:
        return lane == 0

    def do(self, job: Job, done: Callable[[Answer], None], lane: int | None = None) -> None:  # noqa: ARG002
        done(self._worker.begin(job)())

    def wait(self) -> bool:
        return False

    def finish(self, done: Callable[[Answer], None]) -> None:
        done(self._worker.finish())


def let_threads_end() -> None:
    """Wait until every thread that has ended for Python is gone for the system, too; a second at most.

    On its way out it takes a lock of OpenSSL's (``OPENSSL_thread_stop``, crypto/initthread.c). A process that is forked
    at that moment has the lock and not the thread: the first thread of its own that hashes would wait for ever.
    """
    limit = Deadline.after(timedelta(seconds=1))
    with suppress(OSError):  # no /proc
        while len(os.listdir("/proc/self/task")) > threading.active_count() and not limit.is_over:  # noqa: PTH208
            pause(timedelta(milliseconds=1))


class _Hand:
    """One process, as the mover sees it."""

    def __init__(self, make: Callable[[], Worker[Any, Any]], others: Iterable[Connection]) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, far = context.Pipe()
        self.waiting: deque[Callable[[Any], None]] = deque()
        self.process = context.Process(target=_serve, args=(far, (self.pipe, *others), make), daemon=True)
        self.process.start()
        far.close()


class Forked(Crew[Job, Answer]):
    """Processes, one per worker. ``still`` is asked while it waits, and raises to end everything."""

    def __init__(self, make: Callable[[], Worker[Job, Answer]], workers: int, still: Callable[[], None]) -> None:
        self._still = still
        self._hands: list[_Hand] = []
        give_back_freed_memory()  # what reading the index left behind would be every worker's
        gc.freeze()  # a collection in a worker would copy every page it looks at
        try:
            with QUIET:
                let_threads_end()
                for _ in range(min(workers, MOST_WORKERS)):
                    self._hands.append(_Hand(make, [hand.pipe for hand in self._hands]))
        except OSError as error:
            self._end()
            raise TransferFailed(f"the mover cannot start its workers: {error.strerror}") from error
        finally:
            gc.unfreeze()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        for hand in self._hands:
            hand.pipe.close()
            hand.process.terminate()
        for hand in self._hands:
            hand.process.join()

    @property
    def lanes(self) -> int:
        return len(self._hands)

    def has_room(self, lane: int) -> bool:
        return len(self._hands[lane].waiting) < AHEAD

    def do(self, job: Job, done: Callable[[Answer], None], lane: int | None = None) -> None:
        while len((hand := self._choose(lane)).waiting) >= AHEAD:
            self.wait()
        self._send(hand, job, done)

    def _choose(self, lane: int | None) -> _Hand:
        return min(self._hands, key=lambda each: len(each.waiting)) if lane is None else self._hands[lane]

    def _send(self, hand: _Hand, job: Job | None, done: Callable[[Answer], None]) -> None:
        hand.waiting.append(done)
        try:
            hand.pipe.send(job)
        except OSError:
            self._receive(hand)  # what it said before it went, or that it is dead
            raise

    def wait(self) -> bool:
        busy = {id(hand.pipe): hand for hand in self._hands if hand.waiting}
        if not busy:
            return False
        self._still()
        while not (ready := connection.wait([hand.pipe for hand in busy.values()], PATIENCE_SECONDS)):
            self._still()
        for pipe in ready:
            self._receive(busy[id(pipe)])
        return True

    def _receive(self, hand: _Hand) -> None:
        try:
            answer, failure = hand.pipe.recv()
        except (EOFError, OSError) as gone:
            hand.process.join()
            raise TransferFailed(
                f"a worker of the mover was killed (exit code {hand.process.exitcode})",
                guidance="If that is -9, give the mover more memory. What was done is reused by the next run.",
            ) from gone
        if failure is not None:
            raise from_json(failure)
        hand.waiting.popleft()(answer)

    def finish(self, done: Callable[[Answer], None]) -> None:
        while self.wait():
            pass
        for hand in self._hands:
            self._send(hand, None, done)
        while self.wait():
            pass


def _serve(pipe: Connection, others: Iterable[Connection], make: Callable[[], Worker[Any, Any]]) -> None:
    """A worker's whole life."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
    for other in others:
        other.close()  # or a worker would keep its sister's pipe to a dead mover open
    gc.disable()  # jobs leave no cycles, and looking for some costs a few per cent
    worker = None
    try:
        worker = make()
        _work(pipe, worker)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the mover is gone
    except RefloatError as error:
        _say(pipe, error)
    except Exception:  # noqa: BLE001 (told to the mover, which raises it)
        _say(pipe, RefloatError(f"a worker of the mover failed unexpectedly: {traceback.format_exc()}"))
    finally:
        if worker is not None:
            worker.close()


def _say(pipe: Connection, error: RefloatError) -> None:
    with suppress(OSError):
        pipe.send((None, error.as_json()))


def _work(pipe: Connection, worker: Worker[Any, Any]) -> None:
    jobs: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_receive, args=(pipe, jobs), name="receive jobs", daemon=True).start()
    begun: deque[Callable[[], Any]] = deque()
    is_last = False
    while begun or not is_last:
        while not is_last and len(begun) < AHEAD and not (begun and jobs.empty()):
            job = jobs.get()
            if isinstance(job, EOFError):
                raise job
            is_last = job is None
            if not is_last:
                begun.append(worker.begin(job))
        if begun:
            pipe.send((begun.popleft()(), None))
    pipe.send((worker.finish(), None))


def _receive(pipe: Connection, jobs: SimpleQueue[Any]) -> None:
    """Take jobs off the pipe at once: a mover that had to wait for room in it could not take answers meanwhile."""
    job: Any = ...
    while job is not None:
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            jobs.put(EOFError("the mover is gone"))
            return
        jobs.put(job)


def crew_of(
    make: Callable[[], Worker[Job, Answer]], *, is_forkable: bool, still: Callable[[], None]
) -> Crew[Job, Answer]:
    """As many workers as there are cores; one in this process when there is one core or ``make`` must not be forked."""
    workers = cores()
    return Forked(make, workers, still) if is_forkable and workers > 1 else Alone(make())
