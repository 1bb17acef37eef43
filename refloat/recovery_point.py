"""`RecoveryPoint`: the sealed facts about one moment, as `recovery-point.json` holds them."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import AwareDatetime, Field

from refloat.certificate import Certificate
from refloat.duration import Duration
from refloat.folder_facts import FolderFacts
from refloat.values import Consistency, Value

DESCRIPTOR = "recovery-point.json"
"""Name of the descriptor at the root of a point's tree."""
OBJECTS = "objects"
VOLUMES = "volumes"


class ObjectRef(Value):
    """One Kubernetes object by name; ``kind`` carries its group (``Deployment.apps``)."""

    kind: str
    namespace: str = ""
    name: str

    def __str__(self) -> str:
        return (
            f"{self.kind.partition('.')[0]} {self.namespace}/{self.name}"
            if self.namespace
            else f"{self.kind} {self.name}"
        )


class ObjectCopy(Value):
    """One manifest in the point."""

    ref: ObjectRef
    api_version: str
    path: str = Field(description="Path inside the point's tree.")
    reason: str = Field(description="Why it belongs to the application.")


class VolumeCopy(Value):
    """One volume's data in the vault."""

    namespace: str
    claim: str
    tree: str = Field(pattern=r"^[0-9a-f]{64}$", description="Id of the volume's tree blob.")
    path: str = Field(description="Path inside the point's tree.")
    top: FolderFacts | None = None
    storage_class: str | None = None
    driver: str
    requested_bytes: int = Field(description="Size the claim asks for.")
    access_modes: tuple[str, ...] = ()
    mode: Literal["folder", "device"] = Field(
        default="folder", description="device: the tree holds one file, the bytes of a raw block volume."
    )
    chunks: Literal["fixed", "content-defined"] = Field(
        default="fixed", description="Of a folder: how files larger than a chunk were cut."
    )
    chunk_bytes: int | None = Field(
        default=None, description="Least size of its chunks, which the next copy must use again."
    )
    files: int
    data_bytes: int = Field(description="Sum of all file sizes.")
    added_bytes: int = Field(description="What this copy added to the store.")
    added: tuple[str, ...] = Field(
        default=(), description="Files that were not on the volume: an engine gave them for this very copy."
    )
    unreadable: tuple[str, ...] = ()
    cut_at: AwareDatetime
    ready_at: AwareDatetime | None = None


class HookRecord(Value):
    """One hook command as it ran."""

    phase: Literal["pre", "post"]
    namespace: str
    pod: str
    pod_uid: str
    container: str
    source: Literal["document", "velero-annotation"]
    started_at: AwareDatetime
    duration: Duration
    exit_code: int | None = Field(description="None: it did not end within its time.")
    allowed_to_fail: bool = False


class RecoveryPoint(Value):
    """A sealed, self-contained state an application can be recovered to."""

    version: Literal[1] = 1
    id: str = Field(pattern=r"^[0-9a-f]{16}$", description="refloat's own identity; survives restic tag.")
    application: str
    cluster: str
    run: str
    started_at: AwareDatetime
    cut_at: AwareDatetime = Field(description="The earliest cut of any volume; without volumes, the end of the export.")
    sealed_at: AwareDatetime
    consistency: Consistency
    cut_method: Literal["group-snapshot", "volume-snapshots", "none"]
    skew: Duration = Field(default=timedelta(0), description="Latest cut minus earliest cut.")
    objects: tuple[ObjectCopy, ...]
    volumes: tuple[VolumeCopy, ...]
    hooks: tuple[HookRecord, ...] = ()
    certificate: Certificate | None = Field(default=None, description="None: a point of before certificates.")
    exceptions: tuple[dict[str, Any], ...] = Field(default=(), description="Declared exceptions that applied.")
    warnings: tuple[str, ...] = ()
    refloat_version: str

    @property
    def data_bytes(self) -> int:
        """Bytes of all volumes."""
        return sum(volume.data_bytes for volume in self.volumes)


def copy_in(point: RecoveryPoint | None, volume: str) -> VolumeCopy | None:
    """The copy of ``namespace/claim`` in the point; None without a point or without that volume."""
    found = (copy for copy in (point.volumes if point else ()) if f"{copy.namespace}/{copy.claim}" == volume)
    return next(found, None)


class CataloguedPoint(Value):
    """A recovery point as the vault lists it: its facts and the snapshot record that makes it reachable."""

    point: RecoveryPoint
    snapshot_id: str
    tree: str


def new_id() -> str:
    """A recovery point's or run's identity: 16 random hexadecimal digits."""
    return secrets.token_hex(8)


def age(point: RecoveryPoint, at: datetime) -> timedelta:
    """How old the point's data is at an instant: what recovering to it then would lose."""
    return at - point.cut_at
