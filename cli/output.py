"""Writing results: one value as a table for people or as JSON or YAML for scripts, and small words for numbers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import typer

from blocks.redaction import redacted
from cli.flags import Form
from refloat.errors import ApprovalMissing

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 240
"""Columns of a table that no terminal bounds: nothing is cut off in a pipe or a file."""


def show(form: Form, value: Any, table: Callable[[Console], None]) -> None:
    """Write one result to standard output: ``value`` as JSON or YAML, or what ``table`` draws."""
    if form is Form.JSON:
        say(json.dumps(value, indent=2))
    elif form is Form.YAML:
        import yaml

        say(yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip())
    else:
        table(console())
        sys.stdout.flush()


def say(text: str) -> None:
    """One result line."""
    typer.echo(redacted(text))


def remark(text: str) -> None:
    """One line beside the result: on standard error, so that standard output stays the result alone."""
    typer.echo(redacted(text), err=True)


def console(*, stderr: bool = False) -> Console:
    """Where rich draws; names are shown as they are, never read as markup."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else WIDE
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False, soft_wrap=not stream.isatty())


def ask(question: str) -> None:
    """Wait for a person's yes.

    Raises:
        ApprovalMissing: There is no terminal to ask on, or the answer is no.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ApprovalMissing("nobody said yes, and there is no terminal to ask on; give --yes")
    typer.echo(f"{question} [y/N] ", err=True, nl=False)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ApprovalMissing("the answer was no; nothing was done")


def size(count: float) -> str:
    """Bytes as people say them: 12.4 MB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} PB"


def binary(count: int) -> str:
    """Bytes as claims ask for them: 2 GiB."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    power = next((p for p in range(len(units) - 1, 0, -1) if count >= 1024**p), 0)
    return f"{round(count / 1024**power, 1):g} {units[power]}"


def span(value: timedelta) -> str:
    """A duration as people say it: 0.3 s, 12 s, 4 min 2 s, 3 h 5 min, 8 d."""
    seconds = value.total_seconds()
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, size_seconds, below, below_seconds in (
        ("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1),
    ):  # fmt: skip
        if whole >= size_seconds:
            rest = whole % size_seconds // below_seconds
            return f"{whole // size_seconds} {unit}" + (f" {rest} {below}" if rest else "")
    return f"{whole} s"


def many(count: int, noun: str) -> str:
    """``1 object``, ``2 objects``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
