"""`CsiVolumeSnapshotter`: volume snapshots through the Kubernetes CSI snapshot API, as a group where it can be.

Fields and states follow external-snapshotter v8 (https://github.com/kubernetes-csi/external-snapshotter): a content's
``creationTime`` (nanoseconds) is the cut, ``readyToUse`` comes later; the members of a group are VolumeSnapshots which
the group owns and which name their claim.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from kube.cluster import Cluster
from kube.handover import discard_claim
from kube.home import HOME, ensure_home
from kube.membership import CLAIM
from refloat.application import LABEL_PREFIX, RUN_LABEL
from refloat.clock import now
from refloat.errors import ObjectExists, ObjectMissing, SnapshotFailed, Unsupported
from refloat.inventory import Volume
from refloat.ports.volume_snapshotter import (
    Exposure,
    SnapshotterCapabilities,
    Ticket,
    VolumeSnapshot,
    VolumeSnapshotter,
)

API = "snapshot.storage.k8s.io"
GROUP_API = "groupsnapshot.storage.k8s.io"
SNAPSHOT, CONTENT, CLASS = (f"VolumeSnapshot{part}.{API}" for part in ("", "Content", "Class"))
GROUP, GROUP_CONTENT, GROUP_CLASS = (f"VolumeGroupSnapshot{part}.{GROUP_API}" for part in ("", "Content", "Class"))
GROUP_LABEL = f"{LABEL_PREFIX}/group"
"""Label of claims while they are cut as one group: the run's id."""
IS_DEFAULT = "is-default-class"
PASSING = ("the object has been modified", "not found in the cache")
"""Words of controller errors that the controller itself cures by trying again."""
BOUND_WITHIN = timedelta(minutes=2)
GONE_WITHIN = timedelta(minutes=5)
SIDE_BY_SIDE = 16
Object = dict[str, Any]


def open_snapshotter(cluster: Cluster) -> VolumeSnapshotter:
    """The snapshotter of a cluster whose drivers speak CSI."""
    return CsiVolumeSnapshotter(cluster)


