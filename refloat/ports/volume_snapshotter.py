"""The `VolumeSnapshotter` contract: how one kind of storage cuts, exposes and discards volume snapshots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from refloat.inventory import Volume

CONTRACT_VERSION = 1


@dataclass(frozen=True)
class SnapshotterCapabilities:
    """What the storage behind some volumes can do, as found in the cluster."""

    group: bool
    """One instant for several volumes: a group snapshot class for their driver exists and the API serves it."""
    changed_blocks: bool
    snapshot_class: str | None
    group_class: str | None


@dataclass(frozen=True)
class Ticket:
    """What ``begin`` asked for; holds names only, so that a re-run finds its own work."""

    run: str
    method: Literal["group-snapshot", "volume-snapshots"]
    volumes: tuple[Volume, ...]
    names: Mapping[str, str]
    """Volume name (``namespace/claim``) → name of its VolumeSnapshot, or of the group for a group."""


@dataclass(frozen=True)
class VolumeSnapshot:
    """State of one volume's snapshot. *cut* means the image is fixed; *ready* that it can be used as a source."""

    volume: Volume
    name: str
    namespace: str
    state: Literal["pending", "cut", "ready", "failed"]
    cut_at: datetime | None = None
    ready_at: datetime | None = None
    handle: str | None = None
    content: str | None = None
    restore_bytes: int | None = None
    reason: str | None = None
    group: str | None = None
    """The group snapshot it is a member of, whose name it bears: members have no life of their own."""


@dataclass(frozen=True)
class Cut:
    """What was asked for and seen. ``seen_at`` None: not within the time the application could stand still."""

    asked_at: datetime
    seen_at: datetime | None
    ticket: Ticket | None
    snapshots: tuple[VolumeSnapshot, ...] = ()

    @property
    def is_late(self) -> bool:
        """Whether the cut was not seen in time."""
        return self.seen_at is None


@dataclass(frozen=True)
class Exposure:
    """A claim in refloat's own namespace through which a mover reads one snapshot."""

    volume: Volume
    namespace: str
    claim: str
    snapshot: VolumeSnapshot


class VolumeSnapshotter(Protocol):
    """All verbs are idempotent on (run, volume): a re-run after a crash finds and finishes its own work."""

    def capabilities(self, volumes: Sequence[Volume]) -> SnapshotterCapabilities:
        """What can be done for these volumes.

        Raises:
            Unsupported: A volume has no snapshot class for its driver, or is of a kind that cannot be cut.
        """
        ...

    def begin(self, volumes: Sequence[Volume], *, run: str, labels: Mapping[str, str], group: bool) -> Ticket:
        """Ask for the cuts and return at once; with ``group``, one instant for all.

        Raises:
            Unsupported: ``group`` asked for and not possible.
        """
        ...

    def poll(self, ticket: Ticket) -> tuple[VolumeSnapshot, ...]:
        """The present state of every volume's snapshot, in the ticket's order."""
        ...

    def expose(self, snapshot: VolumeSnapshot, *, run: str, labels: Mapping[str, str]) -> Exposure:
        """Bind the content into refloat's namespace as a claim a mover can mount; the source is not touched."""
        ...

    def changes(self, base: VolumeSnapshot, target: VolumeSnapshot) -> Sequence[tuple[int, int]]:
        """Changed ranges (offset, length) in bytes between two snapshots.

        Raises:
            Unsupported: The driver cannot tell.
        """
        ...

    def withdraw(self, exposure: Exposure) -> None:
        """Undo ``expose``; succeeds when already gone. The source snapshot's data stays."""
        ...

    def discard(self, snapshot: VolumeSnapshot) -> None:
        """Delete the volume snapshot; succeeds when already gone."""
        ...

    def orphans(self, *, run: str | None = None) -> Sequence[Mapping[str, Any]]:
        """Objects earlier runs left behind, found by label; of one run, or of all."""
        ...
