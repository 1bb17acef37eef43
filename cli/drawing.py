"""Tables and trees for people: an inventory, recovery points, a recovery plan."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from cli.output import many, size, span
from refloat.inventory import Found, Inventory
from refloat.plan import RecoveryPlan
from refloat.recovery_point import CataloguedPoint, ObjectRef, age

if TYPE_CHECKING:
    from rich.console import Console
    from rich.tree import Tree

CLAIM = "PersistentVolumeClaim"


def draw_inventory(console: Console, inventory: Inventory) -> None:
    """What belongs and why, as a tree: what is owned below its owner, what is referred to below who refers to it."""
    from rich.text import Text
    from rich.tree import Tree

    volumes = {(each.namespace, each.claim): each for each in inventory.volumes}
    namespaces = {each.ref.namespace for each in inventory.objects if each.ref.namespace}
    parents = parents_of(inventory)

    def line(found: Found) -> str:
        ref = found.ref
        where = f"{ref.namespace}/" if len(namespaces) > 1 and ref.namespace else ""
        text = f"{ref.kind.partition('.')[0]} {where}{ref.name}"
        volume = volumes.get((ref.namespace, ref.name)) if ref.kind == CLAIM else None
        if volume:
            text += f" ({size(volume.requested_bytes)}, {volume.storage_class or 'no class'}, {volume.phase})"
            text += f" ── PersistentVolume {volume.volume_name}" if volume.volume_name else ""
        return f"{text}    {found.reason}" if found.reason.source or parents.get(ref) is None else text

    def grow(tree: Tree, parent: ObjectRef | None) -> None:
        for found in inventory.objects:
            if parents.get(found.ref) == parent:
                grow(tree.add(Text(line(found))), found.ref)

    tree = Tree(Text(inventory.application))
    grow(tree, None)
    if inventory.shared:
        tree.add(Text("shared with others: " + ", ".join(str(ref) for ref in inventory.shared)))
    console.print(tree)
    total = sum(volume.requested_bytes for volume in inventory.volumes)
    console.print(
        f"{many(len(inventory.objects), 'object')}, "
        f"{many(len(inventory.volumes), 'volume')} ({size(total)} asked for), {many(len(inventory.pods), 'pod')}"
        + (f"; {many(len(inventory.excluded), 'object')} excluded" if inventory.excluded else "")
    )


def parents_of(inventory: Inventory) -> dict[ObjectRef, ObjectRef | None]:
    """Where each object hangs: its owner, else whoever refers to it; None at the top."""
    by_uid = {each.manifest["metadata"].get("uid"): each.ref for each in inventory.objects}
    parents: dict[ObjectRef, ObjectRef | None] = {}
    for each in inventory.objects:
        owners = each.manifest["metadata"].get("ownerReferences") or []
        owner = next((by_uid[o["uid"]] for o in owners if o["uid"] in by_uid), None)
        source = each.reason.source if not each.reason.relation.startswith("owner") else None
        parents[each.ref] = owner or (source if source in by_uid.values() else None)
    for ref, parent in list(parents.items()):  # a circle of references is cut where it is entered
        seen, at = {ref}, parent
        while at is not None and at not in seen:
            seen.add(at)
            at = parents[at]
        if at == ref:
            parents[ref] = None
    return parents


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
        storage = f"{size(volume.data_bytes)} into {size(volume.requested_bytes)}, {volume.storage_class or 'default'}"
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
