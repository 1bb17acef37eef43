"""The practice shop as a person handles it: opened on a cluster, orders placed and counted, lost, and compared."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from kube.cluster import Cluster
from kube.discovery import discover
from kube.readiness import wait_ready
from kube.sanitise import is_exported, manifest_bytes, manifest_path
from practice import shop
from refloat.application import Application, Member
from refloat.errors import ClusterError
from refloat.recovery_point import ObjectRef

READY_WITHIN = timedelta(minutes=2)
GONE_WITHIN = timedelta(minutes=2)
COMMAND_WITHIN = timedelta(seconds=60)


@dataclass(frozen=True)
class Shop:
    """The shop in one namespace of a cluster."""

    cluster: Cluster
    namespace: str = shop.NAMESPACE

    def open(self) -> Shop:
        """Create every object and wait until all workloads are ready."""
        for obj in shop.manifests(self.namespace):
            self.cluster.create(obj)
        return self.wait_ready()

    def wait_ready(self) -> Shop:
        """Wait until all workloads are ready.

        Raises:
            ProbeFailed: One is not within two minutes.
        """
        targets = [ObjectRef(kind=kind, namespace=self.namespace, name=name) for kind, name in shop.WORKLOADS]
        wait_ready(self.cluster, targets, timeout=READY_WITHIN, on_progress=lambda _: None)
        return self

    def place(self, count: int) -> None:
        """Place orders."""
        self._run(shop.place(count))

    def orders(self) -> dict[str, Any]:
        """How many orders there are, by tables and by journal, and their digest."""
        return dict(json.loads(self._run(shop.COUNT)))

    def lose(self) -> None:
        """Delete the namespace and everything in it, and wait until it is gone."""
        self.cluster.delete("Namespace", self.namespace)
        what = f"namespace {self.namespace} gone"
        self.cluster.wait("Namespace", self.namespace, None, lambda o: o is None, timeout=GONE_WITHIN, what=what)

    def application(self) -> Application:
        """The whole namespace as one application."""
        return Application(name="shop", members=(Member(namespace=self.namespace),))

    def manifests(self) -> dict[str, bytes]:
        """Every object a recovery point would hold, sanitised, by its path in the point."""
        inventory = discover(self.cluster, self.application())
        return {
            manifest_path(found.ref): manifest_bytes(found.manifest)
            for found in inventory.objects
            if is_exported(found, inventory)
        }

    def _run(self, command: tuple[str, ...]) -> str:
        ended = self.cluster.exec(self.namespace, shop.POD, shop.CONTAINER, command, timeout=COMMAND_WITHIN)
        if ended.exit_code != 0:
            said = ended.stderr.decode(errors="replace").strip()
            raise ClusterError(f"{' '.join(command)} in {shop.POD} ended with {ended.exit_code}: {said}")
        return ended.stdout.decode()
