"""The crew: jobs answered whatever their size, failures told, deaths noticed, and nobody left behind."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from refloat.errors import Interrupted, RefloatError, StoreFull, TransferFailed
from vault.crew import AHEAD, Alone, Crew, Forked, let_threads_end

MIB = 1 << 20


class Echo:
    """Answers each job with its process and itself; ``None`` bytes, ``kill`` and ``fail`` are its misfortunes."""

    def __init__(self) -> None:
        self.kept = 0

    def begin(self, job: bytes) -> Callable[[], tuple[int, bytes]]:
        self.kept += 1
        return partial(self._answer, job)

    def _answer(self, job: bytes) -> tuple[int, bytes]:
        if job == b"kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if job == b"full":
            raise StoreFull("no room for this")
        if job == b"bug":
            raise ZeroDivisionError("a bug")
        return os.getpid(), job

    def finish(self) -> tuple[int, bytes]:
        return os.getpid(), b"%d" % self.kept

    def close(self) -> None:
        pass


def _never() -> None:
    pass


def _done(crew: Crew[bytes, tuple[int, bytes]], jobs: list[bytes]) -> list[tuple[int, bytes]]:
    answers: list[tuple[int, bytes]] = []
    with crew:
        for job in jobs:
            crew.do(job, answers.append)
        crew.finish(answers.append)
    return answers


def test_every_job_is_answered_once_and_every_worker_finishes() -> None:
    """By two processes that are not this one."""
    jobs = [b"%d" % number for number in range(100)]
    answers = _done(Forked(Echo, 2, _never), jobs)
    assert sorted(answer for _, answer in answers[:100]) == sorted(jobs)
    assert len({process for process, _ in answers} - {os.getpid()}) == 2
    assert sum(int(kept) for _, kept in answers[100:]) == 100
    assert len(answers) == 102


def test_alone_it_is_the_same_in_this_process() -> None:
    """One core, or a store that cannot be opened again."""
    answers = _done(Alone(Echo()), [b"a", b"b"])
    assert answers == [(os.getpid(), b"a"), (os.getpid(), b"b"), (os.getpid(), b"2")]


def test_jobs_and_answers_larger_than_any_pipe() -> None:
    """Neither side waits for the other to make room."""
    answers = _done(Forked(Echo, 2, _never), [bytes(MIB)] * (4 * AHEAD))
    assert [len(answer) for _, answer in answers[: 4 * AHEAD]] == [MIB] * (4 * AHEAD)


@pytest.mark.parametrize(
    ("job", "error", "says"),
    [
        (b"full", StoreFull, "no room for this"),
        (b"bug", RefloatError, "failed unexpectedly.*ZeroDivisionError"),
        (b"kill", TransferFailed, "was killed"),
    ],
)
def test_what_befalls_a_worker_befalls_the_mover(job: bytes, error: type[RefloatError], says: str) -> None:
    """As the worker's own named error; a death by signal is one too."""
    with pytest.raises(error, match=f"(?s){says}"):
        _done(Forked(Echo, 2, _never), [b"well", job, *[b"well"] * 50])


def test_a_mover_that_is_told_to_end_leaves_no_worker() -> None:
    """While it waits for answers."""
    asked = 0

    def stop() -> None:
        nonlocal asked
        asked += 1
        if asked > 3:
            raise Interrupted("told to end")

    crew: Forked[bytes, tuple[int, bytes]] = Forked(Echo, 2, stop)
    workers = [hand.process for hand in crew._hands]
    with pytest.raises(Interrupted):
        _done(crew, [b"well"] * 100)
    assert all(worker.exitcode is not None for worker in workers)


def test_who_has_ended_is_gone_before_workers_are_forked() -> None:
    """A thread on its way out may hold a lock of OpenSSL's, and a fork would keep it; Python counts it no more.

    One that Python never counted stands for it here: it sleeps in the C library, and ends.
    """
    let_threads_end()
    before = tasks()  # of libraries that have threads of their own
    library = ctypes.CDLL(None)
    thread = ctypes.c_ulong()
    sleep = ctypes.cast(library.usleep, ctypes.c_void_p)
    assert library.pthread_create(ctypes.byref(thread), None, sleep, ctypes.c_void_p(200_000)) == 0
    assert tasks() > before, "the fault did not fire"
    let_threads_end()
    assert tasks() <= before


def tasks() -> int:
    """Threads of this process that the system knows, and Python does not."""
    return len(list(Path("/proc/self/task").iterdir())) - threading.active_count()
