"""The blobs of one kind that an index names: from blob id to entry; in memory while they are few, else on disk.

About 60 bytes per blob in memory, no Python object per blob, and never more than 30 MB: what is beyond lies in
temporary files (``vault.index_runs``).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Any

from vault.blobs import ID_BYTES
from vault.index_runs import ENTRY, EntryLog, Spilled

Entry = tuple[Any, ...]
"""Id, pack number, offset, sealed length, plaintext length (0: not compressed)."""
MEMORY_BLOBS = 500_000
"""So many are kept in memory before the first go to disk: 30 MB."""
RUN_SHARE = 4
"""Once there are entries on disk, the next go there at this part of that number,"""
FILE_SHARE = 32
"""or when as many as this part come at once."""
_ENTRY_BYTES = ENTRY.size
_FREE = 0xFFFFFFFF
_HASH_BYTES = 8
_READ_ENTRIES = 4096


class _MemoryTable:
    """An open-addressing hash table from blob id to its entry's place; entries lie end to end in one mapping of memory.

    A mapping takes memory as it is filled, is never moved to grow, and is given back at once; a byte array leaves
    behind in the heap what it grew out of.
    """

    def __init__(self, most: int) -> None:
        self.entries = mmap(-1, max(1, most) * _ENTRY_BYTES, flags=MAP_PRIVATE | MAP_ANONYMOUS)
        self.twins = self._count = 0
        self._slots = array("I", [_FREE]) * 1024

    def __len__(self) -> int:
        return self._count

    def find(self, blob_id: bytes) -> int | None:
        slots, entries = self._slots, self.entries  # another thread may put larger slots in their place
        slot, mask = int.from_bytes(blob_id[:_HASH_BYTES], "little"), len(slots) - 1
        while (place := slots[slot & mask]) != _FREE:
            start = place * _ENTRY_BYTES
            if entries[start : start + ID_BYTES] == blob_id:
                return place
            slot += 1
        return None

    def add(self, entries: bytes | bytearray) -> None:
        first, start = self._count, self._count * _ENTRY_BYTES
        self.entries[start : start + len(entries)] = bytes(entries)
        self._count += len(entries) // _ENTRY_BYTES
        if self._count * 3 > len(self._slots) * 2:
            self._slots = self._grown()
        slots, known, mask = self._slots, self.entries, len(self._slots) - 1
        for place in range(first, self._count):
            blob_id = known[place * _ENTRY_BYTES : place * _ENTRY_BYTES + ID_BYTES]
            slot = int.from_bytes(blob_id[:_HASH_BYTES], "little")
            while (other := slots[slot & mask]) != _FREE:
                if known[other * _ENTRY_BYTES : other * _ENTRY_BYTES + ID_BYTES] == blob_id:
                    self.twins += 1
                    break
                slot += 1
            else:
                slots[slot & mask] = place

    def _grown(self) -> array[int]:
        size = len(self._slots)
        while self._count * 3 > size * 2:
            size *= 2
        slots, mask = array("I", [_FREE]) * size, size - 1
        for place in self._slots:
            if place != _FREE:
                start = place * _ENTRY_BYTES
                slot = int.from_bytes(self.entries[start : start + _HASH_BYTES], "little")
                while slots[slot & mask] != _FREE:
                    slot += 1
                slots[slot & mask] = place
        return slots


class BlobTable:
    """From blob id to the number of its entry. Reading is safe from any thread while one thread adds.

    An entry whose id is known already has a number too, but is not found by its id.
    """

    def __init__(self, memory_blobs: int = MEMORY_BLOBS) -> None:
        self._memory_blobs = memory_blobs
        self._parts: tuple[Spilled | None, int, _MemoryTable] = (None, 0, _MemoryTable(memory_blobs))
        """What lies on disk, how many entries those are, and the entries after them; exchanged as one."""

    def __len__(self) -> int:
        _, first, recent = self._parts
        return first + len(recent)

    def find(self, blob_id: bytes) -> int | None:
        """The number of the first entry of an id; None when the id is unknown."""
        spilled, first, recent = self._parts
        if spilled is not None and (number := spilled.find(blob_id)) is not None:
            return number
        place = recent.find(blob_id)
        return None if place is None else first + place

    def entry(self, number: int) -> Entry:
        """The entry of a number."""
        spilled, first, recent = self._parts
        if spilled is None or number >= first:
            return ENTRY.unpack_from(recent.entries, (number - first) * _ENTRY_BYTES)
        return ENTRY.unpack(spilled.read(number))

    def entries(self, numbers: range) -> Iterator[Entry]:
        """The entries of neighbouring numbers."""
        number = numbers.start
        while number < numbers.stop:
            found = self._read(number, min(_READ_ENTRIES, numbers.stop - number))
            number += len(found) // _ENTRY_BYTES
            yield from ENTRY.iter_unpack(found)

    def _read(self, number: int, count: int) -> bytes:
        spilled, first, recent = self._parts
        if spilled is None or number >= first:
            start = (number - first) * _ENTRY_BYTES
            return recent.entries[start : start + count * _ENTRY_BYTES]
        return spilled.read(number, min(count, first - number))

    def firsts(self) -> Iterator[int]:
        """The numbers that ids are found by, ascending."""
        spilled, _, recent = self._parts
        if spilled is None and not recent.twins:
            yield from range(len(recent))
        else:
            for number, entry in enumerate(self.entries(range(len(self)))):
                if self.find(entry[0]) == number:
                    yield number

    def add(self, entries: bytes | bytearray) -> None:
        """Take in entries, laid end to end, all or none.

        Raises:
            StoreFull: They do not fit memory any more, and the folder for temporary files has no room for them.
        """
        spilled, first, recent = self._parts
        count = len(entries) // _ENTRY_BYTES
        if spilled is None:
            fits = len(recent) + count <= self._memory_blobs
        else:  # what comes by the file is sorted at once, without the detour through the hash table
            fits = len(recent) + count <= self._memory_blobs // RUN_SHARE and count < self._memory_blobs // FILE_SHARE
        if fits:
            recent.add(entries)
        else:
            run = max(1, self._memory_blobs // RUN_SHARE)
            earlier = memoryview(recent.entries)[: len(recent) * _ENTRY_BYTES]
            spilled = (spilled or Spilled(EntryLog())).extended(earlier, run).extended(entries, run)
            self._parts = spilled, first + len(recent) + count, _MemoryTable(run)

    def settle(self) -> None:
        """Put in order what lies on disk: to be called after much was added, before much is looked up.

        Raises:
            StoreFull: The folder for temporary files has no room for that.
        """
        spilled, first, recent = self._parts
        if spilled is not None:
            self._parts = spilled.settled(), first, recent
