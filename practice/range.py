"""`PracticeRange`: a whole practice range in one process, from the first object to the last process gone."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import TracebackType

import yaml

from practice.access import Access, Identity
from practice.admission import DEFAULT_CLASS
from practice.containers import Pods
from practice.controllers.claims import Claims
from practice.controllers.garbage import Garbage
from practice.controllers.groups import GroupSnapshots
from practice.controllers.jobs import Jobs
from practice.controllers.kubelet import Kubelet
from practice.controllers.loop import Loop
from practice.controllers.namespaces import Namespaces
from practice.controllers.scheduler import NODES, Scheduler
from practice.controllers.services import Services
from practice.controllers.snapshots import Snapshots
from practice.controllers.workloads import Workloads
from practice.kinds import GROUP_SNAPSHOT, SNAPSHOT, VERSION, Object
from practice.processes import Processes
from practice.server import ApiServer
from practice.store import Store, stamp
from practice.volumes import DRIVER, Volumes

CLASS = "practice"
"""The name of its StorageClass, VolumeSnapshotClass and VolumeGroupSnapshotClass."""
_NAMESPACES = ("default", "kube-system")


class PracticeRange:
    """A practice range below the folder ``root``, which it makes; a snapshot is ready ``ready_after`` its cut.

    A context manager, once: inside the block the API server answers and pods run; after it nothing of them is left but
    the volumes' and snapshots' folders.
    """

    def __init__(self, root: Path, ready_after: timedelta = timedelta(0)) -> None:
        self.root = root.absolute()
        self.root.mkdir(parents=True, exist_ok=True)
        self.access = Access()
        self._ready_after = ready_after
        self._store = Store()
        self._loop = Loop(self._store)

    def __enter__(self) -> PracticeRange:
        volumes = Volumes(self.root)
        self._processes = Processes()
        self._kubelet = Kubelet(self._store, self._loop, Pods(self._store, volumes, self.root), self._processes)
        self._server = ApiServer(self._store, self.access, self._kubelet, self._processes)
        self._seed()
        self._loop.start(
            [
                Namespaces(self._store),
                Scheduler(self._store),
                Claims(self._store, volumes),
                self._kubelet,
                Workloads(self._store),
                Jobs(self._store),
                Services(self._store),
                Snapshots(self._store, volumes, self._kubelet, self._ready_after),
                GroupSnapshots(self._store, volumes, self._kubelet, self._ready_after),
                Garbage(self._store),
            ]
        )
        self._server.start()
        self.server_url = self._server.url
        self.kubeconfig = self.kubeconfig_for(self.access.admin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()
        self._loop.stop()
        self._kubelet.close()
        self._processes.close()

    def kubeconfig_for(self, identity: Identity) -> Path:
        """A kubeconfig that only this user can read, with the identity's token; the identity is let in."""
        self.access.admit(identity)
        path = self.root / f"kubeconfig-{identity.name}.yaml"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": CLASS, "cluster": {"server": self.server_url}}],
            "users": [{"name": identity.name, "user": {"token": identity.token}}],
            "contexts": [{"name": CLASS, "context": {"cluster": CLASS, "user": identity.name}}],
            "current-context": CLASS,
        }
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(document))
        return path

    def _seed(self) -> None:
        for name in _NAMESPACES:
            self._store.create("namespaces", {"metadata": {"name": name}})
        for name in NODES:
            self._seed_node(name)
        about: Object = {"name": CLASS, "annotations": {DEFAULT_CLASS: "true"}}
        self._store.create(
            "storageclasses.storage.k8s.io",
            {"metadata": about, "provisioner": DRIVER, "volumeBindingMode": "WaitForFirstConsumer"},
        )
        self._store.create(
            "csidrivers.storage.k8s.io", {"metadata": {"name": DRIVER}, "spec": {"attachRequired": False}}
        )
        for key, annotation in (
            (f"volumesnapshotclasses.{SNAPSHOT}", "snapshot.storage.kubernetes.io/is-default-class"),
            (f"volumegroupsnapshotclasses.{GROUP_SNAPSHOT}", "groupsnapshot.storage.kubernetes.io/is-default-class"),
        ):
            about = {"name": CLASS, "annotations": {annotation: "true"}}
            self._store.create(key, {"metadata": about, "driver": DRIVER, "deletionPolicy": "Delete"})

    def _seed_node(self, name: str) -> None:
        labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
        self._store.create("nodes", {"metadata": {"name": name, "labels": labels}, "spec": {}})
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": stamp()}
        status = {"conditions": [ready], "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}
        status["nodeInfo"] = {"kubeletVersion": VERSION, "operatingSystem": "linux"}  # type: ignore[assignment]
        self._store.change("nodes", None, name, lambda new: new.update(status=status))
