"""The blobs of one kind that an index names: from blob id to entry, in flat arrays.

About 60 bytes per blob and no Python object per blob.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator

from vault.blobs import ID_BYTES

ENTRY = struct.Struct(f"<{ID_BYTES}sIIII")
"""Id, pack number, offset, sealed length, plaintext length (0: not compressed)."""
Entry = tuple[bytes, int, int, int, int]
_FREE = 0xFFFFFFFF
_HASH_BYTES = 8


class BlobTable:
    """An open-addressing hash table from blob id to its entry's number; entries lie end to end in one byte array.

    An entry whose id is known already has a number too, but is not found by its id. Reading is safe from any thread
    while one thread adds.
    """

    def __init__(self) -> None:
        self._entries = bytearray()
        self._slots = array("I", [_FREE]) * 1024
        self._twins = 0

    def __len__(self) -> int:
        return len(self._entries) // ENTRY.size

    def find(self, blob_id: bytes) -> int | None:
        """The number of the first entry of an id; None when the id is unknown."""
        slots, entries = self._slots, self._entries  # another thread may put larger slots in their place
        slot, mask = int.from_bytes(blob_id[:_HASH_BYTES], "little"), len(slots) - 1
        while (number := slots[slot & mask]) != _FREE:
            start = number * ENTRY.size
            if entries[start : start + ID_BYTES] == blob_id:
                return number
            slot += 1
        return None

    def entry(self, number: int) -> Entry:
        """The entry of a number."""
        blob_id, pack, offset, sealed, plain = ENTRY.unpack_from(self._entries, number * ENTRY.size)
        return blob_id, pack, offset, sealed, plain

    def entries(self, numbers: range) -> Iterator[Entry]:
        """The entries of neighbouring numbers."""
        return ENTRY.iter_unpack(self._entries[numbers.start * ENTRY.size : numbers.stop * ENTRY.size])

    def firsts(self) -> Iterator[int]:
        """The numbers that ids are found by, ascending."""
        for number in range(len(self)):
            if not self._twins or self.find(self.entry(number)[0]) == number:
                yield number

    def add(self, entries: bytes | bytearray) -> None:
        """Take in entries, laid end to end."""
        first = len(self)
        self._entries += entries
        if len(self) * 3 > len(self._slots) * 2:
            self._slots = self._grown()
        slots, known, mask = self._slots, self._entries, len(self._slots) - 1
        for number in range(first, len(self)):
            blob_id = known[number * ENTRY.size : number * ENTRY.size + ID_BYTES]
            slot = int.from_bytes(blob_id[:_HASH_BYTES], "little")
            while (other := slots[slot & mask]) != _FREE:
                if known[other * ENTRY.size : other * ENTRY.size + ID_BYTES] == blob_id:
                    self._twins += 1
                    break
                slot += 1
            else:
                slots[slot & mask] = number

    def _grown(self) -> array[int]:
        size = len(self._slots)
        while len(self) * 3 > size * 2:
            size *= 2
        slots, mask = array("I", [_FREE]) * size, size - 1
        for number in self._slots:
            if number != _FREE:
                start = number * ENTRY.size
                slot = int.from_bytes(self._entries[start : start + _HASH_BYTES], "little")
                while slots[slot & mask] != _FREE:
                    slot += 1
                slots[slot & mask] = number
        return slots
