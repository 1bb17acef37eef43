"""The commands `vault …` that keep a vault in order, and what all `vault` commands share: which vault is meant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from cli import flags, given, output
from cli.drawing import draw_rows

if TYPE_CHECKING:
    from rich.console import Console

    from vault.judging import JudgedLock
    from vault.repository import OpenVault

app = typer.Typer(name="vault", help="Keep a vault in order.")

All = Annotated[bool, typer.Option("--all", help="Every lock, also those of the living; asks first.")]


@contextmanager
def opened(vaulting: given.Vaulting, kubeconfig: str | None, context: str | None) -> Iterator[OpenVault]:
    """The vault that flags or ``REFLOAT_VAULT`` name; the cluster is opened only for a password in a Secret."""
    from blocks.handles import open_cluster, open_existing_vault

    location = vaulting.location(None)
    cluster = open_cluster(given.target(kubeconfig, context)) if location.password.secret else None
    vault = open_existing_vault(location, cluster)
    try:
        yield vault
    finally:
        vault.close()


@app.command()
def unlock(
    all_locks: All = False,
    vault: flags.VaultUrl = None,
    password_file: flags.PasswordFile = None,
    password_secret: flags.PasswordSecret = None,
    kubeconfig: flags.Kubeconfig = None,
    context: flags.Context = None,
    yes: flags.Yes = False,
    dry_run: flags.DryRun = False,
    form: flags.Output = flags.Form.TABLE,
) -> None:
    """Judge the locks of a vault, and remove those whose holders are gone.

    A lock is stale when nobody refreshed it for 30 minutes, dead when its process has ended for certain.
    """
    from vault.judging import judge, read_store_clock
    from vault.locks import remove_locks

    with opened(given.Vaulting(vault, password_file, password_secret), kubeconfig, context) as found:
        locks = judge(found.files, store_at=read_store_clock(found.store))
        doomed = locks if all_locks else [lock for lock in locks if lock.is_left_behind]
        if form is flags.Form.TABLE:
            draw_locks(output.console(), locks)
        if doomed and not dry_run:
            if len(doomed) > sum(lock.is_left_behind for lock in locks) and not yes:
                output.ask(f"remove {output.many(len(doomed), 'lock')}, of living holders too?")
            remove_locks(found.files, doomed)
        result = {
            "locks": [lock.as_json() for lock in locks],
            "removed": [] if dry_run else [lock.name for lock in doomed],
        }
        told = "would be removed" if dry_run else "removed"
        output.show(form, result, lambda _: output.say(f"{output.many(len(doomed), 'lock')} {told}"))


def draw_locks(console: Console, locks: Sequence[JudgedLock]) -> None:
    """One line a lock, with the reason of its verdict."""
    rows = [
        [
            lock.verdict.value,
            {True: "exclusive", False: "shared", None: "?"}[lock.is_exclusive],
            f"{lock.taken_at or lock.stored_at:%Y-%m-%d %H:%M:%S}Z",
            lock.who,
            lock.reason,
        ]
        for lock in locks
    ]
    if rows:
        draw_rows(console, ["VERDICT", "KIND", "SINCE", "HOLDER", "WHY"], rows)
