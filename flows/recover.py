"""Flow *recover*: a recovery point → the application, running again. The order of steps, nothing else."""

from __future__ import annotations

from datetime import timedelta

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.cleaning import cleaned, results
from flows.story import telling_prefect
from refloat.clock import now
from refloat.duration import Duration
from refloat.plan import Mappings, Objective
from refloat.policy import VaultLocation
from refloat.recovery_point import new_id
from refloat.report import RecoverReport, recover_report
from refloat.target import ClusterRef
from tasks.apply import apply, create_namespaces
from tasks.choose import choose
from tasks.hydrate import hydrate
from tasks.lock import shielded
from tasks.plan import plan, refuse_blocked
from tasks.probe import probe
from tasks.report import report_recover

SIDE_BY_SIDE = 8
"""Movers at once; the cluster's own scheduler places them."""


@flow(
    name="recover",
    flow_run_name="recover {application}",
    task_runner=ThreadPoolTaskRunner(max_workers=SIDE_BY_SIDE),  # type: ignore[arg-type]
    persist_result=False,
)
def recover(
    application: str,
    vault: VaultLocation,
    objective: Objective = Objective(),
    cluster: ClusterRef = ClusterRef(),
    mappings: Mappings = Mappings(),
    approved_digest: str | None = None,
    ready_timeout: Duration = timedelta(minutes=10),
    run: str | None = None,
) -> RecoverReport:
    """Recover one application: choose, plan, hydrate, apply, probe, report. Run again, it converges.

    Args:
        application: The application's name in the vault.
        vault: Where its recovery points are.
        objective: Which point: the latest, the newest before a time, or one by id.
        cluster: The target cluster.
        mappings: New names for namespaces and storage classes.
        approved_digest: The digest of the plan somebody said yes to; None when nobody was asked.
        ready_timeout: How long workloads may take to become ready.
        run: The run's id; a new one when omitted.

    Raises:
        NoEligibleRecoveryPoint: No point meets the objective.
        PlanBlocked: The plan cannot be carried out, or is no longer the one approved; nothing was created.
        ProbeFailed: A workload did not become ready in time; the message names it and why.
    """
    run, started = run or new_id(), now()
    with telling_prefect() as story, cleaned(cluster, run) as moving:
        chosen = choose(application, objective, vault, cluster)
        planned = plan(chosen, mappings, vault, cluster)
        refuse_blocked(planned.plan, approved_digest)
        create_namespaces(planned, cluster, run=run)
        story.show_progress(f"{application}: bytes into claims")
        with shielded(vault, cluster, run=run):
            for volume in planned.plan.volumes:
                if volume.action == "hydrate":
                    moving.append(hydrate.submit(volume, planned, vault, cluster, run=run))
            moved: list[int] = results(moving)
        applied = apply(planned, cluster, run=run)
        evidence = probe(planned, cluster, timeout=ready_timeout)
    return report_recover(recover_report(run, chosen, planned.plan, applied, moved, evidence, started, story.steps))
