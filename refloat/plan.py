"""`RecoveryPlan`: what a recovery would create and leave alone, and what blocks it; it *is* the dry run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import AwareDatetime, Field

from refloat.folder_facts import FolderFacts
from refloat.recovery_point import ObjectRef
from refloat.values import Value


class Objective(Value):
    """What a recovery is asked for: one point, the newest not later than a time, or (both None) the latest."""

    point: str | None = Field(default=None, description="A recovery point's id, or its first digits.")
    at: AwareDatetime | None = None


class Mappings(Value):
    """From old names to new ones. Namespaces and storage classes not named stay as they are."""

    namespaces: dict[str, str] = Field(default_factory=dict)
    storage_classes: dict[str, str] = Field(default_factory=dict)

    def namespace(self, name: str) -> str:
        """The namespace an object of ``name`` goes into."""
        return self.namespaces.get(name, name)


class ObjectStep(Value):
    """What happens to one object. ``keep``: it exists and equals the point's; ``conflict``: it exists and differs."""

    ref: ObjectRef
    action: Literal["create", "keep", "conflict"]
    level: int = Field(description="Dependency level; lower ones are applied first.")
    source_path: str = Field(description="Path of the manifest inside the point's tree.")
    detail: str = ""


class VolumeStep(Value):
    """What happens to one claim. ``keep``: this very recovery filled and bound it already."""

    namespace: str
    claim: str
    action: Literal["hydrate", "keep", "conflict"]
    manifest_path: str = Field(description="Path of the claim's manifest inside the point's tree.")
    source_path: str = Field(description="Path of the data inside the point's tree.")
    tree: str
    top: FolderFacts | None = None
    storage_class: str | None
    requested_bytes: int
    data_bytes: int
    access_modes: tuple[str, ...] = ()
    detail: str = ""


class Blocker(Value):
    """A reason why the plan cannot be carried out."""

    subject: str
    reason: str
    do: str = Field(description="What to do about it, one imperative sentence.")


class RecoveryPlan(Value):
    """Computed without side effects from point and target; executed exactly as shown."""

    point_id: str
    snapshot_id: str
    application: str
    cluster: str
    mappings: Mappings
    namespaces: tuple[str, ...] = Field(description="Target namespaces, each to be created when missing.")
    objects: tuple[ObjectStep, ...]
    volumes: tuple[VolumeStep, ...]
    blockers: tuple[Blocker, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of the plan's JSON: what an approval refers to."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def count(self, action: str) -> int:
        """How many objects and volumes meet this action."""
        objects = sum(step.action == action for step in self.objects)
        return objects + sum(step.action == action for step in self.volumes)

    def as_json(self) -> dict[str, Any]:
        """The plan with its digest, for scripts."""
        return {**self.model_dump(mode="json"), "digest": self.digest}


@dataclass(frozen=True)
class Planned:
    """A plan and the manifests it refers to, by path inside the point. Holds Secret data: never log it."""

    plan: RecoveryPlan
    manifests: Mapping[str, bytes] = field(repr=False)
