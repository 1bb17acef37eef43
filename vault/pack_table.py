"""The packs an index names: a small number for each, its size, and where its blobs begin, in flat arrays.

About 60 bytes per pack and no Python object per pack: a vault of 10 TB has more than 600,000 of them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

PACK_ID_BYTES = 32
_FREE = 0xFFFFFFFF
_HASH_BYTES = 8


class PackTable:
    """An open-addressing hash table from pack id to number. Reading is safe from any thread while one thread adds."""

    def __init__(self, kinds: int) -> None:
        self._ids = bytearray()
        self._slots = array("I", [_FREE]) * 256
        self._sizes = array("Q")
        self._ends = array("I")
        self._starts = tuple(array("I", [0]) for _ in range(kinds))

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[bytes]:
        """The ids of the packs there are by now, in the order of their numbers."""
        return map(self.id, range(len(self)))

    def number(self, pack_id: bytes) -> int | None:
        """The pack's number; None when it is unknown."""
        slots = self._slots  # another thread may put a larger array in its place
        slot, mask = int.from_bytes(pack_id[:_HASH_BYTES], "little"), len(slots) - 1
        while (number := slots[slot & mask]) != _FREE:
            if self.id(number) == pack_id:
                return number
            slot += 1
        return None

    def id(self, number: int) -> bytes:
        """The pack's id."""
        start = number * PACK_ID_BYTES
        return bytes(self._ids[start : start + PACK_ID_BYTES])

    def size_bytes(self, number: int) -> int:
        """The size the pack was added with."""
        return self._sizes[number]

    def end(self, number: int) -> int:
        """Where its last blob ends."""
        return self._ends[number]

    def blobs(self, number: int, kind: int) -> range:
        """The numbers of its blobs of a kind."""
        starts = self._starts[kind]
        return range(starts[number], starts[number + 1])

    def blobs_before(self, number: int) -> tuple[int, ...]:
        """How many blobs of each kind the packs below a number have."""
        return tuple(starts[number] for starts in self._starts)

    def name(self, pack_ids: Iterable[bytes]) -> None:
        """Make the ids of packs that are about to be added known by their numbers."""
        self._ids[len(self) * PACK_ID_BYTES :] = b"".join(pack_ids)

    def add(self, size_bytes: int, end: int, counts: tuple[int, ...]) -> None:
        """Take in the next pack that was named, after its blobs: how many there are of each kind."""
        number = len(self)
        for starts, count in zip(self._starts, counts, strict=True):
            starts.append(starts[-1] + count)
        self._sizes.append(size_bytes)
        self._ends.append(end)
        if len(self) * 3 > len(self._slots) * 2:
            self._slots = self._grown()
        else:
            self._place(self._slots, number)

    def _grown(self) -> array[int]:
        slots = array("I", [_FREE]) * (len(self._slots) * 2)
        for number in range(len(self)):
            self._place(slots, number)
        return slots

    def _place(self, slots: array[int], number: int) -> None:
        start = number * PACK_ID_BYTES
        slot, mask = int.from_bytes(self._ids[start : start + _HASH_BYTES], "little"), len(slots) - 1
        while slots[slot & mask] != _FREE:
            slot += 1
        slots[slot & mask] = number
