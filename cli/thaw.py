"""The command `thaw`: what runs left frozen is shown, and after a yes let go."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import flags, given, output
from refloat.errors import ConfigError, LeaseHeld, ThawUnconfirmed

if TYPE_CHECKING:
    from kube.cluster import Cluster
    from kube.hold_record import Thawed
    from kube.thawing import LeftHold

Name = Annotated[
    str | None, typer.Argument(metavar="APPLICATION", show_default=False, help="Let go of what is held of it.")
]
All = Annotated[bool, typer.Option("--all", help="Let go of what is held of any application.")]
Force = Annotated[
    bool, typer.Option("--force", help="Also of a run that lives, before its deadline: its point is spoilt.")
]


def thaw(
    name: Name = None,
    everything: All = False,
    force: Force = False,
    dry_run: flags.DryRun = False,
    yes: flags.Yes = False,
    kubeconfig: flags.Kubeconfig = None,
    context: flags.Context = None,
    form: flags.Output = flags.Form.TABLE,
) -> None:
    """Let go of what a run left frozen.

    Without a name or --all only shown: what is held, since when, and until when. It asks neither Prefect nor a vault.
    """
    from blocks.handles import open_cluster
    from kube.thawing import left_holds

    if name and everything:
        raise ConfigError("an application and --all are both given: give one of them")
    cluster = open_cluster(given.target(kubeconfig, context))
    found = [hold for hold in left_holds(cluster) if name in (None, hold.application)]
    held = [facts(hold) for hold in found]
    if dry_run or not found or not (name or everything):
        output.show(form, {"held": held, "thawed": []}, lambda _: tell(found, []))
        return
    ready = [hold for hold in found if force or hold.may_thaw]
    if ready and not yes:
        for hold in ready:
            output.remark(said(hold))
        output.ask(f"let go of {output.many(sum(len(hold.left) for hold in ready), 'part')}?")
    done, failures = let_go(cluster, ready)
    result = {"held": held, "thawed": [each.model_dump(mode="json") for each in done]}
    refused = [hold for hold in found if hold not in ready]
    if failures or refused:
        if done:
            output.remark(f"{output.many(len(done), 'part')} let go")
        raise failures[0] if failures else refusal(refused)
    output.show(form, result, lambda _: tell([], done))


def let_go(cluster: Cluster, holds: Sequence[LeftHold]) -> tuple[list[Thawed], list[ThawUnconfirmed]]:
    """Of one after the other; one that fails does not keep the next."""
    from kube.thawing import thaw as thaw_hold

    done: list[Thawed] = []
    failures: list[ThawUnconfirmed] = []
    for hold in holds:
        try:
            done += thaw_hold(cluster, hold.application, hold.record, by=f"refloat thaw ({getpass.getuser()})")
        except ThawUnconfirmed as failure:
            failures.append(failure)
    for other in failures[1:]:
        failures[0].add_note(f"also: {other.message}")
    return done, failures


def refusal(holds: Sequence[LeftHold]) -> LeaseHeld:
    """Why a living run is left alone."""
    names = "; ".join(said(hold) for hold in holds)
    return LeaseHeld(
        f"a run that lives holds it, and its deadline has not passed: {names}",
        guidance="Wait until the deadline: the run lets go itself. --force thaws now and spoils its point.",
    )


def facts(hold: LeftHold) -> dict[str, Any]:
    """For scripts."""
    parts = [
        {**part.model_dump(mode="json", exclude={"thaw"}), "by_hand": part.by_hand, "left": part in hold.left}
        for part in hold.record.parts
    ]
    return {
        "application": hold.application,
        "run": hold.record.run,
        "lives": hold.lives,
        "since": hold.record.recorded_at.isoformat(),
        "deadline": hold.record.deadline.isoformat(),
        "is_over": hold.is_over,
        "parts": parts,
    }


def said(hold: LeftHold) -> str:
    """One line for people."""
    pods = ", ".join(part.name for part in hold.left)
    state = "lives" if hold.lives else "is dead"
    record = hold.record
    return (
        f"{hold.application}: {pods}; run {record.run}, which {state}; since {record.recorded_at:%Y-%m-%d %H:%M:%S}Z, "
        f"deadline {record.deadline:%H:%M:%S}Z{' (past)' if hold.is_over else ''}"
    )


def tell(held: Sequence[LeftHold], done: Sequence[Thawed]) -> None:
    """What is held, or what was let go, one line each."""
    for hold in held:
        output.say(said(hold))
        for part in hold.left:
            output.say(f"  {part.by_hand}")
    for each in done:
        output.say(f"{each.place.name}: {each.what}")
    if not held:
        output.say(f"{output.many(len(done), 'part')} let go" if done else "nothing is held")
