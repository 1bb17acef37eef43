"""Step *quiesce*: pre-hooks, then the hold; at its end the release, then the post-hooks, whatever happened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from blocks.handles import open_cluster
from kube.hold_plan import HoldPlan
from kube.holding import Hold, held
from kube.hooks import plan_hooks, release, run_pre
from refloat.application import Application
from refloat.certificate import HeldPart
from refloat.clock import now
from refloat.inventory import Inventory
from refloat.recovery_point import HookRecord
from refloat.target import ClusterRef
from tasks.step import note, step


@dataclass
class Quiesced:
    """What runs and ran: hooks from the start, the parts' records once the block has ended."""

    hooks: list[HookRecord] = field(default_factory=list)
    hold: Hold | None = None

    @property
    def parts(self) -> list[HeldPart]:
        """What the certificate keeps of every part; empty while it is held."""
        return self.hold.records if self.hold else []

    @property
    def left(self) -> timedelta | None:
        """How long the application may still stand still; None: nothing is held, take your time."""
        return self.hold.left if self.hold else None

    def instant(self) -> datetime:
        """The present one, on the hold's clock."""
        return self.hold.clock.instant() if self.hold else now()


@contextmanager
def quiesce(
    application: Application, inventory: Inventory, plan: HoldPlan, cluster: ClusterRef, *, run: str
) -> Iterator[Quiesced]:
    """Hold the application, run the block, and let go whatever happened in it.

    Runs in the flow's main thread. Nothing in it is a task but the pre-hooks, and nothing waits for the orchestrator
    (research/prefect.md §3.7); signals are ignored while it lets go.

    Raises:
        QuiesceFailed: A pre-hook failed or a part could not be held; everything touched was let go.
        ThawUnconfirmed: Something may still be quiesced; the message holds the command for it.
    """
    state = Quiesced(run_hooks(application, inventory, cluster))
    try:
        if not plan.parts:
            yield state
        else:
            with held(open_cluster(cluster), plan.parts, application.hold, run=run) as state.hold:
                yield state
            note("quiesce", f"{len(plan.parts)} parts held and let go")
    finally:
        hooks = plan_hooks(application, inventory)
        if hooks:
            state.hooks += release(open_cluster(cluster), hooks)
            note("quiesce", f"released after {sum(record.phase == 'post' for record in state.hooks)} post-hooks")


@step("quiesce")
def run_hooks(application: Application, inventory: Inventory, cluster: ClusterRef) -> list[HookRecord]:
    """Run the pre-hooks, in order, each within its time."""
    hooks = plan_hooks(application, inventory)
    records = run_pre(open_cluster(cluster), hooks) if hooks else []
    note("quiesce", f"{len(records)} pre-hooks ran" if records else "no hooks declared")
    return records
