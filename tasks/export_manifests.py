"""Step *export manifests*: inventory → sanitised manifests by path, staged in memory until the seal."""

from __future__ import annotations

from kube.sanitise import is_exported, manifest_bytes, manifest_path
from refloat.export import Export
from refloat.inventory import Inventory
from refloat.recovery_point import ObjectCopy
from tasks.step import note, step


@step("export manifests")
def export_manifests(inventory: Inventory) -> Export:
    """Sanitise every object that must be created again; what controllers make themselves is left to them."""
    copies: list[ObjectCopy] = []
    manifests: dict[str, bytes] = {}
    for found in inventory.objects:
        if not is_exported(found, inventory):
            continue
        path = manifest_path(found.ref)
        manifests[path] = manifest_bytes(found.manifest)
        copies.append(
            ObjectCopy(
                ref=found.ref, api_version=str(found.manifest["apiVersion"]), path=path, reason=str(found.reason)
            )
        )
    note("export manifests", f"{len(copies)} manifests, {sum(map(len, manifests.values()))} bytes")
    return Export(tuple(copies), manifests)
