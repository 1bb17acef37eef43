"""How one step becomes a Prefect task: nothing cached or persisted, stated retries, its story told as events."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from refloat.errors import RefloatError, Retry
from refloat.progress import Event, emit
from refloat.transfer import Progress

MOVER_LIMIT = timedelta(hours=24)
"""A mover Job that takes longer is ended by the cluster itself."""

P = ParamSpec("P")
R = TypeVar("R")


def may_succeed_later(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    """Prefect's retry condition: only errors whose retry class says that waiting helps."""
    failure = state.result(raise_on_failure=False)
    return isinstance(failure, RefloatError) and failure.retry is not Retry.NEVER


def step(
    name: str, *, retries: int = 0, timeout_seconds: float | None = None
) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a plain function one step: a Prefect task whose start, end and failure listeners hear about.

    Steps have side effects, so nothing is cached and no result is stored: values that hold Secret data stay in
    this process. ``retries`` are spaced 2, 4, 8 … seconds with jitter, for passing faults only.
    """

    def make(function: Callable[P, R]) -> Task[P, R]:
        @functools.wraps(function)
        def told(*args: P.args, **kwargs: P.kwargs) -> R:
            emit(Event(name, "started"))
            try:
                value = function(*args, **kwargs)
            except BaseException as failure:
                emit(Event(name, "failed", getattr(failure, "message", type(failure).__name__)))
                raise
            emit(Event(name, "finished"))
            return value

        as_task = task(
            name=name,
            retries=retries,
            retry_delay_seconds=exponential_backoff(2) if retries else 0,
            retry_jitter_factor=0.5 if retries else None,
            retry_condition_fn=may_succeed_later if retries else None,
            timeout_seconds=timeout_seconds,
            cache_policy=NO_CACHE,
            persist_result=False,
            log_prints=False,
        )
        return as_task(told)

    return make


def note(name: str, text: str) -> None:
    """Say one line about the step ``name`` to whoever listens."""
    emit(Event(name, "note", text))


def warn(name: str, text: str) -> None:
    """Say one warning about the step ``name`` to whoever listens."""
    emit(Event(name, "warning", text))


def moved(name: str, progress: Progress) -> None:
    """Pass a mover's progress on to whoever listens."""
    emit(Event(name, "moved", progress.volume, progress))
