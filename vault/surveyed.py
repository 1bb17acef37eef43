"""What a survey found: a verdict on every point, and every damaged object with the points it affects."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from refloat.errors import IntegrityError


class Level(Enum):
    """How much is read: what describes the data, a random share of the data too, or every byte."""

    STRUCTURE = "structure"
    SAMPLE = "sample"
    FULL = "full"


@dataclass(frozen=True)
class Affected:
    """A point that needs a damaged object. ``path``: the first place in it, empty when it is the point as a whole.

    What damage has made unknown is None.
    """

    id: str | None
    application: str | None
    cut_at: datetime | None
    path: str


@dataclass(frozen=True)
class Damage:
    """One damaged object by its store key, what is wrong with it (the first of ``count`` reasons), and whom it hits."""

    object: str
    reasons: tuple[str, ...]
    count: int
    points: tuple[Affected, ...]


@dataclass(frozen=True)
class Surveyed:
    """One point that was looked at. ``damage``: the store keys of the damaged objects it needs."""

    id: str | None
    application: str | None
    cut_at: datetime | None
    snapshot_id: str
    damage: tuple[str, ...]

    @property
    def is_intact(self) -> bool:
        """Whether it restores, by all that was read."""
        return not self.damage


@dataclass
class Counts:
    """How much was read: distinct trees, the files in them, their data blobs; stored packs and their bytes."""

    trees: int = 0
    files: int = 0
    file_bytes: int = 0
    blobs: int = 0
    blobs_read: int = 0
    bytes_read: int = 0
    packs: int = 0
    packs_read: int = 0
    pack_bytes: int = 0


@dataclass(frozen=True)
class Survey:
    """What a survey found. Remarks are no damage."""

    level: Level
    points: tuple[Surveyed, ...]
    damages: tuple[Damage, ...]
    remarks: tuple[str, ...]
    counts: Counts

    @property
    def is_intact(self) -> bool:
        """Whether nothing is damaged, whether a point needs it or not."""
        return not self.damages

    def error(self, url: str) -> IntegrityError:
        """The survey in one sentence, for a vault that is damaged."""
        first, hit = self.damages[0], sum(not point.is_intact for point in self.points)
        more = f" and {len(self.damages) - 1} more objects" if len(self.damages) > 1 else ""
        rest = ", the others are intact" if 0 < hit < len(self.points) else ""
        return IntegrityError(
            f"{url} is damaged: {first.object}{more}; {hit} of {len(self.points)} recovery points are affected{rest}",
            guidance="Do not prune. Recover from a point that is intact or from another copy of the vault; an object "
            "put back under its name from a copy of the store makes its points whole again.",
            object=first.object,
        )
