"""`Inventory`: what belongs to an application right now, and why; the result of discovery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from refloat.recovery_point import ObjectRef


@dataclass(frozen=True)
class Reason:
    """Why an object belongs: the relation (``selected``, ``owner of``, ``env of``, …) and the object it comes from."""

    relation: str
    source: ObjectRef | None = None

    def __str__(self) -> str:
        return f"{self.relation} {self.source.name}" if self.source else self.relation


@dataclass(frozen=True)
class Found:
    """One object of the application, whole as the API server gave it."""

    ref: ObjectRef
    reason: Reason
    manifest: Mapping[str, Any] = field(repr=False)
    """The object as read, Secret values included: never log it."""


@dataclass(frozen=True)
class Volume:
    """One claim of the application with the storage behind it. ``handle`` and ``driver`` are CSI's."""

    namespace: str
    claim: str
    uid: str
    phase: str
    volume_name: str
    driver: str
    handle: str
    storage_class: str | None
    requested_bytes: int
    access_modes: tuple[str, ...]
    mode: str
    """``Filesystem`` or ``Block``."""
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """``namespace/claim``."""
        return f"{self.namespace}/{self.claim}"


@dataclass(frozen=True)
class Pod:
    """One running pod of the application, for hooks and the hold."""

    namespace: str
    name: str
    uid: str
    phase: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    containers: tuple[str, ...]
    images: tuple[str, ...] = ()
    """Of the containers, in their order."""
    claims: tuple[str, ...] = ()
    """Names of the claims it mounts."""


@dataclass(frozen=True)
class Inventory:
    """Everything that belongs to one application: objects with reasons, volumes, pods, and what was left out."""

    application: str
    objects: tuple[Found, ...]
    volumes: tuple[Volume, ...]
    pods: tuple[Pod, ...]
    shared: tuple[ObjectRef, ...] = ()
    """Cluster-scoped objects the application uses but does not own (StorageClass, ClusterRole, …)."""
    excluded: tuple[Found, ...] = ()
    warnings: tuple[str, ...] = ()
    """For people: dangling references, pods that are not running, …"""