class CsiVolumeSnapshotter:
    """See ``refloat.ports.volume_snapshotter.VolumeSnapshotter``. Everything it creates carries the run's label."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    # ---- what can be done

    def capabilities(self, volumes: Sequence[Volume]) -> SnapshotterCapabilities:
        """Classes for the volumes' drivers, and whether one group snapshot takes them all.

        Raises:
            Unsupported: The API is not served, or a driver has no class, or several and no default one.
        """
        if not self._cluster.serves(SNAPSHOT):
            raise Unsupported(
                f"{self._cluster.name} serves no VolumeSnapshots",
                guidance="Install the CSI snapshot CRDs and the snapshot controller, or exclude the claims.",
            )
        drivers = sorted({volume.driver for volume in volumes})
        classes = [self._class_of(driver) for driver in drivers]
        group_class = self._group_class_of(drivers[0]) if len(drivers) == 1 else None
        one_namespace = len({volume.namespace for volume in volumes}) == 1
        return SnapshotterCapabilities(
            group=group_class is not None and one_namespace,
            changed_blocks=False,
            snapshot_class=", ".join(classes),
            group_class=group_class,
        )

    def _class_of(self, driver: str) -> str:
        found = [each for each in self._cluster.list(CLASS) if each["driver"] == driver]
        chosen = only_or_default(found)
        if chosen is None:
            names = ", ".join(each["metadata"]["name"] for each in found)
            raise Unsupported(
                f"driver {driver} has several VolumeSnapshotClasses and no default one: {names}"
                if found
                else f"driver {driver} has no VolumeSnapshotClass: its volumes cannot be cut",
                guidance=f"Annotate one of them with snapshot.storage.kubernetes.io/{IS_DEFAULT}=true."
                if found
                else "Create a VolumeSnapshotClass for the driver, or exclude its claims.",
            )
        return chosen

    def _group_class_of(self, driver: str) -> str | None:
        if not (self._cluster.serves(GROUP) and self._cluster.serves(GROUP_CLASS)):
            return None
        return only_or_default([each for each in self._cluster.list(GROUP_CLASS) if each["driver"] == driver])

    # ---- cutting

    def begin(self, volumes: Sequence[Volume], *, run: str, labels: Mapping[str, str], group: bool) -> Ticket:
        """Ask for the cuts: one VolumeGroupSnapshot, or VolumeSnapshots side by side.

        Raises:
            Unsupported: ``group`` asked for and not possible.
        """
        found, marks = self.capabilities(volumes), {**labels, RUN_LABEL: run}
        if group:
            if not found.group:
                raise Unsupported("these volumes cannot be cut as one group", guidance="Run again without a group.")
            return self._begin_group(volumes, run, marks, str(found.group_class))
        classes = {driver: self._class_of(driver) for driver in {volume.driver for volume in volumes}}
        names = {volume.name: name_for(run, volume.name) for volume in volumes}

        def cut(volume: Volume) -> None:
            spec = {
                "volumeSnapshotClassName": classes[volume.driver],
                "source": {"persistentVolumeClaimName": volume.claim},
            }
            self._create(SNAPSHOT, names[volume.name], volume.namespace, marks, spec)

        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            list(pool.map(cut, volumes))
        return Ticket(run, "volume-snapshots", tuple(volumes), names)

    def _begin_group(self, volumes: Sequence[Volume], run: str, marks: Mapping[str, str], class_name: str) -> Ticket:
        for volume in volumes:
            self._cluster.patch(
                CLAIM, volume.claim, volume.namespace, {"metadata": {"labels": {GROUP_LABEL: run}}}
            )  # fmt: skip
        name = name_for(run, "group")
        spec = {
            "volumeGroupSnapshotClassName": class_name,
            "source": {"selector": {"matchLabels": {GROUP_LABEL: run}}},
        }
        self._create(GROUP, name, volumes[0].namespace, marks, spec)
        return Ticket(run, "group-snapshot", tuple(volumes), {volume.name: name for volume in volumes})

    def _create(
        self, kind: str, name: str, namespace: str | None, labels: Mapping[str, str], spec: Object
    ) -> None:  # fmt: skip
        """Create it, or find that an earlier try of the same run has."""
        meta: Object = {"name": name, "labels": dict(labels)} | ({"namespace": namespace} if namespace else {})
        served = self._cluster.kind_of(kind)
        with suppress(ObjectExists):
            self._cluster.create(
                {"apiVersion": served.api_version, "kind": served.kind, "metadata": meta, "spec": spec}
            )  # fmt: skip

    # ---- looking

    def poll(self, ticket: Ticket) -> tuple[VolumeSnapshot, ...]:
        """The present state of every volume's snapshot; claims of a group lose its label once all are cut."""
        if ticket.method == "volume-snapshots":
            with ThreadPoolExecutor(min(SIDE_BY_SIDE, len(ticket.volumes))) as pool:
                return tuple(
                    pool.map(
                        lambda volume: self._state(volume, ticket.names[volume.name], volume.namespace), ticket.volumes
                    )
                )
        snapshots = self._poll_group(ticket)
        if all(each.cut_at for each in snapshots):
            for volume in ticket.volumes:
                with suppress(ObjectMissing):
                    self._cluster.patch(
                        CLAIM, volume.claim, volume.namespace, {"metadata": {"labels": {GROUP_LABEL: None}}}
                    )
        return snapshots

    def _poll_group(self, ticket: Ticket) -> tuple[VolumeSnapshot, ...]:
        namespace, name = ticket.volumes[0].namespace, ticket.names[ticket.volumes[0].name]
        group = self._cluster.find(GROUP, name, namespace)
        state: Literal["pending", "failed"] = "pending" if group else "failed"
        reason = None if group else f"group snapshot {namespace}/{name} is gone"
        error = (((group or {}).get("status") or {}).get("error") or {}).get("message")
        if error:
            state, reason = ("pending" if is_passing(error) else "failed"), error
        members = self._members(group) if group else {}
        if not set(members) >= {volume.claim for volume in ticket.volumes}:
            return tuple(VolumeSnapshot(v, name, namespace, state, reason=reason) for v in ticket.volumes)
        return tuple(self._state(v, members[v.claim], namespace) for v in ticket.volumes)

    def _members(self, group: Object) -> dict[str, str]:
        """Claim → name of its VolumeSnapshot."""
        uid, found = group["metadata"]["uid"], {}
        for each in self._cluster.list(SNAPSHOT, group["metadata"]["namespace"]):
            owners = {owner["uid"] for owner in each["metadata"].get("ownerReferences") or []}
            claim = each["spec"]["source"].get("persistentVolumeClaimName")
            if uid in owners and claim:
                found[claim] = each["metadata"]["name"]
        return found

    def _state(self, volume: Volume, name: str, namespace: str) -> VolumeSnapshot:
        seen = VolumeSnapshot(volume, name, namespace, "pending")
        snapshot = self._cluster.find(SNAPSHOT, name, namespace)
        if snapshot is None:
            return replace(seen, state="failed", reason=f"volume snapshot {namespace}/{name} is gone")
        status = snapshot.get("status") or {}
        bound = status.get("boundVolumeSnapshotContentName")
        content = (self._cluster.find(CONTENT, bound) if bound else None) or {}
        facts = content.get("status") or {}
        cut_at, handle = instant(facts.get("creationTime") or status.get("creationTime")), facts.get("snapshotHandle")
        error = ((status.get("error") or facts.get("error")) or {}).get("message")
        seen = replace(seen, content=bound, handle=handle, reason=error, restore_bytes=facts.get("restoreSize"))
        if cut_at is not None and handle:
            is_ready = bool(status.get("readyToUse"))
            seen = replace(seen, cut_at=cut_at, ready_at=now() if is_ready else None)
            return replace(seen, state="ready" if is_ready else "cut")
        return replace(seen, state="failed") if error and not is_passing(error) else seen

    def look(self, snapshot: VolumeSnapshot) -> VolumeSnapshot:
        """The present state of one snapshot that was cut."""
        return self._state(snapshot.volume, snapshot.name, snapshot.namespace)

    # ---- reading

    def expose(self, snapshot: VolumeSnapshot, *, run: str, labels: Mapping[str, str]) -> Exposure:
        """Bind the snapshot's content once more, statically, into refloat's namespace, and make a claim of it.

        Raises:
            SnapshotFailed: The driver does not know the snapshot any more.
        """
        ensure_home(self._cluster)
        volume, name, marks = snapshot.volume, name_for(run, snapshot.volume.name), {**labels, RUN_LABEL: run}
        content = {
            "driver": volume.driver,
            "deletionPolicy": "Retain",
            "source": {"snapshotHandle": snapshot.handle},
            "sourceVolumeMode": volume.mode,
            "volumeSnapshotRef": {"name": name, "namespace": HOME},
        }
        self._create(CONTENT, f"{HOME}-{name}", None, marks, content)
        self._create(SNAPSHOT, name, HOME, marks, {"source": {"volumeSnapshotContentName": f"{HOME}-{name}"}})
        self._wait_usable(name, volume)
        size = max(volume.requested_bytes, snapshot.restore_bytes or 0)
        claim: Object = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": str(size)}},
            "dataSource": {"apiGroup": API, "kind": "VolumeSnapshot", "name": name},
        }
        if volume.storage_class is not None:
            claim["storageClassName"] = volume.storage_class
        self._create(CLAIM, name, HOME, marks, claim)
        return Exposure(volume, HOME, name, snapshot)

    def _wait_usable(self, name: str, volume: Volume) -> None:
        def is_settled(snapshot: Object | None) -> bool:
            status = (snapshot or {}).get("status") or {}
            error = (status.get("error") or {}).get("message")
            return snapshot is None or bool(status.get("readyToUse")) or bool(error and not is_passing(error))

        what = f"snapshot of {volume.name} bound into namespace {HOME}"
        seen = self._cluster.wait(SNAPSHOT, name, HOME, is_settled, timeout=BOUND_WITHIN, what=what)
        status = (seen or {}).get("status") or {}
        if not status.get("readyToUse"):
            said = (status.get("error") or {}).get("message", "it was removed meanwhile")
            raise SnapshotFailed(f"{volume.name}: the cut cannot be read: {said}")

    def changes(self, base: VolumeSnapshot, target: VolumeSnapshot) -> Sequence[tuple[int, int]]:
        """No driver is asked yet.

        Raises:
            Unsupported: Always.
        """
        raise Unsupported(f"changed blocks between {base.name} and {target.name} are not asked of CSI drivers")

    # ---- letting go

    def withdraw(self, exposure: Exposure) -> None:
        """Remove claim, volume snapshot and content of refloat's namespace; the snapshot's data stays.

        Raises:
            NotReady: Something does not go.
        """
        claim = self._cluster.find(CLAIM, exposure.claim, HOME)
        if claim is not None:
            discard_claim(self._cluster, claim)
        self._remove(SNAPSHOT, exposure.claim, HOME)
        self._remove(CONTENT, f"{HOME}-{exposure.claim}", None)

    def discard(self, snapshot: VolumeSnapshot) -> None:
        """Delete the volume snapshot with its data; a group's member takes its whole group with it.

        Raises:
            NotReady: It does not go.
        """
        found = self._cluster.find(SNAPSHOT, snapshot.name, snapshot.namespace)
        owners = (found or {}).get("metadata", {}).get("ownerReferences") or []
        groups = [owner["name"] for owner in owners if owner["kind"] == "VolumeGroupSnapshot"]
        if groups:
            self.discard_group(groups[0], snapshot.namespace)
        elif found is not None:
            bound = (found.get("status") or {}).get("boundVolumeSnapshotContentName")
            self._delete_data_too(CONTENT, bound)
            self._remove(SNAPSHOT, snapshot.name, snapshot.namespace)

    def discard_group(self, name: str, namespace: str) -> None:
        """Delete a group snapshot, its members and their data.

        Raises:
            NotReady: It does not go.
        """
        group = self._cluster.find(GROUP, name, namespace)
        if group is None:
            return
        for member in self._members(group).values():
            status = (self._cluster.find(SNAPSHOT, member, namespace) or {}).get("status") or {}
            self._delete_data_too(CONTENT, status.get("boundVolumeSnapshotContentName"))
        bound = (group.get("status") or {}).get("boundVolumeGroupSnapshotContentName")
        self._delete_data_too(GROUP_CONTENT, bound)
        self._remove(GROUP, name, namespace)

    def _delete_data_too(self, kind: str, name: str | None) -> None:
        """A class that retains would keep scratch for ever."""
        found = self._cluster.find(kind, name) if name else None
        if found is not None and found["spec"]["deletionPolicy"] != "Delete":
            with suppress(ObjectMissing):
                self._cluster.patch(kind, str(name), None, {"spec": {"deletionPolicy": "Delete"}})

    def _remove(self, kind: str, name: str, namespace: str | None) -> None:
        gone: Callable[[Object | None], bool] = lambda obj: obj is None  # noqa: E731
        if self._cluster.delete(kind, name, namespace):
            what = f"{kind.partition('.')[0]} {namespace or ''}/{name} gone"
            self._cluster.wait(kind, name, namespace, gone, timeout=GONE_WITHIN, what=what)

    def orphans(self, *, run: str | None = None) -> Sequence[Mapping[str, Any]]:
        """Volume snapshots and their contents that carry a run's label; of one run, or of all."""
        chosen = f"{RUN_LABEL}={run}" if run else RUN_LABEL
        kinds = [kind for kind in (GROUP, SNAPSHOT, CONTENT) if self._cluster.serves(kind)]
        return [each for kind in kinds for each in self._cluster.list(kind, labels=chosen)]


