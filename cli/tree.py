"""An inventory as a tree for people: what is owned below its owner, what is referred to below who refers to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cli.output import binary, many
from kube.membership import CLAIM, Graph
from refloat.inventory import Found, Inventory, Volume
from refloat.recovery_point import ObjectRef

if TYPE_CHECKING:
    from rich.console import Console
    from rich.tree import Tree

OWNERSHIP = ("owner of", "owned by")


def draw_inventory(console: Console, inventory: Inventory) -> None:
    """What belongs and why, and how much it is."""
    from rich.text import Text
    from rich.tree import Tree as Branch

    places, volumes = hang(inventory), {(each.namespace, each.claim): each for each in inventory.volumes}
    several = len({each.ref.namespace for each in inventory.objects if each.ref.namespace}) > 1

    def grow(branch: Tree, parent: ObjectRef | None) -> None:
        for found in inventory.objects:
            under, relation = places.get(found.ref, (None, ""))
            if under == parent:
                text = line(found, volumes.get((found.ref.namespace, found.ref.name)), relation, several=several)
                grow(branch.add(Text(text)), found.ref)

    tree = Branch(Text(inventory.application))
    grow(tree, None)
    if inventory.shared:
        tree.add(Text("shared with others: " + ", ".join(short(ref) for ref in inventory.shared)))
    console.print(tree)
    asked = binary(sum(volume.requested_bytes for volume in inventory.volumes))
    counts = [many(len(inventory.objects), "object"), f"{many(len(inventory.volumes), 'volume')} (asked for: {asked})"]
    counts += [many(len(inventory.pods), "pod")]
    counts += [f"{many(len(inventory.excluded), 'object')} excluded"] if inventory.excluded else []
    console.print(", ".join(counts))


def short(ref: ObjectRef) -> str:
    """``StatefulSet db``."""
    return f"{ref.kind.partition('.')[0]} {ref.name}"


def line(found: Found, volume: Volume | None, relation: str, *, several: bool) -> str:
    """One object: its name, the storage of a claim, and why it hangs where it hangs."""
    ref = found.ref
    text = f"{ref.kind.partition('.')[0]} {ref.namespace}/{ref.name}" if several and ref.namespace else short(ref)
    if ref.kind == CLAIM and volume:
        text += f" ({binary(volume.requested_bytes)}, {volume.storage_class or 'no class'}, {volume.phase})"
        text += f" ── PersistentVolume {volume.volume_name}" if volume.volume_name else ""
    if relation:
        return f"{text}    {relation}"
    return f"{text}    {found.reason}" if found.reason.relation.startswith("selected") else text


def hang(inventory: Inventory) -> Mapping[ObjectRef, tuple[ObjectRef, str]]:
    """(parent, relation) of every object that is not at the top; pods attract first what they use."""
    graph = Graph(each.manifest for each in inventory.objects)
    known = {each.ref for each in inventory.objects}
    places: dict[ObjectRef, tuple[ObjectRef, str]] = {}
    for each in inventory.objects:
        for owner in each.manifest["metadata"].get("ownerReferences") or []:
            if owner["uid"] in graph.by_uid and each.ref not in places:
                places[each.ref] = (graph.by_uid[owner["uid"]], "")
    for source in sorted(graph.objects, key=lambda ref: ref.kind != "Pod"):
        for ref, relation in graph.related(source):
            if relation not in OWNERSHIP and ref in known and ref not in places and not is_above(places, ref, source):
                places[ref] = (source, f"{relation} {source.name}")
    return places


def is_above(places: Mapping[ObjectRef, tuple[ObjectRef, str]], ref: ObjectRef, below: ObjectRef) -> bool:
    """Whether ``below`` hangs somewhere under ``ref``: hanging ``ref`` under it would close a circle."""
    at: ObjectRef | None = below
    while at is not None and at != ref:
        at = places[at][0] if at in places else None
    return at == ref
