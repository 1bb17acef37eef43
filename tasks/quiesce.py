"""Step *quiesce*: runs declared pre-hooks, and always the post-hooks: the period between is the hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from blocks.handles import open_cluster
from kube.hooks import plan_hooks, release, run_pre
from refloat.application import Application
from refloat.inventory import Inventory
from refloat.recovery_point import HookRecord
from refloat.target import ClusterRef
from tasks.step import note, step


@dataclass
class Hold:
    """What ran so far: pre-hooks from the start, post-hooks once the block has ended."""

    records: list[HookRecord] = field(default_factory=list)


@contextmanager
def quiesce(application: Application, inventory: Inventory, cluster: ClusterRef) -> Iterator[Hold]:
    """Open the hold, run the block, and release whatever happened in it.

    Runs in the flow's main thread. The release is a plain function, not a task: it must not depend on the
    orchestrator (research/prefect.md §3.7), and signals are ignored while it runs.

    Raises:
        QuiesceFailed: A pre-hook failed; every pod touched was released.
        ThawUnconfirmed: A post-hook failed: a pod may still be quiesced.
    """
    hold = Hold(freeze(application, inventory, cluster))
    try:
        yield hold
    finally:
        hooks = plan_hooks(application, inventory)
        if hooks:
            hold.records += release(open_cluster(cluster), hooks)
            note("quiesce", f"released after {sum(record.phase == 'post' for record in hold.records)} post-hooks")


@step("quiesce")
def freeze(application: Application, inventory: Inventory, cluster: ClusterRef) -> list[HookRecord]:
    """Run the pre-hooks, in order, each within its time."""
    hooks = plan_hooks(application, inventory)
    records = run_pre(open_cluster(cluster), hooks) if hooks else []
    note("quiesce", f"{len(records)} pre-hooks ran" if records else "no hooks declared: crash-consistent at best")
    return records
