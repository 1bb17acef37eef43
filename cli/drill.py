"""The command `drill`: a recovery into closed namespaces, what was asked of it, and the evidence in files."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from cli import failing, flags, given, output
from cli.drawing import draw_plan
from cli.reading import choose, planned_whole, saved
from cli.recover import READY, Timeout, refuse
from refloat.application import DrillRules
from refloat.clock import now
from refloat.drill import DrillReport, html, markdown
from refloat.errors import ConfigError, RecoveryError
from refloat.plan import Objective
from refloat.policy import Objectives, VaultLocation
from refloat.recovery_point import CataloguedPoint, new_id
from refloat.target import ClusterRef

Report = Annotated[
    Path | None,
    typer.Option("--report", metavar="FOLDER", help="Leave the evidence there: Markdown, HTML and JSON."),
]
Keep = Annotated[bool, typer.Option("--keep", help="Leave the drill's namespaces, for a look.")]


def drill(
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
    kubeconfig: flags.Kubeconfig = None,
    context: flags.Context = None,
    to_kubeconfig: flags.ToKubeconfig = None,
    to_context: flags.ToContext = None,
    timeout: Timeout = None,
    report: Report = None,
    keep: Keep = False,
    dry_run: flags.DryRun = False,
    form: flags.Output = flags.Form.TABLE,
    verbose: flags.Verbose = False,
) -> None:
    """Prove that an application can be brought back.

    Recovers it into closed namespaces of its own, tries the document's assertions, measures RTO and RPO, and removes
    all of it again. Production is not touched. The exit code is 66 when it failed, 64 when an objective was missed.
    """
    selection = given.Selection(name, namespace, file=file, block=block)
    ready = given.duration(timeout, "--timeout") if timeout else READY
    documents = given.documents(selection, saved)
    application = given.application_name(selection, documents)
    policy = documents.policy(application) if documents else None
    rules = documents.application(application).drill if documents and documents.applications else DrillRules()
    location = given.Vaulting(vault, password_file, password_secret, wrapper=wrapper).location(
        policy.vault if policy else None
    )
    cluster = given.target(kubeconfig, context, to_kubeconfig, to_context)
    folder = folder_for(report)
    chosen = choose(location, application, given.objective(point, at), cluster)
    if dry_run:
        show_plan(chosen, location, cluster, form)
        return
    objectives = policy.objectives if policy else None
    found, failure = run(chosen, location, rules, cluster, objectives, ready, keep=keep, verbose=verbose)
    output.show(form, found.model_dump(mode="json"), lambda _: tell(found))
    unwritten = leave(found, folder) if folder else None
    # standard output has its one JSON value already
    codes = [failing.tell(each, verbose=verbose) for each in (unwritten, failure) if each]
    if codes:
        raise typer.Exit(codes[-1])


def folder_for(report: Path | None) -> Path | None:
    """The folder for the evidence, made before anything else is.

    Raises:
        ConfigError: It cannot be made.
    """
    if report is None:
        return None
    try:
        report.mkdir(parents=True, exist_ok=True)
    except OSError as wrong:
        raise ConfigError(f"--report {report} cannot be made: {wrong.strerror}") from wrong
    return report


def show_plan(chosen: CataloguedPoint, location: VaultLocation, cluster: ClusterRef, form: flags.Form) -> None:
    """What a drill would do; nothing is created.

    Raises:
        PlanBlocked: It would not.
    """
    from kube.isolation import isolate, mappings_of

    run_id = new_id()
    planned, isolation = isolate(planned_whole(chosen, mappings_of(chosen.point, run_id), location, cluster), run_id)

    def draw() -> None:
        draw_plan(output.console(), planned.plan, chosen, now())
        for each in isolation:
            output.say(f"apart     {each}")

    output.show(form, {**planned.plan.as_json(), "isolation": list(isolation)}, lambda _: draw())
    refuse(planned.plan, is_shown=form is flags.Form.TABLE)


def run(
    chosen: CataloguedPoint,
    location: VaultLocation,
    rules: DrillRules,
    cluster: ClusterRef,
    objectives: Objectives | None,
    ready: timedelta,
    *,
    keep: bool,
    verbose: bool,
) -> tuple[DrillReport, RecoveryError | None]:
    """The flow, on the very point that was chosen; its report, and its failure if it failed.

    Raises:
        RefloatError: It failed before there was anything to report.
    """
    from cli.progress import showing
    from cli.running import prefect_server, run_flow

    run_id = new_id()
    with prefect_server() as url:
        from flows.drill import drill as flow
    try:
        with showing(verbose=verbose):
            report = run_flow(
                url,
                lambda: flow(
                    application=chosen.point.application,
                    vault=location,
                    rules=rules,
                    objective=Objective(point=chosen.point.id),
                    cluster=cluster,
                    objectives=objectives,
                    ready_timeout=ready,
                    keep=keep,
                    run=run_id,
                ),
                left=f"refloat sweep --run {run_id} removes what was made" if keep else "all of the drill was removed",
            )
    except RecoveryError as failure:
        if not isinstance(failure.evidence, DrillReport):
            raise
        return failure.evidence, failure
    return report, None


def leave(report: DrillReport, folder: Path) -> ConfigError | None:
    """Write the evidence down, and give what kept it from being written; files of other drills stay."""
    base = f"drill-{report.application}-{report.run}"
    texts = {"md": markdown(report), "html": html(report), "json": report.model_dump_json(indent=2) + "\n"}
    try:
        for ending, text in texts.items():
            (folder / f"{base}.{ending}").write_text(text)
    except OSError as wrong:
        return ConfigError(f"the evidence cannot be written into --report {folder}: {wrong.strerror}")
    output.remark(f"evidence  {folder}/{base}.md, .html and .json")
    return None


def tell(report: DrillReport) -> None:
    """The result in a few lines."""
    passed = sum(each.passed for each in report.assertions)
    output.say(
        f"drill     {'passed' if report.passed else 'FAILED'}: {report.application} from {report.point_id}, "
        f"{passed} of {output.many(len(report.assertions), 'assertion')} passed"
    )
    if report.achieved_rto is not None:
        output.say(f"RTO       {output.span(report.achieved_rto)}   RPO {output.span(report.achieved_rpo)}")
    if report.kept:
        output.say(f"kept      {', '.join(report.namespaces)}; refloat sweep --run {report.run} removes them")
