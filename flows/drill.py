"""Flow *drill*: a recovery into closed namespaces of its own, asked whether it is right, and removed again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.cleaning import cleaned, results
from flows.story import Story, telling_prefect
from kube.hooks import signals_ignored
from kube.isolation import isolate as isolated
from kube.isolation import mappings_of
from refloat import __version__
from refloat.application import DrillRules
from refloat.clock import now
from refloat.drill import AssertionResult, DrillReport
from refloat.duration import Duration
from refloat.errors import DrillFailed, ObjectiveMissed, RefloatError
from refloat.plan import Objective, Planned
from refloat.policy import Objectives, VaultLocation
from refloat.recovery_point import CataloguedPoint, new_id
from refloat.target import ClusterRef
from tasks.apply import apply, create_namespaces
from tasks.assess import assess
from tasks.choose import choose
from tasks.hydrate import hydrate
from tasks.isolate import isolate
from tasks.lock import shielded
from tasks.plan import plan, refuse_blocked
from tasks.probe import probe
from tasks.report import report_drill
from tasks.sweep import sweep

SIDE_BY_SIDE = 8
"""Movers at once; the cluster's own scheduler places them."""


@dataclass
class Drilled:
    """What is known so far of one drill; a report can be made of it at any moment."""

    run: str
    cluster: str
    started: datetime
    chosen: CataloguedPoint
    planned: Planned
    isolation: tuple[str, ...]
    evidence: list[str] = field(default_factory=list)
    assertions: list[AssertionResult] = field(default_factory=list)
    failure: str = ""
    rto: timedelta | None = None
    removed: bool = False
    kept: bool = False

    def report(self, story: Story, objectives: Objectives | None) -> DrillReport:
        """As it is now."""
        point = self.chosen.point
        return DrillReport(
            run=self.run,
            application=point.application,
            cluster=self.cluster,
            point_id=point.id,
            consistency=point.consistency,
            cut_at=point.cut_at,
            started_at=self.started,
            namespaces=self.planned.plan.namespaces,
            isolation=self.isolation,
            steps=story.steps,
            evidence=tuple(self.evidence),
            assertions=tuple(self.assertions),
            failure=self.failure,
            achieved_rto=self.rto,
            achieved_rpo=self.started - point.cut_at,
            rto=objectives.rto if objectives else None,
            rpo=objectives.rpo if objectives else None,
            removed=self.removed,
            kept=self.kept,
            refloat_version=__version__,
        )


@flow(
    name="drill",
    flow_run_name="drill {application}",
    task_runner=ThreadPoolTaskRunner(max_workers=SIDE_BY_SIDE),  # type: ignore[arg-type]
    persist_result=False,
)
def drill(
    application: str,
    vault: VaultLocation,
    rules: DrillRules = DrillRules(),
    objective: Objective = Objective(),
    cluster: ClusterRef = ClusterRef(),
    objectives: Objectives | None = None,
    ready_timeout: Duration = timedelta(minutes=10),
    keep: bool = False,
    run: str | None = None,
) -> DrillReport:
    """Drill one application: choose, plan, isolate, hydrate, apply, probe, assess, remove, report.

    Args:
        application: The application's name in the vault.
        vault: Where its recovery points are.
        rules: The assertions to try, from the application's document.
        objective: Which point: the latest, the newest before a time, or one by id.
        cluster: Where it is drilled; production may run beside it and is not touched.
        objectives: What RTO and RPO are compared with.
        ready_timeout: How long workloads may take to become ready.
        keep: Leave the drill's namespaces, for a look; ``refloat sweep --run`` removes them.
        run: The run's id; a new one when omitted.

    Raises:
        NoEligibleRecoveryPoint, PlanBlocked: There is nothing to drill; nothing was created.
        DrillFailed: The recovery, an assertion or the removal failed. Its ``evidence`` is the `DrillReport`.
        ObjectiveMissed: All went well, but too slowly, or with too old a point. It has the ``evidence`` as well.
    """
    run, started = run or new_id(), now()
    with telling_prefect() as story:
        chosen = choose(application, objective, vault, cluster)
        mappings = mappings_of(chosen.point, run)
        planned, isolation = isolated(plan(chosen, mappings, vault, cluster), run)
        refuse_blocked(planned.plan)
        work = Drilled(run, planned.plan.cluster, started, chosen, planned, isolation, kept=keep)
        with removed(work, cluster), cleaned(cluster, run) as moving:
            create_namespaces(planned, cluster, run=run)
            isolate(planned, cluster, run=run)
            story.show_progress(f"{application}: bytes into claims")
            with shielded(vault, cluster, run=run):
                for volume in planned.plan.volumes:
                    moving.append(hydrate.submit(volume, planned, vault, cluster, run=run))
                results(moving)
            apply(planned, cluster, run=run)
            work.evidence = probe(planned, cluster, timeout=ready_timeout)
            work.assertions = assess(rules.assertions, mappings.namespaces, cluster)
            work.rto = now() - started
    return judged(report_drill(work.report(story, objectives)))


@contextmanager
def removed(work: Drilled, cluster: ClusterRef) -> Iterator[None]:
    """Run the block; whatever becomes of it, remove all of the drill unless it is kept. Its failure goes to the report.

    An interruption, or a failure that is a fault of refloat itself, removes everything as well, and goes on.
    """
    try:
        yield
    except RefloatError as failure:
        work.failure = f"{failure.code}: {failure.message}"
    finally:
        if not work.kept:
            with signals_ignored():
                try:
                    sweep.fn(cluster, run=work.run)
                    work.removed = True
                except RefloatError as left:
                    work.failure = "; ".join(filter(None, (work.failure, f"not removed: {left.message}")))


def judged(report: DrillReport) -> DrillReport:
    """The report, when the drill passed.

    Raises:
        DrillFailed: Something failed.
        ObjectiveMissed: Nothing did, but an objective was missed.
    """
    found: Sequence[str] = report.failed or report.missed
    if not found:
        return report
    kind = DrillFailed if report.failed else ObjectiveMissed
    failure = kind(f"drill {report.run} of {report.application}: " + "; ".join(found))
    failure.evidence = report
    raise failure
