"""The command `vault copy`: recovery points of one vault put into another."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import failing, flags, given, output
from cli.progress import showing
from refloat.errors import ConfigError, IntegrityError, Interrupted
from refloat.policy import VaultLocation

if TYPE_CHECKING:
    from vault.copying import Copied

From = Annotated[str, typer.Argument(metavar="FROM", help="The vault to copy from, as --vault elsewhere.")]
To = Annotated[str, typer.Argument(metavar="TO", help="An empty prefix, an earlier copy, or another vault.")]
ToPasswordFile = Annotated[
    str | None,
    typer.Option("--to-password-file", metavar="FILE", help="Holds the password of TO; default: as for FROM."),
]
ToWrapper = Annotated[str | None, typer.Option("--to-wrapper", metavar="URL", help="Opens TO, as --wrapper does FROM.")]
Application = Annotated[
    str | None, typer.Option("--application", metavar="APP", help="Only the points of this application.")
]
Points = Annotated[
    list[str] | None,
    typer.Option("--point", metavar="ID", help="Only this point, by how its id begins; may be repeated."),
]
NewKey = Annotated[
    bool, typer.Option("--new-key", help="Make TO, if it is empty, a vault with a key of its own, not a copy.")
]


def copy(
    source: From,
    to: To,
    application: Application = None,
    point: Points = None,
    new_key: NewKey = False,
    password_file: flags.PasswordFile = None,
    password_secret: flags.PasswordSecret = None,
    wrapper: flags.Wrapper = None,
    to_password_file: ToPasswordFile = None,
    to_wrapper: ToWrapper = None,
    kubeconfig: flags.Kubeconfig = None,
    context: flags.Context = None,
    dry_run: flags.DryRun = False,
    form: flags.Output = flags.Form.TABLE,
    verbose: flags.Verbose = False,
) -> None:
    """Copy recovery points to another vault.

    What is there already is not moved again; every object is read back before a point is listed. An empty TO becomes a
    copy of the vault that the same passwords open. Run again, it goes on where it broke off.
    """
    vaulting = given.Vaulting(source, password_file, password_secret, wrapper=wrapper)
    if to_password_file and to_wrapper:
        raise ConfigError("--to-password-file and --to-wrapper are both given: give one of them")
    if new_key and not to_password_file:
        raise ConfigError(
            "--new-key makes a vault that the old passwords do not open: give --to-password-file",
            guidance="A wrapper can be added to it afterwards: refloat vault key add --new-wrapper URL.",
        )
    if to_password_file or to_wrapper:
        there = given.Vaulting(to, to_password_file, wrapper=to_wrapper).location(None)
    else:
        there = given.Vaulting(to, password_file, password_secret, wrapper=wrapper).location(None)
    choice = Choice(application, point or (), new_key, dry_run)
    with showing(verbose=verbose):
        done = carry_out(vaulting, there, choice, kubeconfig, context)
    value = {"from": source, "to": to, "dry_run": dry_run, **asdict(done)}
    output.show(form, value, lambda _: tell(value))
    end_with(done)


@dataclass(frozen=True)
class Choice:
    """What is to be copied, and how."""

    application: str | None
    points: Sequence[str]
    new_key: bool
    dry_run: bool


def carry_out(
    vaulting: given.Vaulting, there: VaultLocation, choice: Choice, kubeconfig: str | None, context: str | None
) -> Copied:
    """Open both ends and copy.

    Raises:
        Interrupted: Somebody pressed Ctrl-C; the same command goes on where it was.
        RefloatError: What ended it.
    """
    from blocks.handles import open_cluster, open_store, vault_password
    from cli.vault import opened
    from vault.copying import copy as copy_points
    from vault.copying import open_far_end

    with opened(vaulting, kubeconfig, context) as found, closing(open_store(there.url)) as store:

        def unlock() -> tuple[str, str | None]:
            cluster = open_cluster(given.target(kubeconfig, context)) if there.password.secret else None
            return vault_password(there, store, cluster)

        try:
            far = open_far_end(found, store, unlock, with_new_key=choice.new_key, dry_run=choice.dry_run)
            return copy_points(found, far, application=choice.application, points=choice.points, dry_run=choice.dry_run)
        except KeyboardInterrupt as pressed:
            raise Interrupted(
                "interrupted; what was copied stays, and no half-copied point is listed",
                guidance="Run the same command again: it goes on where it was.",
            ) from pressed


def end_with(done: Copied) -> None:
    """A copy that met damage ends with its code; the result is on standard output already."""
    try:
        done.raise_if_damaged()
    except IntegrityError as damage:
        for key, why in [*done.damaged.items(), *((key, ["gone at the far end"]) for key in done.lost)]:
            damage.add_note(f"{key}: {why[0]}")
        for label, path in done.affected.items():
            damage.add_note(f"not copied: {label} ({path or 'its top'})")
        raise typer.Exit(failing.tell(damage)) from damage


def tell(value: dict[str, Any]) -> None:
    """What is true at the far end now."""
    would = "would be " if value["dry_run"] else ""
    for each in value["points"]:
        output.say(f"{would}copied  {each['label']}")
    what = "pack" if value["is_mirror"] else "blob"
    output.say(
        f"{output.many(len(value['points']), 'point')} {would}copied, {value['there_already']} there already: "
        f"{output.many(value['objects'], what)}, {output.size(value['moved_bytes'])}"
    )
    if value["only_there"]:
        output.say(f"{output.many(len(value['only_there']), 'point')} of {value['to']} are no longer here; left alone")