def name_for(run: str, what: str) -> str:
    """A name a re-run of the same run finds again; at most 63 characters (RFC 1123 label)."""
    return f"refloat-{run}-{hashlib.sha256(what.encode()).hexdigest()[:12]}"


def only_or_default(classes: Sequence[Mapping[str, Any]]) -> str | None:
    """The class marked as default, else the only one, else None."""
    marked = [
        each
        for each in classes
        if any(k.endswith(f"/{IS_DEFAULT}") and v == "true" for k, v in annotations(each).items())
    ]
    chosen = marked if len(marked) == 1 else classes if len(classes) == 1 else ()
    return str(chosen[0]["metadata"]["name"]) if chosen else None


def annotations(obj: Mapping[str, Any]) -> Mapping[str, str]:
    """An object's annotations; empty when it has none."""
    return obj["metadata"].get("annotations") or {}


def is_passing(error: str) -> bool:
    """Whether the controller cures this by itself."""
    return any(words in error for words in PASSING)


def instant(value: int | str | None) -> datetime | None:
    """A content's creationTime (nanoseconds since 1970) or a meta/v1 Time as aware UTC."""
    if value is None:
        return None
    if isinstance(value, int):
        return datetime.fromtimestamp(value // 1000 / 1_000_000, UTC)
    return datetime.fromisoformat(value.replace("Z", "+00:00")).astimezone(UTC)
