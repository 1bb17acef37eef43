"""The index in memory: from (kind, blob id) to place, in flat arrays; and index files as they are stored.

About 60 bytes per blob and no Python object per blob, so that a vault of terabytes fits a mover. Restic's design
document, "Indexing": all entries of one pack belong into one index file.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from refloat.errors import IntegrityError
from vault.blobs import ID_BYTES, BlobKind, PackedBlob
from vault.packs import LARGEST_PACK_BYTES, entry_bytes, frame_bytes
from vault.sealing import OVERHEAD

_ENTRY = struct.Struct(f"<{ID_BYTES}sIIII")
_FREE = 0xFFFFFFFF
_HASH_BYTES = 8


class BlobTable:
    """An open-addressing hash table from blob id to its entry's number; entries lie end to end in one byte array.

    Reading is safe from any thread while one thread adds.
    """

    def __init__(self) -> None:
        self._entries = bytearray()
        self._slots = array("I", [_FREE]) * 1024

    def __len__(self) -> int:
        return len(self._entries) // _ENTRY.size

    def find(self, blob_id: bytes) -> int | None:
        """The entry's number; None when the id is unknown."""
        slots = self._slots  # another thread may put a larger array in its place
        slot, mask = int.from_bytes(blob_id[:_HASH_BYTES], "little"), len(slots) - 1
        while (number := slots[slot & mask]) != _FREE:
            start = number * _ENTRY.size
            if self._entries[start : start + ID_BYTES] == blob_id:
                return number
            slot += 1
        return None

    def entry(self, number: int) -> tuple[bytes, int, int, int, int]:
        """Id, pack number, offset, sealed length, plaintext length (0: not compressed)."""
        blob_id, pack, offset, sealed, plain = _ENTRY.unpack_from(self._entries, number * _ENTRY.size)
        return blob_id, pack, offset, sealed, plain

    def add(self, blob_id: bytes, pack: int, offset: int, sealed: int, plain: int) -> None:
        """Remember a blob; the first place that was named stays."""
        if self.find(blob_id) is not None:
            return
        if (len(self) + 1) * 3 > len(self._slots) * 2:
            self._slots = self._grown()
        self._entries += _ENTRY.pack(blob_id, pack, offset, sealed, plain)
        _place(self._slots, blob_id, len(self) - 1)

    def _grown(self) -> array[int]:
        slots = array("I", [_FREE]) * (len(self._slots) * 2)
        for number in range(len(self)):
            start = number * _ENTRY.size
            _place(slots, self._entries[start : start + _HASH_BYTES], number)
        return slots


def _place(slots: array[int], blob_id: bytes | bytearray, number: int) -> None:
    slot, mask = int.from_bytes(blob_id[:_HASH_BYTES], "little"), len(slots) - 1
    while slots[slot & mask] != _FREE:
        slot += 1
    slots[slot & mask] = number


class Index:
    """All blobs of a vault that an index file names. Reading is safe from any thread while one thread adds."""

    def __init__(self) -> None:
        self._tables = {kind: BlobTable() for kind in BlobKind}
        self._numbers: dict[bytes, int] = {}
        self._packs: list[bytes] = []
        self._sizes = array("Q")
        self._ends = array("Q")

    def __len__(self) -> int:
        return sum(len(table) for table in self._tables.values())

    def count(self, kind: BlobKind) -> int:
        """How many blobs of a kind there are."""
        return len(self._tables[kind])

    def number(self, kind: BlobKind, blob_id: bytes) -> int | None:
        """A small number that stands for the blob in this index; None when it is unknown."""
        return self._tables[kind].find(blob_id)

    def has(self, kind: BlobKind, blob_id: bytes) -> bool:
        """Whether the blob is stored."""
        return self.number(kind, blob_id) is not None

    def find(self, kind: BlobKind, blob_id: bytes) -> tuple[bytes, PackedBlob] | None:
        """Pack id and place of a blob; None when it is unknown."""
        number = self.number(kind, blob_id)
        return None if number is None else self.at(kind, number)

    def at(self, kind: BlobKind, number: int) -> tuple[bytes, PackedBlob]:
        """Pack id and place of the blob a number stands for."""
        blob_id, pack, offset, sealed, plain = self._tables[kind].entry(number)
        return self._packs[pack], PackedBlob(kind, blob_id, offset, sealed, plain)

    def blobs_end(self, pack_id: bytes) -> int:
        """Where the last blob of a pack ends, as far as the index knows."""
        return self._ends[self._numbers[pack_id]]

    def pack_bytes(self, pack_id: bytes) -> int:
        """The size a stored pack must have by the blobs the index lists in it."""
        return self._sizes[self._numbers[pack_id]]

    def add(self, pack_id: bytes, blobs: Iterable[PackedBlob]) -> None:
        """Take in all blobs of one pack; a pack that is known already is passed over."""
        if pack_id in self._numbers:
            return
        number, blobs = len(self._packs), tuple(blobs)
        self._packs.append(pack_id)
        self._sizes.append(frame_bytes() + sum(blob.sealed_bytes + entry_bytes(blob.plain_bytes) for blob in blobs))
        self._ends.append(max((blob.offset + blob.sealed_bytes for blob in blobs), default=0))
        self._numbers[pack_id] = number
        for blob in blobs:
            self._tables[blob.kind].add(blob.id, number, blob.offset, blob.sealed_bytes, blob.plain_bytes)

    def add_file(self, text: bytes) -> None:
        """Take in one index file.

        Raises:
            IntegrityError: It is not one.
        """
        try:
            for pack in orjson.loads(text)["packs"] or ():
                self.add(bytes.fromhex(pack["id"]), [_parse(blob) for blob in pack["blobs"]])
        except (ValueError, KeyError, TypeError) as wrong:
            raise IntegrityError(f"an index file does not say what it must: {wrong!r}") from wrong


def _parse(blob: dict[str, Any]) -> PackedBlob:
    plain = int(blob.get("uncompressed_length", 0))
    found = PackedBlob(BlobKind(blob["type"]), bytes.fromhex(blob["id"]), blob["offset"], blob["length"], plain)
    if len(found.id) != ID_BYTES or found.sealed_bytes < OVERHEAD or found.offset < 0 or not 0 <= plain <= _FREE:
        raise ValueError("a blob without a possible place")
    if found.offset + found.sealed_bytes > LARGEST_PACK_BYTES:
        raise ValueError("a blob beyond the end of any pack")
    return found


def encode_pack(pack: bytes, blobs: Sequence[PackedBlob]) -> bytes:
    """What an index file says of one pack."""
    return orjson.dumps({"id": pack.hex(), "blobs": [_named(blob) for blob in blobs]})


def encode_index(packs: Iterable[tuple[bytes, Sequence[PackedBlob]]]) -> bytes:
    """The text of one index file."""
    return join_packs(encode_pack(pack, blobs) for pack, blobs in packs)


def join_packs(texts: Iterable[bytes]) -> bytes:
    """The text of one index file, of what it says of each pack."""
    return b'{"packs":[' + b",".join(texts) + b"]}"


def _named(blob: PackedBlob) -> dict[str, Any]:
    named = {"id": blob.id.hex(), "type": blob.kind.value, "offset": blob.offset, "length": blob.sealed_bytes}
    return {**named, "uncompressed_length": blob.plain_bytes} if blob.plain_bytes else named
