"""The `refloat` command: its sub-commands, and the one place where errors become text and exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cli import (
    deploy,
    drill,
    expire,
    extract,
    failing,
    looking,
    protect,
    recover,
    server,
    sweep,
    thaw,
    vault,
    vault_adopt,
    vault_copy,
    vault_keys,
    verify,
)
from refloat import __version__
from refloat.errors import ConfigError, Interrupted, RefloatError

PIPE_CLOSED = 141
"""128 + SIGPIPE, as a shell reports it."""

app = typer.Typer(
    name="refloat",
    help="Protect a Kubernetes application, and bring it back.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"refloat {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Say the version and end.")
    ] = False,
) -> None:
    """Protect a Kubernetes application, and bring it back."""
    del version


app.command()(looking.discover)
app.command()(protect.protect)
app.command()(looking.points)
app.command()(verify.verify)
app.command()(recover.plan)
app.command()(recover.recover)
app.command()(drill.drill)
app.command()(extract.extract)
app.command()(expire.expire)
app.command()(sweep.sweep)
app.command()(thaw.thaw)
app.command()(deploy.deploy)
app.add_typer(server.app)
vault.app.command()(vault_adopt.adopt)
vault.app.command()(vault_copy.copy)
vault.app.add_typer(vault_keys.app)
app.add_typer(vault.app)


@app.command()
def demo(
    folder: Annotated[
        Path, typer.Option("--folder", metavar="FOLDER", help="Where the demo works; its vault stays there.")
    ] = Path("demo"),
) -> None:
    """Protect, lose and recover a small application.

    Needs no cluster and no cloud.
    """
    from cli.demo import run_demo

    run_demo(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns its exit code, that of the error's class where one was named."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json, verbose = failing.wants_json(words), failing.wants_all(words)
    try:
        ended = app(words or ["--help"], prog_name="refloat", standalone_mode=False)
        return ended if isinstance(ended, int) else 0
    except typer.TyperException as wrong:
        return failing.tell(usage(wrong), as_json=as_json, verbose=verbose)
    except RefloatError as error:
        return failing.tell(error, as_json=as_json, verbose=verbose)
    except (KeyboardInterrupt, typer.Abort):
        return failing.tell(Interrupted("interrupted before anything was begun"), as_json=as_json)
    except SystemExit:  # typer ends so, and only so, when whoever read standard output went away (refloat … | head)
        return PIPE_CLOSED
    except Exception as bug:  # noqa: BLE001 - the boundary: whatever is not ours is a bug
        return failing.tell_bug(bug, as_json=as_json, verbose=verbose)


def usage(wrong: typer.TyperException) -> ConfigError:
    """A command line that does not parse."""
    context = getattr(wrong, "ctx", None)
    command = context.command_path if context else "refloat"
    said = " ".join(wrong.format_message().replace("Value error, ", "").split())
    return ConfigError(f"{said[:1].lower()}{said[1:]}", guidance=f"See {command} --help.")


def program() -> None:
    """The console command. Prefect tries for two minutes to tell a server that is gone what it logged; not here."""
    code = main()
    if failing.prefect_is_gone.is_set():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    program()
