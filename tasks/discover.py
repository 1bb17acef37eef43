"""Step *discover*: application → its inventory, that is what belongs to it and why."""

from __future__ import annotations

from blocks.handles import open_cluster
from kube.discovery import discover as discover_in
from refloat.application import Application
from refloat.inventory import Inventory
from refloat.target import ClusterRef
from tasks.step import note, step, warn


@step("discover", retries=2)
def discover(application: Application, cluster: ClusterRef) -> Inventory:
    """What belongs to the application right now.

    Raises:
        EmptySelection: Nothing does.
        ObjectMissing: A namespace does not exist.
    """
    inventory = discover_in(open_cluster(cluster), application)
    note("discover", f"{len(inventory.objects)} objects, {len(inventory.volumes)} volumes, {len(inventory.pods)} pods")
    for text in inventory.warnings:
        warn("discover", text)
    return inventory
