"""The command `vault adopt`: an existing restic repository, its snapshots, and restoring from them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import failing, flags, given, output
from cli.drawing import draw_rows
from cli.extract import draw_list
from cli.extracting import STREAM, Wanted, Way, carry_out, target_of
from refloat.errors import ConfigError, IntegrityError

if TYPE_CHECKING:
    from rich.console import Console

    from refloat.policy import VaultLocation
    from vault.adoption import Adopted
    from vault.nodes import Node
    from vault.repository import OpenVault
    from vault.snapshots import AnyRecord

Url = Annotated[str, typer.Argument(metavar="URL", help="The repository, as --vault elsewhere.")]
Restore = Annotated[
    str | None,
    typer.Option("--restore", metavar="SNAPSHOT", help="Restore this one, by how its id begins, or latest."),
]
InPath = Annotated[
    str, typer.Option("--path", metavar="PATH", help="Only this file or folder of it, as restic ls shows it.")
]
To = Annotated[str | None, typer.Option("--to", metavar="FOLDER|-", help="Where to; - is standard output.")]
List = Annotated[bool, typer.Option("--list", help="With --restore: only list what is there.")]


def adopt(
    url: Url,
    restore: Restore = None,
    path: InPath = "",
    to: To = None,
    list_only: List = False,
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
    """Read a restic repository that other programs made.

    Lists its snapshots, or restores from one. They are no recovery points: refloat neither counts nor removes them.
    """
    if restore is None and (path or to or list_only):
        raise ConfigError("--path, --to and --list are for a snapshot", guidance="Give --restore SNAPSHOT.")
    if restore is not None and (to is None) != list_only:
        raise ConfigError("nothing says where to" if to is None else "--list writes nothing: give it or --to")
    if to == STREAM and form is not flags.Form.TABLE:
        raise ConfigError(f"--to {STREAM} makes standard output the file itself: leave out --output")
    from blocks.handles import open_cluster, open_existing_vault
    from vault.adoption import adopted

    location = given.Vaulting(url, password_file, password_secret, wrapper=wrapper).location(None)
    cluster = open_cluster(given.target(kubeconfig, context)) if location.password.secret else None
    vault = open_existing_vault(location, cluster, for_reading=True)
    try:
        found = adopted(vault)
        if restore is None:
            show_all(vault, found, form)
        else:
            restore_from(vault, location, found.choose(restore), path, to, yes=yes, dry_run=dry_run, form=form,
                         verbose=verbose)  # fmt: skip
    finally:
        vault.close()


def show_all(vault: OpenVault, found: Adopted, form: flags.Form) -> None:
    """What the repository is and holds; damaged records end it with their exit code, after the others were shown."""
    value = {
        "url": vault.url,
        "id": vault.id,
        "version": vault.version,
        "snapshots": [facts(record) for record in found.records],
        "damaged": found.damaged,
    }
    output.show(form, value, lambda console: draw(console, found))
    if form is flags.Form.TABLE:
        foreign = sum(record.ours is None for record in found.records)
        output.remark(
            f"{vault.url} is a restic repository of version {vault.version} with "
            f"{output.many(len(found.records), 'snapshot')}, {foreign} of other programs"
        )
        output.remark(f"restore: refloat vault adopt {vault.url} --restore ID [--path PATH] --to FOLDER")
    if found.damaged:
        damage = IntegrityError(f"{output.many(len(found.damaged), 'snapshot record')} of {vault.url} do not read")
        for name, why in found.damaged.items():
            damage.add_note(f"snapshots/{name}: {why}")
        raise typer.Exit(failing.tell(damage)) from damage  # what reads is on standard output already


def facts(record: AnyRecord) -> dict[str, Any]:
    """One snapshot for scripts."""
    return {
        "id": record.name,
        "time": record.time.isoformat(),
        "host": record.hostname,
        "user": record.username,
        "paths": list(record.paths),
        "tags": list(record.tags),
        "program": record.program,
        "tree": record.tree.hex(),
        "point": record.ours.point_id if record.ours else None,
    }


def draw(console: Console, found: Adopted) -> None:
    """One line a snapshot, oldest first."""
    rows = [
        [
            record.name[:8],
            f"{record.time:%Y-%m-%d %H:%M:%S}Z",
            record.hostname,
            ", ".join(record.tags),
            "recovery point" if record.ours else record.program.partition(" (")[0] or "restic",
            ", ".join(record.paths),
        ]
        for record in found.records
    ]
    draw_rows(console, ["ID", "TIME", "HOST", "TAGS", "MADE BY", "PATHS"], rows)


def restore_from(
    vault: OpenVault,
    location: VaultLocation,
    record: AnyRecord,
    path: str,
    to: str | None,
    *,
    yes: bool,
    dry_run: bool,
    form: flags.Form,
    verbose: bool,
) -> None:
    """The plan, a yes where something would be lost, and the work."""
    from cli.progress import showing
    from vault.finding import find
    from vault.reading import BlobReader

    reader = BlobReader(vault.files, vault.index())
    node = find(reader, record.tree.hex(), path)
    wanted = Wanted(path or "all of it", node, None)
    if to is None:
        draw_list(reader, wanted, form)
        return
    target = target_of(to, wanted)
    plan = {"snapshot": record.name, "path": path, "to": to, "loses": target.loses, **planned(vault, node)}
    if dry_run:
        output.show(form, plan, lambda _: output.say(told(plan, "would go")))
        return
    if form is flags.Form.TABLE:
        output.remark(told(plan, "goes"))
    if target.loses is not None and not yes:
        output.remark(target.loses)
        output.ask("go on?")
    with showing(verbose=verbose):
        done = carry_out(vault, location.url, wanted, target)
    if target.way is not Way.STREAM:
        output.show(form, {**plan, **done}, lambda _: output.say(said(plan, done)))


def planned(vault: OpenVault, node: Node) -> dict[str, Any]:
    """What is there, by its trees.

    Raises:
        IntegrityError: Something of it is damaged: half of it would be no restore.
    """
    from vault.adoption import held_by

    held = held_by(vault, node)
    if held.damaged:
        key, where = next(iter(held.damaged.items()))
        damage = IntegrityError(
            f"{output.many(len(held.damaged), 'object')} of {vault.url} are damaged or gone, the first is {key}",
            guidance="Restore paths beside the damaged one with --path, or another snapshot.",
        )
        damage.add_note(f"needed by {where or 'its top'}")
        raise damage
    return {name: value for name, value in asdict(held).items() if name != "damaged"}


def told(plan: dict[str, Any], verb: str) -> str:
    """The plan in a line."""
    counted = ", ".join(output.many(plan[key], noun) for key, noun in (("folders", "folder"), ("files", "file")))
    what = plan["path"] or "all"
    size = output.size(plan["data_bytes"])
    return f"{what} of snapshot {plan['snapshot'][:8]} {verb} to {plan['to']}: {counted}, {size}"


def said(plan: dict[str, Any], done: dict[str, Any]) -> str:
    """What is true now."""
    files = output.many(done["files"], "file")
    return f"{plan['path'] or 'all'} of snapshot {plan['snapshot'][:8]} is in {plan['to']}: {files}, " + output.size(
        done["data_bytes"]
    )
