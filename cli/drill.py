"""The command `drill`: a recovery into closed namespaces, what was asked of it, and the evidence in files."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from cli import flags, given, output
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
    location = given.Vaulting(vault, password_file, password_secret).location(policy.vault if policy else None)
    cluster = given.target(kubeconfig, context, to_kubeconfig, to_context)
    folder = folder_for(report)
    chosen = choose(location, application, given.objective(point, at), cluster)
    if dry_run:
        show_plan(chosen, location, cluster, form)
        return
    found = run(
        application, chosen, location, rules, cluster, policy.objectives if policy else None, ready, keep, verbose
    )
    failure: RecoveryError | None = None
    if isinstance(found, RecoveryError):
        failure, found = found, found.evidence  # type: ignore[assignment]
    if isinstance(found, DrillReport):
        if folder:
            leave(found, folder)
        if failure is None:
            output.show(form, found.model_dump(mode="json"), lambda _: tell(found, keep=keep))
        else:
            tell(found, keep=keep, say=output.remark)
    if failure is not None:
        raise failure


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
    application: str,
    chosen: CataloguedPoint,
    location: VaultLocation,
    rules: DrillRules,
    cluster: ClusterRef,
    objectives: Objectives | None,
    ready: timedelta,
    keep: bool,
    verbose: bool,
) -> DrillReport | RecoveryError:
    """The flow, on the very point that was chosen; a failure that has a report is given, others are raised."""
    from cli.progress import showing
    from cli.running import prefect_server, run_flow

    with prefect_server() as url:
        from flows.drill import drill as flow
    try:
        with showing(verbose=verbose):
            return run_flow(
                url,
                lambda: flow(
                    application=application,
                    vault=location,
                    rules=rules,
                    objective=Objective(point=chosen.point.id),
                    cluster=cluster,
                    objectives=objectives,
                    ready_timeout=ready,
                    keep=keep,
                ),
                left="all of the drill was removed",
            )
    except RecoveryError as failure:
        if failure.evidence is None:
            raise
        return failure


def leave(report: DrillReport, folder: Path) -> None:
    """Write the evidence down; existing files of other drills stay."""
    base = f"drill-{report.application}-{report.run}"
    texts = {"md": markdown(report), "html": html(report), "json": report.model_dump_json(indent=2) + "\n"}
    for ending, text in texts.items():
        (folder / f"{base}.{ending}").write_text(text)
    output.remark(f"evidence  {folder}/{base}.md, .html and .json")


def tell(report: DrillReport, *, keep: bool, say: Callable[[str], None] = output.say) -> None:
    """The result in a few lines."""
    passed = sum(each.passed for each in report.assertions)
    say(
        f"drill     {'passed' if report.passed else 'FAILED'}: {report.application} from {report.point_id}, "
        f"{passed} of {output.many(len(report.assertions), 'assertion')} passed"
    )
    if report.achieved_rto is not None:
        say(f"RTO       {output.span(report.achieved_rto)}   RPO {output.span(report.achieved_rpo)}")
    if keep:
        say(f"kept      {', '.join(report.namespaces)}; refloat sweep --run {report.run} removes them")
