"""Run reports: what one run did, took and achieved."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from refloat.duration import Duration
from refloat.recovery_point import CataloguedPoint, RecoveryPoint, Value


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
