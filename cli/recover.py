"""The commands `plan` and `recover`: the plan is shown first, somebody says yes to it, and exactly it is done."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from cli import failing, flags, given, output
from cli.drawing import draw_plan
from cli.reading import Shown, choose, planned, saved
from cli.undo import undo as undo_run
from refloat.clock import now
from refloat.errors import PlanBlocked
from refloat.plan import Mappings, Objective, RecoveryPlan
from refloat.policy import VaultLocation
from refloat.recovery_point import CataloguedPoint
from refloat.report import RecoverReport
from refloat.target import ClusterRef

READY = timedelta(minutes=10)
Timeout = Annotated[
    str | None,
    typer.Option("--timeout", metavar="DURATION", help="How long workloads may take to become ready; default 10m."),
]
Undo = Annotated[
    str | None,
    typer.Option("--undo", metavar="RUN", help="Remove what that recovery run created, and nothing else."),
]


def plan(
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
    to_namespace: flags.ToNamespace = None,
    map_namespace: flags.MapNamespace = None,
    storage_class: flags.StorageClasses = None,
    kubeconfig: flags.Kubeconfig = None,
    context: flags.Context = None,
    to_kubeconfig: flags.ToKubeconfig = None,
    to_context: flags.ToContext = None,
    form: flags.Output = flags.Form.TABLE,
    verbose: flags.Verbose = False,
) -> None:
    """Show what a recovery would do, and what blocks it.

    Nothing is created. The exit code is 61 when the plan is blocked.
    """
    selection = given.Selection(name, namespace, file=file, block=block)
    application, location, _ = meant(selection, given.Vaulting(vault, password_file, password_secret, wrapper=wrapper))
    cluster = given.target(kubeconfig, context, to_kubeconfig, to_context)
    chosen = choose(location, application, given.objective(point, at), cluster)
    mappings = given.mappings(chosen.point, to_namespace, map_namespace, storage_class)
    shown = planned(chosen, mappings, location, cluster)
    end_with(shown, form, verbose=verbose)


def recover(
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
    to_namespace: flags.ToNamespace = None,
    map_namespace: flags.MapNamespace = None,
    storage_class: flags.StorageClasses = None,
    kubeconfig: flags.Kubeconfig = None,
    context: flags.Context = None,
    to_kubeconfig: flags.ToKubeconfig = None,
    to_context: flags.ToContext = None,
    timeout: Timeout = None,
    undo: Undo = None,
    yes: flags.Yes = False,
    dry_run: flags.DryRun = False,
    form: flags.Output = flags.Form.TABLE,
    verbose: flags.Verbose = False,
) -> None:
    """Bring an application back.

    Shows the plan, asks, and does exactly that. Nothing that exists is overwritten; run again, it converges.
    With --undo, what one recovery created is removed again, and nothing else.
    """
    selection = given.Selection(name, namespace, file=file, block=block)
    ready = given.duration(timeout, "--timeout") if timeout else READY
    application, location, rto = meant(
        selection, given.Vaulting(vault, password_file, password_secret, wrapper=wrapper)
    )
    cluster = given.target(kubeconfig, context, to_kubeconfig, to_context)
    chosen = choose(location, application, given.objective(point, at), cluster)

    def mapped(to: CataloguedPoint) -> Mappings:
        return given.mappings(to.point, to_namespace, map_namespace, storage_class)

    if undo is not None:
        undo_run(application, undo, chosen, mapped, location, cluster, form, yes=yes, dry_run=dry_run)
        return
    shown = planned(chosen, mapped(chosen), location, cluster)
    if dry_run:
        end_with(shown, form, verbose=verbose)
        return
    if form is flags.Form.TABLE:
        draw_plan(output.console(stderr=True), shown.plan, chosen, now())
    refuse(shown.plan, is_shown=form is flags.Form.TABLE)
    if not yes:
        output.ask(f"recover {application} as shown?")
    report = run(shown, location, cluster, ready, approved=not yes, verbose=verbose)
    output.show(form, report.model_dump(mode="json"), lambda _: tell(report, rto, shown.plan.mappings))


def meant(selection: given.Selection, vaulting: given.Vaulting) -> tuple[str, VaultLocation, timedelta | None]:
    """The application's name, its vault, and its RTO where a document states one."""
    documents = given.documents(selection, saved)
    application = given.application_name(selection, documents)
    policy = documents.policy(application) if documents else None
    return application, vaulting.location(policy.vault if policy else None), policy.objectives.rto if policy else None


def refuse(plan: RecoveryPlan, *, is_shown: bool) -> None:
    """Stop at a blocked plan before any server is started or anything created."""
    if not plan.blockers:
        return
    error = PlanBlocked(f"{output.many(len(plan.blockers), 'blocker')}, nothing was created")
    for each in () if is_shown else plan.blockers:
        error.add_note(f"{each.subject}: {each.reason}; {each.do}")
    raise error


def end_with(shown: Shown, form: flags.Form, *, verbose: bool) -> None:
    """The plan as the command's result; a blocked one is shown whole and ends with its own exit code."""
    output.show(form, shown.plan.as_json(), lambda console: draw_plan(console, shown.plan, shown.chosen, now()))
    if verbose:
        output.remark(f"digest {shown.plan.digest}")
    try:
        refuse(shown.plan, is_shown=form is flags.Form.TABLE)
    except PlanBlocked as blocked:
        raise typer.Exit(failing.tell(blocked)) from blocked  # the plan is on standard output already


def run(
    shown: Shown, location: VaultLocation, cluster: ClusterRef, ready: timedelta, *, approved: bool, verbose: bool
) -> RecoverReport:
    """The flow, on the very point that was shown; a plan somebody approved must still be the same."""
    from cli.progress import showing
    from cli.running import prefect_server, run_flow

    with prefect_server() as url:
        from flows.recover import recover as flow
    left = "what was recovered so far stays, temporary objects were removed; run again to go on"
    with showing(verbose=verbose):
        return run_flow(
            url,
            lambda: flow(
                application=shown.plan.application,
                vault=location,
                objective=Objective(point=shown.plan.point_id),
                cluster=cluster,
                mappings=shown.plan.mappings,
                approved_digest=shown.plan.digest if approved else None,
                ready_timeout=ready,
            ),
            left=left,
        )


def tell(report: RecoverReport, rto: timedelta | None, mappings: Mappings) -> None:
    """The result: what is true now, and against which objective."""
    against = f" (objective {output.span(rto)}{', missed' if report.achieved_rto > rto else ''})" if rto else ""
    output.say(
        f"recovered {report.application} on {report.cluster}, namespace{'s' if len(report.namespaces) > 1 else ''} "
        f"{', '.join(report.namespaces)}: created {report.created}, kept {report.kept}, "
        f"filled {output.many(report.hydrated, 'claim')} ({output.size(report.data_bytes)})"
    )
    output.say(f"RTO       {output.span(report.achieved_rto)}{against}   RPO {output.span(report.achieved_rpo)}")
    names = "".join(f" --map-namespace {old}={new}" for old, new in mappings.namespaces.items() if old != new)
    output.say(f"undo      refloat recover {report.application} --undo {report.run}{names} removes what was created")
