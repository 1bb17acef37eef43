"""The error boundary: how a failure is told to people and scripts, and which exit code it becomes."""

from __future__ import annotations

import json
import os
import re
import threading
import traceback
from collections.abc import Iterator, Sequence

import typer

from blocks.redaction import redacted
from deployments.server import home
from refloat.clock import now
from refloat.errors import RefloatError

ISSUES = "https://github.com/refloat/refloat/issues"
_JSON = re.compile(r"(?:^| )(?:-o|--output)[ =]?json(?: |$)")
prefect_is_gone = threading.Event()
"""Set when a run's Prefect server went away: what is still to be told to it is not waited for at the end."""
_VERBOSE = ("--verbose", "-v")


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for JSON, also when it cannot be parsed otherwise."""
    return bool(_JSON.search(" ".join(arguments)))


def wants_all(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for the whole cause."""
    return any(word in arguments for word in _VERBOSE)


def tell(error: RefloatError, *, as_json: bool = False, verbose: bool = False) -> int:
    """Say what failed, why and what to do on standard error; returns the exit code.

    With ``as_json`` standard output gets one JSON object besides: ``{"error": {code, message, because, guidance,
    context, retry, exit_code}}``. Scripts find exactly one JSON value there whatever happens.
    """
    because = [*reasons(error), *(causes(error) if verbose else ())]
    lines = [f"error {error.code}: {error.message}"]
    lines += [f"  because   {each}" for each in because]
    lines += [f"  do        {error.guidance}"]
    typer.echo(redacted("\n".join(lines)), err=True)
    if as_json:
        whole = {**error.as_json(), "because": because}
        typer.echo(redacted(json.dumps({"error": whole}, indent=2)))
    return error.exit_code


def reasons(error: BaseException) -> list[str]:
    """What was noted on the error on its way up."""
    return [str(note) for note in getattr(error, "__notes__", ())]


def causes(error: BaseException) -> Iterator[str]:
    """The chain behind an error, nearest first, each in one line."""
    cause, seen = error.__cause__, set[int]()
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield f"{type(cause).__name__}: {' '.join(str(cause).split())[:500]}"
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def tell_bug(bug: Exception, *, as_json: bool = False, verbose: bool = False) -> int:
    """Say that refloat itself is wrong, and keep the traceback where it can be sent from; exit code 1."""
    trace = redacted("".join(traceback.format_exception(bug)))
    if verbose:
        typer.echo(trace, err=True)
    error = RefloatError(
        f"a bug in refloat: {type(bug).__name__}: {' '.join(str(bug).split())[:300]}",
        guidance=f"Please report it at {ISSUES} with {keep(trace)}.",
    )
    return tell(error, as_json=as_json)


def keep(trace: str) -> str:
    """Write a traceback into refloat's folder, readable by its owner only; returns how to name it."""
    try:
        home().mkdir(parents=True, exist_ok=True, mode=0o700)
        path = home() / f"bug-{now():%Y%m%dT%H%M%S}-{os.getpid()}.txt"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(trace)
    except OSError:
        return "the output of the same command with --verbose"
    return str(path)
