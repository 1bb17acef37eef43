"""Flow *protect*: an application → one sealed recovery point. The order of steps, nothing else."""

from __future__ import annotations

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from blocks.documents import application_of, policy_of
from flows.cleaning import cleaned, results
from flows.story import telling_prefect
from refloat.application import Application
from refloat.clock import now
from refloat.policy import ProtectionPolicy
from refloat.recovery_point import VolumeCopy, copy_in, new_id
from refloat.report import ProtectReport, protect_report
from refloat.target import ClusterRef
from tasks.certify import certify
from tasks.discover import discover
from tasks.export_manifests import export_manifests
from tasks.group_snapshot import CUT_LIMIT, group_snapshot, late_cut
from tasks.lease import alone
from tasks.lock import locked
from tasks.preflight import last_cut, preflight
from tasks.quiesce import quiesce
from tasks.recheck import recheck
from tasks.report import report_protect
from tasks.seal import Facts, seal
from tasks.upload import upload
from tasks.verify import verify

SIDE_BY_SIDE = 8
"""Movers at once; the cluster's own scheduler places them."""


@flow(
    name="protect",
    flow_run_name="protect {application.name}",
    task_runner=ThreadPoolTaskRunner(max_workers=SIDE_BY_SIDE),  # type: ignore[arg-type]
    persist_result=False,
)
def protect(
    application: Application | str,
    policy: ProtectionPolicy | str,
    cluster: ClusterRef = ClusterRef(),
    run: str | None = None,
) -> ProtectReport:
    """Protect one application: discover, preflight, export, quiesce, cut, certify, upload, seal, verify, sweep, report.

    Args:
        application: The Application document, or the name of a block that holds it.
        policy: The ProtectionPolicy document, or the name of a block that holds it.
        cluster: Where the application runs.
        run: The run's id; a new one when omitted.

    Raises:
        RefloatError: The step that failed names it; what the run created is gone, and nothing was sealed unless
            the failure is the verification's.
    """
    app, rules, run, started = application_of(application), policy_of(policy), run or new_id(), now()
    with telling_prefect() as story, cleaned(cluster, run) as moving:
        inventory = discover(app, cluster)
        cleared = preflight(app, inventory, rules, cluster)
        with alone(app, cluster, run=run) as lease, locked(app.name, rules.vault, cluster, run=run) as previous:
            last_cut(app, cleared.hold, previous)
            export = export_manifests(inventory)
            exported = now()
            with quiesce(app, inventory, cleared.hold, lease, cluster) as still:
                within = CUT_LIMIT if still.left is None else still.left
                cut = group_snapshot(
                    inventory, cluster, run=run, group=cleared.group, within=within, instant=still.instant,
                    last=still.last, between=still.between,
                )  # fmt: skip
            if cut.is_late:
                cut = late_cut(cut, inventory, cluster, run=run, group=cleared.group)
            seen = recheck(app, inventory, cluster)
            certificate = certify(app, rules, cut, still.parts, cleared.hold.unheld, seen.changes)
            story.show_progress(f"{app.name}: bytes into the vault")
            for snapshot in cut.snapshots:
                parent, chunks = copy_in(previous, snapshot.volume.name), rules.chunks_of(snapshot.volume.claim)
                moving.append(
                    upload.submit(snapshot, app.name, rules.vault, cluster, run=run, parent=parent, chunks=chunks)
                )
            copies: list[VolumeCopy] = results(moving)
            facts = Facts(run, started, exported, certificate, still.hooks, seen.warnings, still.added)
            sealed = seal(inventory, export, copies, facts, rules, cluster)
        verify(sealed, rules.vault, cluster)
    return report_protect(protect_report(sealed, rules, previous, now(), story.steps))
