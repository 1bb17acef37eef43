"""Run reports: what one run did, took and achieved."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime, Field

from refloat.clock import now
from refloat.duration import Duration
from refloat.plan import RecoveryPlan
from refloat.policy import ProtectionPolicy
from refloat.recovery_point import CataloguedPoint, RecoveryPoint
from refloat.values import Value


class StepTime(Value):
    """How long one step took."""

    step: str
    duration: Duration


class ProtectReport(Value):
    """The end of a protect run."""

    run: str
    application: str
    cluster: str
    vault_url: str
    point: RecoveryPoint
    snapshot_id: str
    steps: tuple[StepTime, ...]
    duration: Duration
    added_bytes: int
    verified: Literal["sample", "full", "none"]
    rpo: Duration
    achieved_rpo: Duration | None = Field(default=None, description="Cut of this point minus cut of the one before.")
    warnings: tuple[str, ...] = ()


def protect_report(
    sealed: CataloguedPoint,
    policy: ProtectionPolicy,
    previous: RecoveryPoint | None,
    ended_at: datetime,
    steps: tuple[StepTime, ...],
) -> ProtectReport:
    """The report of a run that sealed ``sealed`` after ``previous``."""
    point = sealed.point
    return ProtectReport(
        run=point.run,
        application=point.application,
        cluster=point.cluster,
        vault_url=policy.vault.url,
        point=point,
        snapshot_id=sealed.snapshot_id,
        steps=steps,
        duration=ended_at - point.started_at,
        added_bytes=sum(copy.added_bytes for copy in point.volumes),
        verified="sample",
        rpo=policy.objectives.rpo,
        achieved_rpo=point.cut_at - previous.cut_at if previous else None,
        warnings=point.warnings,
    )


class RecoverReport(Value):
    """The end of a recovery."""

    run: str
    application: str
    cluster: str
    source: CataloguedPoint
    namespaces: tuple[str, ...]
    created: int
    kept: int
    hydrated: int
    data_bytes: int
    steps: tuple[StepTime, ...]
    started_at: AwareDatetime
    achieved_rto: Duration = Field(description="From the start of the run to the last workload ready.")
    achieved_rpo: Duration = Field(description="From the point's cut to the start of the run.")
    evidence: tuple[str, ...] = Field(default=(), description="What the probe saw, one line a workload.")
    warnings: tuple[str, ...] = ()


def recover_report(
    run: str,
    source: CataloguedPoint,
    plan: RecoveryPlan,
    created: int,
    hydrated_bytes: Sequence[int],
    evidence: Sequence[str],
    started_at: datetime,
    steps: tuple[StepTime, ...],
) -> RecoverReport:
    """The report of a recovery that carried out ``plan`` and ends now."""
    return RecoverReport(
        run=run,
        application=plan.application,
        cluster=plan.cluster,
        source=source,
        namespaces=plan.namespaces,
        created=created,
        kept=plan.count("keep"),
        hydrated=len(hydrated_bytes),
        data_bytes=sum(hydrated_bytes),
        steps=steps,
        started_at=started_at,
        achieved_rto=now() - started_at,
        achieved_rpo=started_at - source.point.cut_at,
        evidence=tuple(evidence),
        warnings=plan.warnings,
    )
