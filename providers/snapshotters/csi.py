"""`CsiVolumeSnapshotter`: the volume snapshotter over the CSI snapshot API, for every driver that serves it.

https://kubernetes-csi.github.io/docs/snapshot-controller.html; groups in whichever version the API serves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from kube import exposure as exposing
from kube.cluster import Cluster
from kube.discarding import ask_discard, ask_discard_content, ask_discard_group, wait_gone
from kube.home import labels_in_run, name_in_run
from kube.membership import CLAIM
from kube.runs import attend
from kube.side_by_side import in_parallel
from kube.snapshot_objects import (
    CLASS,
    CONTENT,
    GROUP,
    GROUP_CLASS,
    GROUP_LABEL,
    SNAPSHOT,
    class_of,
    group_content_of,
    state_of_snapshot,
    states_of_group,
)
from refloat.application import RUN_LABEL
from refloat.clock import Deadline, pause
from refloat.errors import Conflict, ObjectExists, ObjectMissing, Unsupported
from refloat.inventory import Volume
from refloat.ports.volume_snapshotter import Exposure, SnapshotterCapabilities, Ticket, VolumeSnapshot

CHOSEN_WITHIN = timedelta(seconds=10)
"""How long the snapshot controller is given to see which claims bear the group's label."""
GONE_WITHIN = timedelta(minutes=2)


def open_snapshotter(cluster: Cluster) -> CsiVolumeSnapshotter:
    """The snapshotter of a cluster."""
    return CsiVolumeSnapshotter(cluster)


