"""The commands `vault key …`: the passwords and key wrappers that open a vault."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import flags, given, output
from cli.drawing import draw_rows
from refloat.errors import ConfigError, MissingKey
from refloat.policy import PasswordSource

if TYPE_CHECKING:
    from rich.console import Console

    from refloat.ports.key_wrapper import KeyWrapper
    from vault.slots import KeySlot

app = typer.Typer(name="key", help="The passwords that open a vault.")

NEW_PASSWORD = "REFLOAT_NEW_PASSWORD"
NewPasswordFile = Annotated[
    str | None,
    typer.Option(
        "--new-password-file",
        metavar="FILE",
        help=f"Holds the new password; default: the variable {NEW_PASSWORD}, then a question.",
    ),
]
NewWrapper = Annotated[
    str | None,
    typer.Option("--new-wrapper", metavar="URL", help="Wraps a new random password, which is kept beside the vault."),
]
Slot = Annotated[str, typer.Argument(metavar="ID", help="A key slot's id, or how it begins.")]
Force = Annotated[bool, typer.Option("--force", help="Also the slot that this command opens the vault by.")]


@app.command("list")
def list_slots(
    vault: flags.VaultUrl = None,
    password_file: flags.PasswordFile = None,
    password_secret: flags.PasswordSecret = None,
    wrapper: flags.Wrapper = None,
    kubeconfig: flags.Kubeconfig = None,
    context: flags.Context = None,
    form: flags.Output = flags.Form.TABLE,
) -> None:
    """List the key slots of a vault.

    Oldest first; the one in use is marked.
    """
    from cli.vault import opened
    from vault.slots import slots

    vaulting = given.Vaulting(vault, password_file, password_secret, wrapper=wrapper)
    with opened(vaulting, kubeconfig, context) as found:
        listed = slots(found)
    output.show(form, [facts(slot) for slot in listed], lambda console: draw(console, listed))


@app.command("add")
def add_slot(
    new_password_file: NewPasswordFile = None,
    new_wrapper: NewWrapper = None,
    vault: flags.VaultUrl = None,
    password_file: flags.PasswordFile = None,
    password_secret: flags.PasswordSecret = None,
    wrapper: flags.Wrapper = None,
    kubeconfig: flags.Kubeconfig = None,
    context: flags.Context = None,
    form: flags.Output = flags.Form.TABLE,
) -> None:
    """Add a password, or a key wrapper, that opens the vault.

    Nothing is sealed again; stock restic opens the vault by the new password too.
    """
    from cli.vault import opened
    from vault.slots import add

    vaulting = given.Vaulting(vault, password_file, password_secret, wrapper=wrapper)
    with opened(vaulting, kubeconfig, context) as found, new_key(new_password_file, new_wrapper) as new:
        slot = add(found, new)
    output.show(form, facts(slot), lambda _: output.say(f"added key slot {slot.name[:8]} of {found.url}"))


@app.command("remove")
def remove_slot(
    slot: Slot,
    force: Force = False,
    vault: flags.VaultUrl = None,
    password_file: flags.PasswordFile = None,
    password_secret: flags.PasswordSecret = None,
    wrapper: flags.Wrapper = None,
    kubeconfig: flags.Kubeconfig = None,
    context: flags.Context = None,
    yes: flags.Yes = False,
    dry_run: flags.DryRun = False,
    form: flags.Output = flags.Form.TABLE,
) -> None:
    """Remove a key slot: its password opens the vault no more.

    Never the last one. Who once opened the vault may have kept its master key: only a copy with --new-key changes that.
    """
    from cli.vault import opened
    from vault.slots import choose, remove, slots

    vaulting = given.Vaulting(vault, password_file, password_secret, wrapper=wrapper)
    with opened(vaulting, kubeconfig, context) as found:
        listed = slots(found)
        chosen = choose(listed, slot)
        if not dry_run:
            if not yes:
                draw(output.console(stderr=True), [chosen])
                output.ask(f"remove key slot {chosen.name[:8]} of {found.url}?")
            remove(found, chosen.name, even_current=force)
    told = "would be removed" if dry_run else "removed"
    output.show(form, facts(chosen), lambda _: output.say(f"key slot {chosen.name[:8]} of {found.url} {told}"))


@app.command("rotate")
def rotate_slot(
    new_password_file: NewPasswordFile = None,
    new_wrapper: NewWrapper = None,
    vault: flags.VaultUrl = None,
    password_file: flags.PasswordFile = None,
    password_secret: flags.PasswordSecret = None,
    wrapper: flags.Wrapper = None,
    kubeconfig: flags.Kubeconfig = None,
    context: flags.Context = None,
    form: flags.Output = flags.Form.TABLE,
) -> None:
    """Replace the password, or the key wrapper, in use by another.

    The new one is proved to open the vault before the old one goes. Nothing is sealed again.
    """
    from cli.vault import opened
    from vault.slots import rotate

    vaulting = given.Vaulting(vault, password_file, password_secret, wrapper=wrapper)
    with opened(vaulting, kubeconfig, context) as found, new_key(new_password_file, new_wrapper) as new:
        old = found.slot or ""
        slot = rotate(found, new)
    output.show(
        form,
        {**facts(slot), "replaced": old},
        lambda _: output.say(f"key slot {slot.name[:8]} of {found.url} opens it now, {old[:8]} is removed"),
    )


@contextmanager
def new_key(password_file: str | None, wrapper: str | None) -> Iterator[str | KeyWrapper]:
    """The new password, or the wrapper that is to keep one."""
    from blocks.handles import open_wrapper, read_password

    if password_file and wrapper:
        raise ConfigError("--new-password-file and --new-wrapper are both given: give one of them")
    if wrapper:
        opened = open_wrapper(wrapper)
        try:
            yield opened
        finally:
            opened.close()
    elif password_file:
        yield read_password(PasswordSource(file=password_file), None)
    elif NEW_PASSWORD in os.environ:
        yield read_password(PasswordSource(env=NEW_PASSWORD), None)
    else:
        yield ask_password()


def ask_password() -> str:
    """A new password, typed twice on the terminal.

    Raises:
        MissingKey: There is no terminal, or nothing was typed.
        ConfigError: The two differ.
    """
    from blocks.redaction import guard

    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise MissingKey(
            "no new password is given, and there is no terminal to ask on",
            guidance=f"Give --new-password-file FILE, {NEW_PASSWORD}, or --new-wrapper URL.",
        )
    first = getpass.getpass("new password: ")
    if not first.strip():
        raise MissingKey("no new password was typed; nothing was changed")
    if getpass.getpass("once more: ") != first:
        raise ConfigError("the two passwords differ; nothing was changed", guidance="Run again and type it twice.")
    return guard(first)


def facts(slot: KeySlot) -> dict[str, Any]:
    """A slot for scripts."""
    return {
        "id": slot.name,
        "created": slot.created.isoformat() if slot.created else None,
        "username": slot.username,
        "hostname": slot.hostname,
        "is_current": slot.is_current,
        "wrapped_by": list(slot.wrapped_by),
        "flaw": slot.flaw,
    }


def draw(console: Console, listed: list[KeySlot]) -> None:
    """One line a slot."""
    rows = [
        [
            f"{'*' if slot.is_current else ' '}{slot.name[:8]}",
            f"{slot.created:%Y-%m-%d %H:%M:%S}Z" if slot.created else "?",
            f"{slot.username}@{slot.hostname}" if slot.created else "?",
            slot.flaw or ", ".join(slot.wrapped_by) or "password",
        ]
        for slot in listed
    ]
    draw_rows(console, [" ID", "CREATED", "BY", "OPENED BY"], rows)
