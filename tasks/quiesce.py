"""Step *quiesce*: pre-hooks, then the hold; at its end the release, then the post-hooks, whatever happened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from blocks.handles import open_cluster
from kube.application_lease import ApplicationLease
from kube.held_part import AddedPath
from kube.hold_plan import HoldPlan
from kube.holding import Hold, held
from kube.hook_guards import check, guarded
from kube.hooks import PlannedHook, plan_hooks, release, run_pre, signals_ignored
from refloat.application import Application
from refloat.certificate import HeldPart
from refloat.clock import now
from refloat.errors import RefloatError, ThawUnconfirmed
from refloat.inventory import Inventory
from refloat.recovery_point import HookRecord
from refloat.target import ClusterRef
from tasks.step import note, step, warn


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

    @property
    def last(self) -> frozenset[str]:
        """Volumes (``namespace/claim``) to be cut after the others."""
        return self.hold.last if self.hold else frozenset()

    @property
    def added(self) -> dict[AddedPath, bytes]:
        """Files that engines gave between the cuts, by where they belong."""
        return self.hold.added if self.hold else {}

    def between(self) -> None:
        """What engines must do before the last cuts.

        Raises:
            QuiesceFailed: One could not.
        """
        if self.hold:
            self.hold.between()
            note("quiesce", f"{len(self.added)} files of engines kept for their copies")

    def instant(self) -> datetime:
        """The present one, on the hold's clock."""
        return self.hold.clock.instant() if self.hold else now()


@contextmanager
def quiesce(
    application: Application, inventory: Inventory, plan: HoldPlan, lease: ApplicationLease, cluster: ClusterRef
) -> Iterator[Quiesced]:
    """Hold the application, run the block, and let go whatever happened in it; it is on record meanwhile.

    Runs in the flow's main thread. Nothing in it is a task but the pre-hooks, and nothing waits for the orchestrator
    (research/prefect.md §3.7); signals are ignored while it lets go.

    Raises:
        LeaseHeld: Another run took the application; nothing was touched.
        QuiesceFailed: A pre-hook failed or a part could not be held; everything touched was let go.
        ThawUnconfirmed: Something may still be quiesced; the message holds the command for it.
    """
    hooks = plan_hooks(application, inventory)
    with (
        on_record(lease, plan, application, hooks),
        guarded_hooks(hooks, application, cluster, run=lease.run) as guards,
    ):
        state = Quiesced(run_hooks(hooks, cluster))
        try:
            if not plan.parts:
                yield state
            else:
                with held(open_cluster(cluster), plan.parts, application.hold, run=lease.run) as state.hold:
                    yield state
                note("quiesce", f"{len(plan.parts)} parts held and let go")
            check(guards)
        finally:
            if hooks:
                state.hooks += release(open_cluster(cluster), hooks)
                ran = sum(record.phase == "post" for record in state.hooks)
                note("quiesce", f"released after {ran} post-hooks")


@contextmanager
def guarded_hooks(
    hooks: Sequence[PlannedHook], application: Application, cluster: ClusterRef, *, run: str
) -> Iterator[list[Hold]]:
    """As `kube.hook_guards.guarded`; without hooks the cluster is not asked."""
    if not hooks:
        yield []
        return

    def told(text: str) -> None:
        warn("quiesce", text)

    with guarded(open_cluster(cluster), hooks, application.hold, run=run, warn=told) as guards:
        yield guards


@contextmanager
def on_record(
    lease: ApplicationLease, plan: HoldPlan, application: Application, hooks: Sequence[PlannedHook]
) -> Iterator[None]:
    """Write down what the block may freeze, before it does; the record stays where something was not let go."""
    if not plan.parts and not hooks:
        yield
        return
    lease.record_hold(plan.parts, application.hold, hooks)
    try:
        yield
    except ThawUnconfirmed:
        raise
    except BaseException:
        with signals_ignored(), suppress(RefloatError):  # the first failure is the one to tell; the janitor asks again
            lease.hold_is_over()
        raise
    with signals_ignored():
        lease.hold_is_over()


@step("quiesce")
def run_hooks(hooks: Sequence[PlannedHook], cluster: ClusterRef) -> list[HookRecord]:
    """Run the pre-hooks, in order, each within its time."""
    records = run_pre(open_cluster(cluster), hooks) if hooks else []
    note("quiesce", f"{len(records)} pre-hooks ran" if records else "no hooks declared")
    return records
