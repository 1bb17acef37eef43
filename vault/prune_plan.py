"""The plan of a prune: which packs stay, are repacked or go, why, and what that frees.

Rules as restic's (``internal/repository/prune.go``): a pack without used blobs goes; of those partly used, packs of
trees are repacked always, packs of data the most wasteful first, until no more is unused than is tolerated.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from itertools import chain
from typing import Any

from refloat.errors import IntegrityError
from vault.blobs import BlobKind, PackedBlob
from vault.files import FileKind, key_of, stored
from vault.index import Index
from vault.marking import Marks, mark
from vault.pack_table import PackTable
from vault.packs import entry_bytes, frame_bytes
from vault.repository import OpenVault

MAX_UNUSED = 0.05
"""Share of a vault that may stay unused (restic's ``--max-unused 5%``)."""
GRACE = timedelta(hours=1)
"""A pack in no index that is younger is left alone: its writer may have lost its lock and not know it yet."""


class Action(IntEnum):
    """What becomes of a pack."""

    KEEP = 0
    REPACK = 1
    REMOVE = 2


class _Trait(IntEnum):
    """What is remembered of a pack, as bits."""

    HAS_DATA = 1
    HAS_TREES = 2
    IS_STORED = 4


@dataclass(frozen=True)
class PackFate:
    """One pack that does not stay as it is. ``used_bytes`` of it are written anew."""

    pack: bytes
    action: Action
    size_bytes: int
    used_bytes: int
    reason: str

    def as_json(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "pack": self.pack.hex(),
            "action": self.action.name.lower(),
            "bytes": self.size_bytes,
            "used_bytes": self.used_bytes,
            "reason": self.reason,
        }


class PrunePlan:
    """What a prune would do to a vault as it was when this was made. About 80 bytes per pack."""

    def __init__(self, marks: Marks, index: Index, snapshots: frozenset[str]) -> None:
        self.marks, self.index, self.snapshots = marks, index, snapshots
        self.unindexed: dict[bytes, int] = {}
        """Packs in no index that go, with their sizes."""
        self.young = 0
        """Packs in no index that are left alone."""
        self.packs = PackTable(0)
        self._used = array("Q")
        self._traits = bytearray()
        self._actions = bytearray()
        for pack in index.packs():
            self._take_in(pack)

    def _take_in(self, pack: bytes) -> None:
        """Count what is used of a pack."""
        self.packs.name((pack,))
        self.packs.add(self.index.pack_bytes(pack), 0, ())
        self._used.append(sum(map(_stored_bytes, self.used_of(pack))))
        has_data, has_trees = (bool(self.index.numbers_of(kind, pack)) for kind in (BlobKind.DATA, BlobKind.TREE))
        self._traits.append(_Trait.HAS_DATA * has_data | _Trait.HAS_TREES * has_trees)
        self._actions.append(Action.KEEP)

    def used_of(self, pack: bytes) -> list[PackedBlob]:
        """Those blobs of a pack that are used and read from it: of a blob stored twice, one copy counts."""
        numbers = chain.from_iterable(self.index.numbers_of(kind, pack) for kind in BlobKind)
        listed = zip(numbers, self.index.blobs_of(pack), strict=True)
        return [blob for number, blob in listed if number in self.marks.used[blob.kind]]

    def meet(self, pack: bytes, size_bytes: int, *, is_young: bool) -> None:
        """A pack is stored.

        Raises:
            IntegrityError: It has used blobs, and another size than they make.
        """
        number = self.packs.number(pack)
        if number is None:
            if is_young:
                self.young += 1
            else:
                self.unindexed[pack] = size_bytes
            return
        self._traits[number] |= _Trait.IS_STORED
        if self._used[number] and size_bytes != self.packs.size_bytes(number):
            key = key_of(FileKind.PACK, pack.hex())
            raise IntegrityError(
                f"{key} has {size_bytes} bytes, {self.packs.size_bytes(number)} by the index", pack=pack.hex()
            )

    def settle(self, max_unused: float) -> None:
        """Decide about every pack.

        Raises:
            IntegrityError: A pack with used blobs is gone.
        """
        for number, used in enumerate(self._used):
            if used and not self._traits[number] & _Trait.IS_STORED:
                key = key_of(FileKind.PACK, self.packs.id(number).hex())
                raise IntegrityError(f"{key} is gone, and blobs in it are used", pack=self.packs.id(number).hex())
        wasteful = array("I")
        for number, used in enumerate(self._used):
            if not used:
                self._actions[number] = Action.REMOVE
            elif self._unused(number) or self._is_mixed(number):
                wasteful.append(number)
        tolerated = self.used_bytes * max_unused / (1 - max_unused) if max_unused < 1 else float("inf")
        unused = sum(map(self._unused, wasteful))
        for number in sorted(wasteful, key=lambda n: self._unused(n) / self.packs.size_bytes(n), reverse=True):
            if self._traits[number] & _Trait.HAS_TREES or unused > tolerated:
                self._actions[number] = Action.REPACK
                unused -= self._unused(number)

    def action(self, pack: bytes) -> Action:
        """What becomes of a pack that an index file names."""
        number = self.packs.number(pack)
        assert number is not None, "asked about a pack that the plan was not made with"
        return Action(self._actions[number])

    def fates(self) -> Iterator[PackFate]:
        """Every pack that does not stay as it is."""
        for number, action in enumerate(self._actions):
            if action != Action.KEEP:
                size = self.packs.size_bytes(number) if self._traits[number] & _Trait.IS_STORED else 0
                yield PackFate(self.packs.id(number), Action(action), size, self._used[number], self._reason(number))
        for pack, size in sorted(self.unindexed.items()):
            yield PackFate(pack, Action.REMOVE, size, 0, "no index names it")

    def count(self, action: Action) -> int:
        """How many packs that action is for."""
        extra = len(self.unindexed) if action is Action.REMOVE else 0
        return self._actions.count(action) + extra

    @property
    def used_bytes(self) -> int:
        """What is used of all packs."""
        return sum(self._used)

    @property
    def size_bytes(self) -> int:
        """All packs together."""
        return sum(map(self.packs.size_bytes, range(len(self.packs)))) + sum(self.unindexed.values())

    @property
    def freed_bytes(self) -> int:
        """What the vault shrinks by; new headers and index files are not counted."""
        return sum(fate.size_bytes - fate.used_bytes for fate in self.fates())

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.unindexed and self._actions.count(Action.KEEP) == len(self._actions)

    def as_json(self) -> dict[str, Any]:
        """For scripts: the counts, and every pack that does not stay as it is."""
        return {
            "snapshots": len(self.snapshots),
            "blobs_used": len(self.marks),
            "packs": {action.name.lower(): self.count(action) for action in Action},
            "unindexed_left_alone": self.young,
            "bytes": self.size_bytes,
            "used_bytes": self.used_bytes,
            "freed_bytes": self.freed_bytes,
            "changes": [fate.as_json() for fate in self.fates()],
        }

    def _unused(self, number: int) -> int:
        return self.packs.size_bytes(number) - frame_bytes() - self._used[number]

    def _is_mixed(self, number: int) -> bool:
        return self._traits[number] & 3 == _Trait.HAS_DATA | _Trait.HAS_TREES

    def _reason(self, number: int) -> str:
        if not self._traits[number] & _Trait.IS_STORED:
            return "it is gone already"
        if not self._used[number]:
            return "nothing in it is used"
        if self._is_mixed(number):
            return "it mixes trees and data"
        what = "trees" if self._traits[number] & _Trait.HAS_TREES else "data"
        return f"{self._unused(number) / self.packs.size_bytes(number):.0%} of its {what} is unused"


def make_plan(
    vault: OpenVault, *, store_at: datetime, max_unused: float = MAX_UNUSED, grace: timedelta = GRACE
) -> PrunePlan:
    """Mark what is used, and decide about every pack; nothing is changed.

    Args:
        vault: One whose index nobody has read yet, or forgot: packs that are no more must not be in it.
        store_at: Now, by the store's clock.
        max_unused: Share of the vault that may stay unused, 0 to 1.
        grace: Packs in no index are left alone while they are younger.

    Raises:
        IntegrityError: Something that is used, or could be, is missing or damaged.
    """
    marks, snapshots = mark(vault)
    plan = PrunePlan(marks, vault.index(), snapshots)
    for name, found in stored(vault.store, FileKind.PACK):
        plan.meet(bytes.fromhex(name), found.size_bytes, is_young=store_at - found.modified_at < grace)
    plan.settle(max_unused)
    return plan


def _stored_bytes(blob: PackedBlob) -> int:
    """What a blob costs in its pack: its sealed bytes and its header entry."""
    return blob.sealed_bytes + entry_bytes(blob.plain_bytes)