class CsiVolumeSnapshotter:
    """The contract's verbs on one cluster; see `refloat.ports.volume_snapshotter`."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    # ---- what can be done

    def capabilities(self, volumes: Sequence[Volume]) -> SnapshotterCapabilities:
        """One snapshot class per driver; a group where all volumes share driver and namespace, and the driver can."""
        classes = sorted({self.class_for(volume) for volume in volumes})
        group = self.group_class(volumes)
        return SnapshotterCapabilities(
            group=group is not None,
            changed_blocks=False,
            snapshot_class=", ".join(classes) or None,
            group_class=group,
        )

    def class_for(self, volume: Volume) -> str:
        """The VolumeSnapshotClass a volume is cut with.

        Raises:
            Unsupported: There is none, or several without a default.
        """
        if not volume.handle:
            raise Unsupported(f"volume {volume.name} lies on {volume.driver}, which is no CSI driver: it cannot be cut")
        if not self.cluster.serves(SNAPSHOT):
            raise Unsupported(
                f"{self.cluster.name} does not serve the CSI snapshot API: volume {volume.name} cannot be cut",
                guidance="Install the snapshot controller and its CRDs (kubernetes-csi/external-snapshotter).",
            )
        chosen = class_of(self.cluster, CLASS, volume.driver)
        if chosen is None:
            raise Unsupported(
                f"volume {volume.name} cannot be cut: there is no VolumeSnapshotClass of its driver {volume.driver}",
                guidance=f"Create a VolumeSnapshotClass with driver {volume.driver}.",
            )
        return chosen

    def group_class(self, volumes: Sequence[Volume]) -> str | None:
        """The VolumeGroupSnapshotClass that cuts all these volumes at one instant; None when none can."""
        if len({(volume.driver, volume.namespace) for volume in volumes}) != 1 or not self.cluster.serves(GROUP):
            return None
        return class_of(self.cluster, GROUP_CLASS, volumes[0].driver)

    # ---- the cut

    def begin(self, volumes: Sequence[Volume], *, run: str, labels: Mapping[str, str], group: bool) -> Ticket:
        """Ask for the cuts: a group's claims bear a label of the run's own until the controller has chosen them."""
        marked = labels_in_run(run, labels)
        if group:
            return self.begin_group(volumes, run, marked)
        names = {volume.name: name_in_run(run, volume.name) for volume in volumes}

        def ask(volume: Volume | None) -> None:
            if volume is None:
                attend(self.cluster, run)
                return
            source = {"persistentVolumeClaimName": volume.claim}
            spec = {"volumeSnapshotClassName": self.class_for(volume), "source": source}
            self.create(SNAPSHOT, names[volume.name], volume.namespace, marked, spec)

        in_parallel(ask, [*volumes, None])
        return Ticket(run=run, method="volume-snapshots", volumes=tuple(volumes), names=names)

    def begin_group(self, volumes: Sequence[Volume], run: str, marked: Mapping[str, str]) -> Ticket:
        """One VolumeGroupSnapshot of exactly these claims."""
        chosen = self.group_class(volumes)
        if chosen is None:
            raise Unsupported(
                "these volumes cannot be cut at one instant: they differ in driver or namespace, or there is no "
                f"VolumeGroupSnapshotClass: {', '.join(volume.name for volume in volumes)}",
                guidance="Give the driver a VolumeGroupSnapshotClass, or accept the lower label.",
            )
        name, namespace = name_in_run(run, "group"), volumes[0].namespace

        def mark(volume: Volume | None) -> None:
            if volume is None:
                attend(self.cluster, run)
            else:
                self.label(volume, run)

        try:
            in_parallel(mark, [*volumes, None])
            selector = {"matchLabels": {GROUP_LABEL: run}}
            spec = {"volumeGroupSnapshotClassName": chosen, "source": {"selector": selector}}
            self.create(GROUP, name, namespace, marked, spec)
            self.wait_chosen(name, namespace)
        finally:
            in_parallel(lambda volume: self.label(volume, None), list(volumes))
        names = {volume.name: name for volume in volumes}
        return Ticket(run=run, method="group-snapshot", volumes=tuple(volumes), names=names)

    def create(self, kind: str, name: str, namespace: str, labels: Mapping[str, str], spec: dict[str, Any]) -> None:
        """Create a snapshot or group; this run's own of an earlier try is kept."""
        served = self.cluster.kind_of(kind)
        about = {"name": name, "namespace": namespace, "labels": dict(labels)}
        try:
            self.cluster.create(
                {"apiVersion": served.api_version, "kind": served.kind, "metadata": about, "spec": spec}
            )
        except ObjectExists:
            there = self.cluster.get(kind, name, namespace)
            if there["spec"]["source"] != spec["source"] or "deletionTimestamp" in there["metadata"]:
                raise Conflict(f"{kind} {namespace}/{name} exists and is no cut of this run's") from None

    def label(self, volume: Volume, run: str | None) -> None:
        """Put the group's label on a claim, or take it off; a claim that is gone has none."""
        try:
            self.cluster.patch(CLAIM, volume.claim, volume.namespace, {"metadata": {"labels": {GROUP_LABEL: run}}})
        except ObjectMissing:
            if run is not None:
                raise

    def wait_chosen(self, name: str, namespace: str) -> None:
        """Wait until the controller has listed the group's claims: its content exists, or it said why not.

        The controller lists them once, before it makes the content (external-snapshotter, createGroupSnapshotContent).
        """
        deadline = Deadline.after(CHOSEN_WITHIN)
        while not deadline.is_over:
            group = self.cluster.get(GROUP, name, namespace)
            if (group.get("status") or {}).get("error") or group_content_of(self.cluster, group) is not None:
                return
            pause(timedelta(milliseconds=20))

    def poll(self, ticket: Ticket) -> tuple[VolumeSnapshot, ...]:
        """The present states, each instant as exact as the driver gives it."""
        is_group = ticket.method == "group-snapshot"
        known = [
            VolumeSnapshot(
                volume=volume,
                name=ticket.names[volume.name],
                namespace=volume.namespace,
                state="pending",
                group=ticket.names[volume.name] if is_group else None,
            )
            for volume in ticket.volumes
        ]
        if is_group:
            return states_of_group(self.cluster, known[0].name, known)
        if len(known) == 1:
            return (state_of_snapshot(self.cluster, known[0]),)
        return tuple(in_parallel(lambda each: state_of_snapshot(self.cluster, each), known))

    # ---- the mover's view of it

    def expose(self, snapshot: VolumeSnapshot, *, run: str, labels: Mapping[str, str]) -> Exposure:
        """Static content, bound snapshot and claim in refloat's own namespace."""
        attend(self.cluster, run)
        return exposing.expose(self.cluster, snapshot, run=run, labels=labels)

    def changes(self, base: VolumeSnapshot, target: VolumeSnapshot) -> Sequence[tuple[int, int]]:
        """No CSI driver of file systems tells changed ranges through the snapshot API."""
        raise Unsupported(f"changed blocks between {base.name} and {target.name} cannot be told by the snapshot API")

    def withdraw(self, exposure: Exposure) -> None:
        """Remove claim, volume, snapshot and content in refloat's namespace, and wait until they are gone."""
        exposing.withdraw(self.cluster, exposure.claim)

    # ---- the end

    def discard(self, snapshot: VolumeSnapshot) -> None:
        """Delete the cut with its data; a member of a group takes the whole group with it."""
        kind, ask = (GROUP, ask_discard_group) if snapshot.group else (SNAPSHOT, ask_discard)
        found = self.cluster.find(kind, snapshot.group or snapshot.name, snapshot.namespace)
        going = ask(self.cluster, found) if found is not None else []
        if found is None and snapshot.content:
            left = self.cluster.find(CONTENT, snapshot.content)
            going = ask_discard_content(self.cluster, CONTENT, left) if left is not None else []
        wait_gone(self.cluster, going, within=GONE_WITHIN)

    def orphans(self, *, run: str | None = None) -> Sequence[Mapping[str, Any]]:
        """Snapshots, groups and contents that bear the label of a run."""
        wanted = f"{RUN_LABEL}={run}" if run else RUN_LABEL
        kinds = [kind for kind in (GROUP, SNAPSHOT, CONTENT) if self.cluster.serves(kind)]
        found = [each for kind in kinds for each in self.cluster.list(kind, labels=wanted)]
        marked = f"{GROUP_LABEL}={run}" if run else GROUP_LABEL
        return [*found, *self.cluster.list(CLAIM, labels=marked)]
