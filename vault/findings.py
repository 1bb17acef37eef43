"""Findings: which stored objects of a vault are damaged and in what way, and whether a blob lies in one of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from vault.bits import Bits
from vault.blobs import BlobKind
from vault.files import FileKind, key_of
from vault.index import Index

MOST_REASONS = 5
"""Reasons kept of one object; the others are counted."""
NO_INDEX = "index"
"""What stands for an index file that is not there: nothing tells its name any more."""


@dataclass
class Finding:
    """One damaged object: the first reasons, and how many there are."""

    reasons: list[str] = field(default_factory=list)
    count: int = 0


class Findings:
    """What was found damaged so far, by store key. Of a blob one bit is kept, of a reason one number.

    Not thread-safe.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._bad = {kind: Bits(index.count(kind)) for kind in BlobKind}
        self._packs: set[bytes] = set()
        self._told: set[int] = set()
        self.objects: dict[str, Finding] = {}
        self.lost_index = NO_INDEX
        """Where blobs without a place are blamed: on the one index file that is damaged, if there is exactly one."""

    def __len__(self) -> int:
        """All reasons of all objects: it grows when something new is found."""
        return len(self._told)

    def add(self, key: str, reason: str) -> None:
        """An object is damaged. The same reason twice is one."""
        told = hash((key, reason))
        if told in self._told:
            return
        self._told.add(told)
        found = self.objects.setdefault(key, Finding())
        found.count += 1
        if len(found.reasons) < MOST_REASONS:
            found.reasons.append(reason)

    def add_pack(self, pack: bytes, reason: str) -> None:
        """A pack is damaged as a whole, and with it every blob that is read from it."""
        self._packs.add(pack)
        self.add(key_of(FileKind.PACK, pack.hex()), reason)

    def add_blob(self, kind: BlobKind, number: int, reason: str) -> None:
        """One blob is damaged, the others of its pack are not. The number is the index's."""
        self._bad[kind].add(number)
        pack, _ = self._index.at(kind, number)
        self.add(key_of(FileKind.PACK, pack.hex()), reason)

    def has_pack(self, pack: bytes) -> bool:
        """Whether a pack is damaged as a whole."""
        return pack in self._packs

    def concerns(self, kind: BlobKind, number: int, pack: bytes) -> bool:
        """Whether a blob of a pack cannot be read, or is not what its name says."""
        return pack in self._packs or number in self._bad[kind]
