"""The command `extract`: one volume, one path or one file of a recovery point, onto this machine; needs no cluster."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blocks.documents import closest
from cli import flags, given, output
from cli.extracting import STREAM, Target, Wanted, Way, carry_out, target_of, written
from cli.recover import meant
from refloat.choosing import select
from refloat.errors import ConfigError
from refloat.recovery_point import CataloguedPoint, VolumeCopy

if TYPE_CHECKING:
    from vault.nodes import Node
    from vault.reading import BlobReader
    from vault.repository import OpenVault

Volume = Annotated[
    str | None,
    typer.Option(
        "--volume", metavar="[NS/]CLAIM", help="Of this volume; default: the whole point, manifests and volumes."
    ),
]
InPath = Annotated[
    str, typer.Option("--path", metavar="PATH", help="Only this file or folder; bytes that are no UTF-8 as \\xNN.")
]
To = Annotated[
    str | None,
    typer.Option("--to", metavar="FOLDER|DEVICE|-", help="Where to; - writes one file to standard output."),
]
List = Annotated[bool, typer.Option("--list", help="Only list what is there.")]


def extract(
    name: flags.Name = None,
    namespace: flags.Namespaces = None,
    file: flags.File = None,
    block: flags.BlockName = None,
    vault: flags.VaultUrl = None,
    password_file: flags.PasswordFile = None,
    password_secret: flags.PasswordSecret = None,
    wrapper: flags.Wrapper = None,
    point: flags.Point = None,
    at: flags.At = None,
    volume: Volume = None,
    path: InPath = "",
    to: To = None,
    list_only: List = False,
    kubeconfig: flags.Kubeconfig = None,
    context: flags.Context = None,
    yes: flags.Yes = False,
    dry_run: flags.DryRun = False,
    form: flags.Output = flags.Form.TABLE,
    verbose: flags.Verbose = False,
) -> None:
    """Bring data of a recovery point onto this machine.

    A folder's content goes into a folder, a file under its name, a raw volume onto a device or into a file. Nothing
    is overwritten without a yes.
    """
    if (to is None) != list_only:
        raise ConfigError("nothing says where to" if to is None else "--list writes nothing: give it or --to")
    if to == STREAM and form is not flags.Form.TABLE:
        raise ConfigError(f"--to {STREAM} makes standard output the file itself: leave out --output")
    selection = given.Selection(name, namespace, file=file, block=block)
    application, location, _ = meant(selection, given.Vaulting(vault, password_file, password_secret, wrapper=wrapper))
    objective, cluster = given.objective(point, at), given.target(kubeconfig, context)
    from blocks.handles import open_cluster, open_existing_vault
    from vault.catalogue import points
    from vault.reading import BlobReader

    opened = open_existing_vault(location, open_cluster(cluster) if location.password.secret else None)
    try:
        chosen = select(points(opened, application), application, objective)
        reader = BlobReader(opened.files, opened.index())
        wanted = find_in(reader, chosen, volume, path)
        if to is None:
            draw_list(reader, wanted, form)
        else:
            bring(opened, location.url, chosen, wanted, to, form, yes=yes, dry_run=dry_run, verbose=verbose)
    finally:
        opened.close()


def bring(
    vault: OpenVault,
    url: str,
    chosen: CataloguedPoint,
    wanted: Wanted,
    to: str,
    form: flags.Form,
    *,
    yes: bool,
    dry_run: bool,
    verbose: bool,
) -> None:
    """Say what would be lost, ask, and do it."""
    from cli.progress import showing

    target, place = target_of(to, wanted), written(to)
    facts = {"point": chosen.point.id, "what": wanted.name, "to": place, "as": target.way.value, "loses": target.loses}
    if dry_run:
        output.show(form, facts, lambda _: say_plan(facts))
        return
    approve(target, facts, yes=yes)
    with showing(verbose=verbose):
        done = carry_out(vault, url, wanted, target)
    if target.way is not Way.STREAM:
        output.show(form, {**facts, **done}, lambda _: say_done(facts, done))


def find_in(reader: BlobReader, chosen: CataloguedPoint, volume: str | None, path: str) -> Wanted:
    """What the flags mean inside a point.

    Raises:
        ConfigError: The point holds no such volume or path; the message names what is close.
    """
    from vault.device_extract import device_node
    from vault.finding import find

    said = written(path)
    if volume is None:
        return Wanted(said or "all", find(reader, chosen.tree, path), None)
    copy = volume_of(chosen, volume)
    label = f"{copy.namespace}/{copy.claim}"
    if copy.mode == "device" and path.strip("/") in ("", "device"):
        return Wanted(label, device_node(reader, copy.tree), copy.tree)
    return Wanted(f"{label}: {said}" if path else label, find(reader, copy.tree, path, top=copy.top), None)


def volume_of(chosen: CataloguedPoint, text: str) -> VolumeCopy:
    """The copy of a claim, named alone or with its namespace.

    Raises:
        ConfigError: There is none, or one in several namespaces.
    """
    copies = {f"{copy.namespace}/{copy.claim}": copy for copy in chosen.point.volumes}
    found = [name for name in copies if text in (name, copies[name].claim)]
    if len(found) > 1:
        raise ConfigError(f"--volume {text} means several: {', '.join(found)}", guidance="Give NAMESPACE/CLAIM.")
    if not found:
        near = closest(text, copies if "/" in text else {copy.claim: copy for copy in copies.values()})
        raise ConfigError(f"--volume {text}: point {chosen.point.id} holds no such volume{near}")
    return copies[found[0]]


def approve(target: Target, facts: dict[str, Any], *, yes: bool) -> None:
    """Ask before anything is lost.

    Raises:
        ApprovalMissing: The answer is no, or there is nobody to ask.
    """
    if target.loses is not None and not yes:
        output.remark(f"{facts['what']} of point {facts['point']} goes to {facts['to']}: {target.loses}")
        output.ask("go on?")


def say_plan(facts: dict[str, Any]) -> None:
    """The dry run."""
    output.say(f"{facts['what']} of point {facts['point']} would go to {facts['to']} ({facts['as']})")
    output.say(facts["loses"] or "nothing there is overwritten")


def say_done(facts: dict[str, Any], done: dict[str, Any]) -> None:
    """What is true now."""
    files = output.many(done["files"], "file")
    output.say(
        f"{facts['what']} of point {facts['point']} is in {facts['to']}: {files}, {output.size(done['data_bytes'])}"
    )
    if not done.get("keeps_owner", True):
        output.remark("it belongs to you: only root can give files back to their owners")
    beyond = done.get("target_bytes", 0) - done.get("size_bytes", 0)
    if beyond:
        output.remark(f"{facts['to']} is larger than the copy: its last {output.size(beyond)} were left as they are")


def draw_list(reader: BlobReader, wanted: Wanted, form: flags.Form) -> None:
    """A folder's entries, or the one thing meant."""
    from vault.finding import listing

    nodes = listing(reader, wanted.node)

    def lines(_: object) -> None:
        for node in nodes:
            output.say(line_of(node))

    output.show(form, [facts_of(node) for node in nodes], lines)


def line_of(node: Node) -> str:
    """As `ls -l` has it; what would move a terminal's cursor is escaped."""
    from vault.finding import written as escaped

    leads = f" -> {escaped(node.target)}" if node.target else ""
    facts, owner = facts_of(node), f"{node.uid}:{node.gid}"
    return f"{facts['mode']} {owner:>11} {node.size:>14} {facts['modified'][:19]} {escaped(node.name)}{leads}"


def facts_of(node: Node) -> dict[str, Any]:
    """One entry for scripts."""
    from vault.disk import shown
    from vault.instants import format_instant
    from vault.nodes import TYPES

    kind = next((bits for bits, name in TYPES.items() if name == node.type), 0)
    return {
        "name": shown(node.name), "type": node.type, "mode": stat.filemode(kind | node.mode), "uid": node.uid,
        "gid": node.gid, "size_bytes": node.size, "modified": format_instant(node.mtime),
        "target": shown(node.target) if node.target else None,
    }  # fmt: skip
