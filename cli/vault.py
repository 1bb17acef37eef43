"""The commands `vault …` that keep a vault in order, and what all `vault` commands share: which vault is meant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from cli import flags, given, output
from cli.drawing import draw_rows
from refloat.errors import ConfigError
from refloat.policy import VaultLocation
from refloat.recovery_point import new_id

if TYPE_CHECKING:
    from rich.console import Console

    from vault.judging import JudgedLock
    from vault.prune_plan import PrunePlan
    from vault.repository import OpenVault

app = typer.Typer(name="vault", help="Keep a vault in order.")

MaxUnused = Annotated[
    float, typer.Option("--max-unused", metavar="PERCENT", help="Share of the vault that may stay unused.")
]
All = Annotated[bool, typer.Option("--all", help="Every lock, also those of the living; asks first.")]


@contextmanager
def opened(vaulting: given.Vaulting, kubeconfig: str | None, context: str | None) -> Iterator[OpenVault]:
    """The vault that flags or ``REFLOAT_VAULT`` name."""
    with open_located(vaulting.location(None), kubeconfig, context) as vault:
        yield vault


@contextmanager
def open_located(location: VaultLocation, kubeconfig: str | None, context: str | None) -> Iterator[OpenVault]:
    """The vault at a location; the cluster is opened only for a password in a Secret."""
    from blocks.handles import open_cluster, open_existing_vault

    cluster = open_cluster(given.target(kubeconfig, context)) if location.password.secret else None
    vault = open_existing_vault(location, cluster)
    try:
        yield vault
    finally:
        vault.close()


@app.command()
def prune(
    max_unused: MaxUnused = 5.0,
    vault: flags.VaultUrl = None,
    password_file: flags.PasswordFile = None,
    password_secret: flags.PasswordSecret = None,
    wrapper: flags.Wrapper = None,
    kubeconfig: flags.Kubeconfig = None,
    context: flags.Context = None,
    yes: flags.Yes = False,
    dry_run: flags.DryRun = False,
    form: flags.Output = flags.Form.TABLE,
    verbose: flags.Verbose = False,
) -> None:
    """Free the space that no recovery point needs.

    Snapshots of other programs in the same vault count as well. Broken off, it is simply run again.
    """
    from cli.progress import showing
    from vault.prune import plan_prune
    from vault.prune import prune as prune_vault

    if not 0 <= max_unused < 100:
        raise ConfigError(f"--max-unused {max_unused:g} is no share: 0 to 99")
    share, run = max_unused / 100, new_id()
    with (
        opened(given.Vaulting(vault, password_file, password_secret, wrapper=wrapper), kubeconfig, context) as found,
        showing(verbose=verbose),
    ):
        if dry_run:
            plan = plan_prune(found, run=run, max_unused=share)
            output.show(form, {"plan": plan.as_json(), "done": None}, lambda console: draw_prune(console, plan))
            return
        if not yes:
            shown = plan_prune(found, run=run, max_unused=share)
            draw_prune(output.console(stderr=True), shown)
            if not shown.is_empty:
                output.ask(f"free {output.size(shown.freed_bytes)}?")
        carried: list[PrunePlan] = []
        done = prune_vault(found, run=run, max_unused=share, show=carried.append)
    result = {"plan": carried[0].as_json(), "done": done.as_json()}
    output.show(
        form, result,
        lambda _: output.say(
            f"freed {output.size(done.freed_bytes)}: {output.many(done.packs_removed, 'pack')} removed, "
            f"{done.packs_written} written anew"
        ),
    )  # fmt: skip


@app.command()
def unlock(
    all_locks: All = False,
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
    """Judge the locks of a vault, and remove those whose holders are gone.

    A lock is stale when nobody refreshed it for 30 minutes, dead when its process has ended for certain.
    """
    from vault.judging import judge, read_store_clock
    from vault.locks import remove_locks

    with opened(given.Vaulting(vault, password_file, password_secret, wrapper=wrapper), kubeconfig, context) as found:
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


MOST_PACKS = 20
"""Packs told one by one in the table; JSON has all."""


def draw_prune(console: Console, plan: PrunePlan) -> None:
    """What a prune would do: the sums, and the packs that do not stay, with the reason."""
    from vault.prune_plan import Action

    told = Counter({action: plan.count(action) for action in Action})
    console.print(
        f"plan      keep {told[Action.KEEP]}  repack {told[Action.REPACK]}  remove {told[Action.REMOVE]} packs  "
        f"free {output.size(plan.freed_bytes)} of {output.size(plan.size_bytes)}"
    )
    console.print(f"          {output.many(len(plan.snapshots), 'snapshot record')} refer to {len(plan.marks)} blobs")
    if plan.young:
        console.print(f"          {output.many(plan.young, 'young pack')} in no index left alone")
    rows = [
        [fate.action.name.lower(), fate.pack.hex()[:16], output.size(fate.size_bytes), fate.reason]
        for fate in islice(plan.fates(), MOST_PACKS)
    ]
    if rows:
        draw_rows(console, ["ACTION", "PACK", "SIZE", "WHY"], rows, right=("SIZE",))
    left = told[Action.REPACK] + told[Action.REMOVE] - len(rows)
    if left > 0:
        console.print(f"          and {left} more; -o json has all")
