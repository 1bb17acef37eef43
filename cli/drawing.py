"""Tables for people: recovery points and a recovery plan."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from cli.output import binary, size, span
from refloat.plan import RecoveryPlan
from refloat.recovery_point import CataloguedPoint, age

if TYPE_CHECKING:
    from rich.console import Console


def draw_points(console: Console, found: Sequence[CataloguedPoint], at: datetime, *, with_application: bool) -> None:
    """One line a point; ages as of ``at``."""
    if not found:
        return
    rows = [
        [
            each.point.id,
            *([each.point.application] if with_application else []),
            span(age(each.point, at)),
            f"{each.point.cut_at:%Y-%m-%d %H:%M:%S}Z",
            each.point.consistency.value,
            str(len(each.point.objects)),
            str(len(each.point.volumes)),
            size(each.point.data_bytes),
        ]
        for each in found
    ]
    heads = [
        "POINT",
        *(["APPLICATION"] if with_application else []),
        "AGE",
        "CUT",
        "LABEL",
        "OBJECTS",
        "VOLUMES",
        "SIZE",
    ]
    draw_rows(console, heads, rows, right=("OBJECTS", "VOLUMES", "SIZE"))


def draw_plan(console: Console, plan: RecoveryPlan, chosen: CataloguedPoint, at: datetime) -> None:
    """What a recovery would do: the point, the counts, every volume and object by level, and what blocks."""
    point = chosen.point
    console.print(
        f"plan      {plan.application}: point {point.id} of {point.cut_at:%Y-%m-%d %H:%M:%S}Z "
        f"({span(age(point, at))} ago, {point.consistency.value})"
    )
    console.print(f"          → cluster {plan.cluster}, namespace{'s' if len(plan.namespaces) > 1 else ''} "
                  f"{', '.join(plan.namespaces)}")  # fmt: skip
    created = plan.count("create") + plan.count("hydrate")
    console.print(
        f"          create {created}  keep {plan.count('keep')}  conflict {plan.count('conflict')}  "
        f"blockers {len(plan.blockers)}  data {size(sum(v.data_bytes for v in plan.volumes if v.action == 'hydrate'))}"
    )
    rows = []
    for volume in plan.volumes:
        storage = (
            f"{size(volume.data_bytes)} into {binary(volume.requested_bytes)}, {volume.storage_class or 'default'}"
        )
        what = f"claim {volume.namespace}/{volume.claim}"
        rows.append([volume.action, "volumes", what, volume.detail or storage])
    for step in sorted(plan.objects, key=lambda each: (each.level, str(each.ref))):
        rows.append([step.action, f"level {step.level}", str(step.ref), step.detail])
    draw_rows(console, ["ACTION", "WHEN", "WHAT", "DETAIL"], rows)
    for text in plan.warnings:
        console.print(f"warning   {text}")
    for blocker in plan.blockers:
        console.print(f"blocked   {blocker.subject}: {blocker.reason}")
        console.print(f"  do      {blocker.do}")


def draw_rows(
    console: Console, heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()
) -> None:
    """A table without lines, as kubectl's."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for head in heads:
        table.add_column(head, justify="right" if head in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
