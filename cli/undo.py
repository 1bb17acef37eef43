"""What `refloat recover --undo RUN` does: shows what that run created, asks, and removes exactly that."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cli import flags, output
from cli.reading import choose, planned
from refloat.errors import ConfigError, ObjectMissing
from refloat.plan import Mappings, Objective
from refloat.policy import VaultLocation
from refloat.recovery_point import CataloguedPoint
from refloat.target import ClusterRef

if TYPE_CHECKING:
    from kube.cluster import Cluster
    from kube.undoing import Made

RUN_DIGITS = 16


def undo(
    application: str,
    run: str,
    chosen: CataloguedPoint,
    mapped: Callable[[CataloguedPoint], Mappings],
    location: VaultLocation,
    ref: ClusterRef,
    form: flags.Form,
    *,
    yes: bool,
    dry_run: bool,
) -> None:
    """Show, ask, remove.

    Raises:
        ConfigError: That is no run's id.
        ObjectMissing: Nothing on the cluster bears the run's mark.
        LeaseHeld: The run is still at work.
        ApprovalMissing: Nobody said yes.
        NotReady, ClusterError: Something would not go; run again, it goes on.
    """
    if len(run) != RUN_DIGITS or set(run) - set("0123456789abcdef"):
        raise ConfigError(f"--undo {run!r} is no run's id: {RUN_DIGITS} hexadecimal digits")
    from blocks.handles import open_cluster
    from kube.undoing import strangers
    from kube.undoing import undo as undo_all

    cluster = open_cluster(ref)
    made = found_of(application, run, chosen, mapped, location, ref, cluster)
    namespaces = [each.ref.name for each in made if each.ref.kind == "Namespace"]
    kept = {name: others for name in namespaces if (others := strangers(cluster, name, made))}
    shown = [str(each.ref) for each in made if each.ref.name not in kept or each.ref.kind != "Namespace"]
    facts = {"run": run, "point": made[0].point_id, "stays": kept, "volumes": [e.stays for e in made if e.stays]}
    if dry_run:
        output.show(form, {**facts, "removed": [], "to_remove": shown}, lambda _: tell(shown, "would be removed"))
        tell_kept(kept)
        return
    if not yes:
        for each in shown:
            output.remark(each)
        tell_kept(kept)
        output.ask(f"remove {output.many(len(shown), 'object')} that run {run} created, with their data?")
    gone = [str(each) for each in undo_all(cluster, made, on_done=output.remark)]
    output.show(form, {**facts, "removed": gone, "to_remove": []}, lambda _: tell(gone, "removed"))


def found_of(
    application: str,
    run: str,
    chosen: CataloguedPoint,
    mapped: Callable[[CataloguedPoint], Mappings],
    location: VaultLocation,
    ref: ClusterRef,
    cluster: Cluster,
) -> list[Made]:
    """What the run created; the point it recovered from is the one that its own objects name."""
    from kube.undoing import made_by

    made = made_by(cluster, planned(chosen, mapped(chosen), location, ref).plan, run)
    other = next((each.point_id for each in made if each.point_id != chosen.point.id), None)
    if other is not None:
        chosen = choose(location, application, Objective(point=other), ref)
        made = made_by(cluster, planned(chosen, mapped(chosen), location, ref).plan, run)
    if not made:
        raise ObjectMissing(
            f"nothing of {application} on {cluster.name} was created by run {run}",
            guidance="Give --point, --to-namespace and --map-namespace as that recovery had them.",
        )
    return made


def tell(names: list[str], what: str) -> None:
    """One line each, and the count."""
    for name in names:
        output.say(name)
    output.say(f"{output.many(len(names), 'object')} {what}")


def tell_kept(kept: dict[str, list[str]]) -> None:
    """Which namespaces stay, and for what."""
    for name, others in kept.items():
        output.remark(f"namespace {name} stays, for it has {', '.join(others)}")
