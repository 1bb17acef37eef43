"""The command `verify`: proof that recovery points read back, or what is damaged and whom it affects."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError

from cli import failing, flags, given, output
from cli.drawing import draw_rows
from cli.reading import saved
from refloat.errors import ConfigError
from refloat.progress import Event, emit
from refloat.recovery_point import CataloguedPoint
from refloat.transfer import Progress
from vault.surveyed import Affected, Counts, Damage, Level, Survey, Surveyed

if TYPE_CHECKING:
    from rich.console import Console

UNKNOWN = "-"
MOST_AFFECTED = 20
"""Affected points told of one damaged object in the table; JSON has all."""

Point = Annotated[
    str | None, typer.Option("--point", metavar="ID", help="Only this recovery point: its id, or how it begins.")
]
How = Annotated[
    Level,
    typer.Option(
        "--level", help="structure reads no data; sample reads a random share of it; full reads every stored byte."
    ),
]
Expect = Annotated[
    Path | None,
    typer.Option(
        "--expect",
        metavar="FILE",
        help="Points that must exist, as 'refloat points -o json' wrote them; a missing one is damage.",
    ),
]


def verify(
    name: flags.Name = None,
    point: Point = None,
    level: How = Level.SAMPLE,
    expect: Expect = None,
    namespace: flags.Namespaces = None,
    file: flags.File = None,
    block: flags.BlockName = None,
    vault: flags.VaultUrl = None,
    password_file: flags.PasswordFile = None,
    password_secret: flags.PasswordSecret = None,
    wrapper: flags.Wrapper = None,
    kubeconfig: flags.Kubeconfig = None,
    context: flags.Context = None,
    form: flags.Output = flags.Form.TABLE,
    verbose: flags.Verbose = False,
) -> None:
    """Prove that recovery points read back.

    Those of an application; without NAME, the whole vault. Tells every damage with the points it affects.
    """
    selection = given.Selection(name, namespace, file=file, block=block)
    documents = given.documents(selection, saved)
    try:
        application: str | None = given.application_name(selection, documents)
    except ConfigError:
        application = None  # none is meant: the whole vault is
    location = given.Vaulting(vault, password_file, password_secret, wrapper=wrapper).location(
        given.documented_vault(documents, application)
    )
    expected = read_expected(expect) if expect else []
    from blocks.handles import open_cluster, open_existing_vault
    from cli.progress import showing
    from vault.survey import survey

    cluster = given.target(kubeconfig, context)
    opened = open_existing_vault(location, open_cluster(cluster) if location.password.secret else None)
    try:
        with showing(verbose=verbose):
            found = survey(opened, level=level, application=application, point=point, expected=expected, moved=tell)
    finally:
        opened.close()
    output.show(form, facts_of(found), lambda console: draw(console, found))
    if not found.is_intact:  # standard output has its one JSON value already
        raise typer.Exit(failing.tell(found.error(location.url), verbose=verbose))


def read_expected(path: Path) -> list[CataloguedPoint]:
    """The points in a file, as ``refloat points -o json`` writes them.

    Raises:
        ConfigError: There is no such file, or it says something else.
    """
    try:
        return TypeAdapter(list[CataloguedPoint]).validate_json(path.read_bytes())
    except OSError as wrong:
        raise ConfigError(f"--expect {path}: {wrong.strerror}") from wrong
    except ValidationError as wrong:
        raise ConfigError(
            f"--expect {path} does not hold recovery points as refloat points -o json writes them"
        ) from wrong


def tell(counts: Counts) -> None:
    """How far the reading is, as an event that the progress display hears."""
    total = counts.pack_bytes if counts.packs_read else None
    done = Progress(
        volume="stored data", bytes_done=counts.bytes_read, bytes_total=total, files_done=counts.files
    )  # fmt: skip
    emit(Event("verify", "moved", progress=done))


def facts_of(found: Survey) -> dict[str, Any]:
    """A survey for scripts."""

    def affected(each: Affected) -> dict[str, Any]:
        return {**_named(each), "path": each.path}

    return {
        "level": found.level.value,
        "is_intact": found.is_intact,
        "points": [
            {
                **_named(each),
                "snapshot_id": each.snapshot_id,
                "is_intact": each.is_intact,
                "damage": list(each.damage),
            }
            for each in found.points
        ],
        "damage": [
            {
                "object": each.object,
                "reasons": list(each.reasons),
                "count": each.count,
                "points": [affected(point) for point in each.points],
            }
            for each in found.damages
        ],
        "remarks": list(found.remarks),
        "read": asdict(found.counts),
    }


def _named(each: Affected | Surveyed) -> dict[str, Any]:
    return {
        "id": each.id,
        "application": each.application,
        "cut_at": each.cut_at.isoformat().replace("+00:00", "Z") if each.cut_at else None,
    }


def draw(console: Console, found: Survey) -> None:
    """The points with their verdicts, then every damage with whom it hits, remarks, and what was read."""
    rows = [
        [
            each.id or UNKNOWN,
            each.application or UNKNOWN,
            f"{each.cut_at:%Y-%m-%d %H:%M:%S}Z" if each.cut_at else UNKNOWN,
            "intact" if each.is_intact else f"DAMAGED by {output.many(len(each.damage), 'object')}",
        ]
        for each in found.points
    ]
    draw_rows(console, ["POINT", "APPLICATION", "CUT", "VERDICT"], rows)
    for damage in found.damages:
        _draw_damage(console, damage)
    for text in found.remarks:
        console.print(f"remark    {text}")
    console.print(f"read      {words(found)}")


def _draw_damage(console: Console, damage: Damage) -> None:
    console.print(f"damaged   {damage.object}")
    more = damage.count - len(damage.reasons)
    for text in (*damage.reasons, *([f"and {more} more"] if more else [])):
        console.print(f"  because {text}")
    for each in damage.points[:MOST_AFFECTED]:
        cut = f", cut {each.cut_at:%Y-%m-%d %H:%M:%S}Z" if each.cut_at else ""
        path = f": {each.path}" if each.path else ""
        console.print(f"  affects point {each.id or UNKNOWN} of {each.application or UNKNOWN}{cut}{path}")
    if len(damage.points) > MOST_AFFECTED:
        console.print(f"  affects {len(damage.points) - MOST_AFFECTED} more points")
    if not damage.points:
        is_record = damage.object.startswith("snapshots/")
        console.print(
            "  affects a recovery point that cannot be named any more: give --expect FILE" if is_record
            else "  affects none of the points above"
        )  # fmt: skip


def words(found: Survey) -> str:
    """What was read, in one line."""
    counts = found.counts
    text = f"{counts.trees} trees, {counts.files} files of {output.size(counts.file_bytes)}"
    if found.level is Level.FULL:
        return f"{text}; every byte of {counts.packs_read} of {output.many(counts.packs, 'pack')}"
    if found.level is Level.SAMPLE:
        return f"{text}; {counts.blobs_read} of {counts.blobs} data blobs read, {output.size(counts.bytes_read)}"
    return f"{text}; no data: --level sample or full reads it"
