"""The index in memory: from (kind, blob id) to place, and what is in each pack; and index files as they are stored.

Restic's design document, "Indexing": all entries of one pack belong into one index file.
"""

from __future__ import annotations

import operator
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

import orjson

from refloat.errors import IntegrityError, TransferFailed
from vault.blob_table import MEMORY_BLOBS, BlobTable
from vault.blobs import ID_BYTES, BlobKind, PackedBlob
from vault.index_runs import ENTRY
from vault.pack_table import PackTable
from vault.packs import LARGEST_PACK_BYTES, entry_bytes, frame_bytes
from vault.sealing import OVERHEAD
from vault.untrusted import load

Columns = tuple[Sequence[bytes], Sequence[int], Sequence[int], Sequence[int]]
"""Of several blobs: ids, offsets, sealed lengths, plaintext lengths (0: not compressed)."""
_KINDS = tuple(kind.value for kind in BlobKind)
_HEAD = re.compile(rb'\{(?:"supersedes":\[[0-9a-f",]*\],)?"packs":\[')
LIMIT_BYTES = 256 << 20
"""Most memory that what an index file says of one pack may need; of all packs, when it is written in another form."""
_LIES = (ValueError, LookupError, TypeError, AttributeError, struct.error)
"""What taking apart JSON of another shape raises."""


class _News:
    """Packs that are about to be taken in, their numbers beginning with ``first``: size, end and how many blobs of each
    kind by pack id, and entries by kind.
    """

    def __init__(self, first: int) -> None:
        self._first = first
        self.packs: dict[bytes, tuple[int, int, tuple[int, ...]]] = {}
        self.entries = tuple(bytearray() for _ in BlobKind)

    def add(self, pack_id: bytes, columns: Sequence[Columns]) -> None:
        number, size, end = self._first + len(self.packs), frame_bytes(), 0
        for entries, (ids, offsets, sealed, plains) in zip(self.entries, columns, strict=True):
            entries.extend(b"".join(map(ENTRY.pack, ids, repeat(number), offsets, sealed, plains)))
            raw = plains.count(0)
            size += sum(sealed) + raw * entry_bytes(0) + (len(plains) - raw) * entry_bytes(1)
            end = max(end, max(map(operator.add, offsets, sealed), default=0))
        if end > LARGEST_PACK_BYTES:
            raise ValueError("a blob beyond the end of any pack")
        self.packs[pack_id] = size, end, tuple(len(ids) for ids, *_ in columns)


class Index:
    """All blobs of a vault that an index file names. Reading is safe from any thread while one thread adds.

    Of each kind ``memory_blobs`` are kept in memory, beyond that they lie in temporary files.
    """

    def __init__(self, memory_blobs: int = MEMORY_BLOBS) -> None:
        self._data, self._trees = BlobTable(memory_blobs), BlobTable(memory_blobs)
        self._packs = PackTable(len(BlobKind))

    def __len__(self) -> int:
        return len(self._data) + len(self._trees)

    def count(self, kind: BlobKind) -> int:
        """How many blobs of a kind the packs hold together: their numbers are below this. A blob that lies in two packs
        counts twice.
        """
        return len(self._table(kind))

    def numbers(self, kind: BlobKind) -> Iterator[int]:
        """The number of every blob of a kind, each blob once, ascending."""
        return self._table(kind).firsts()

    def number(self, kind: BlobKind, blob_id: bytes) -> int | None:
        """A small number that stands for the blob in this index; None when it is unknown. It never changes."""
        return (self._data if kind is BlobKind.DATA else self._trees).find(blob_id)

    def has(self, kind: BlobKind, blob_id: bytes) -> bool:
        """Whether the blob is stored."""
        return (self._data if kind is BlobKind.DATA else self._trees).find(blob_id) is not None

    def find(self, kind: BlobKind, blob_id: bytes) -> tuple[bytes, PackedBlob] | None:
        """Pack id and place of a blob, the first that was named; None when it is unknown."""
        number = self.number(kind, blob_id)
        return None if number is None else self.at(kind, number)

    def at(self, kind: BlobKind, number: int) -> tuple[bytes, PackedBlob]:
        """Pack id and place of the blob a number stands for."""
        blob_id, pack, offset, sealed, plain = self._table(kind).entry(number)
        return self._packs.id(pack), PackedBlob(kind, blob_id, offset, sealed, plain)

    def packs(self) -> Iterator[bytes]:
        """The ids of all packs, in the order in which they were added."""
        return iter(self._packs)

    def has_pack(self, pack_id: bytes) -> bool:
        """Whether an index file names the pack."""
        return self._packs.number(pack_id) is not None

    def blobs_of(self, pack_id: bytes) -> Iterator[PackedBlob]:
        """Every blob of a pack, data before trees, also those that are found in another pack that was named before.

        Raises:
            KeyError: The pack is unknown.
        """
        for kind in BlobKind:
            for blob_id, _, offset, sealed, plain in self._table(kind).entries(self.numbers_of(kind, pack_id)):
                yield PackedBlob(kind, blob_id, offset, sealed, plain)

    def numbers_of(self, kind: BlobKind, pack_id: bytes) -> range:
        """The numbers of a pack's blobs of a kind, in the order of ``blobs_of``. The number of a blob that is found in
        another pack is never given by ``number``: what marks blobs in use by that leaves it unmarked here.

        Raises:
            KeyError: The pack is unknown.
        """
        return self._packs.blobs(self._known(pack_id), 0 if kind is BlobKind.DATA else 1)

    def blobs_end(self, pack_id: bytes) -> int:
        """Where the last blob of a pack ends, as far as the index knows."""
        return self._packs.end(self._known(pack_id))

    def pack_bytes(self, pack_id: bytes) -> int:
        """The size a stored pack must have by the blobs the index lists in it."""
        return self._packs.size_bytes(self._known(pack_id))

    def add(self, pack_id: bytes, blobs: Iterable[PackedBlob]) -> None:
        """Take in all blobs of one pack; a pack that is known already is passed over.

        Raises:
            StoreFull: The index does not fit memory, and there is no room for temporary files.
        """
        if self._packs.number(pack_id) is None:
            news, listed = _News(len(self._packs)), tuple(blobs)
            news.add(pack_id, [_columns([blob for blob in listed if blob.kind is kind]) for kind in BlobKind])
            self._take(news)

    def add_file(self, text: bytes) -> None:
        """Take in one index file, all of it or nothing; packs that are known already are passed over.

        Raises:
            IntegrityError: It is not one.
            StoreFull: The index does not fit memory, and there is no room for temporary files.
        """
        try:
            try:
                news = self._read(_one_by_one(text))
            except _LIES:
                news = self._read(load(text, LIMIT_BYTES)["packs"] or ())
        except _LIES as wrong:
            raise IntegrityError(f"an index file does not say what it must: {wrong!r}") from wrong
        self._take(news)

    def _read(self, packs: Iterable[Any]) -> _News:
        news = _News(len(self._packs))
        for pack in packs:
            pack_id, columns = _read_pack(pack)
            if pack_id not in news.packs and self._packs.number(pack_id) is None:
                news.add(pack_id, columns)
        return news

    def _take(self, news: _News) -> None:
        """First the packs' names, that the blobs point to, then the blobs, then the packs, that point to the blobs."""
        if self._packs.blobs_before(len(self._packs)) != (len(self._data), len(self._trees)):
            raise TransferFailed("the index in memory is not whole: an earlier addition failed")
        self._packs.name(news.packs)
        self._data.add(news.entries[0])
        self._trees.add(news.entries[1])
        for size_bytes, end, counts in news.packs.values():
            self._packs.add(size_bytes, end, counts)

    def settle(self) -> None:
        """To be called after many index files were taken in, before much is looked up.

        Raises:
            StoreFull: There is no room for temporary files.
        """
        self._data.settle()
        self._trees.settle()

    def _known(self, pack_id: bytes) -> int:
        number = self._packs.number(pack_id)
        if number is None:
            raise KeyError(pack_id)
        return number

    def _table(self, kind: BlobKind) -> BlobTable:
        return self._data if kind is BlobKind.DATA else self._trees


def _one_by_one(text: bytes) -> Iterator[Any]:
    """What an index file says of each pack. All objects of a full file at once would be several times its size.

    Raises:
        ValueError: It is none, or not written as restic and we do, without spaces.
    """
    begun = _HEAD.match(text)
    if begun is None:
        raise ValueError("another form of index file")
    end = begun.end() - 1
    while text[end] in b"[,":
        begin, end = end + 1, text.index(b"]}", end) + 2
        yield load(text[begin:end], LIMIT_BYTES)
    if text[end:].rstrip() != b"]}":
        raise ValueError("another form of index file")


def _columns(blobs: Sequence[PackedBlob]) -> Columns:
    ids, offsets = [blob.id for blob in blobs], [blob.offset for blob in blobs]
    return ids, offsets, [blob.sealed_bytes for blob in blobs], [blob.plain_bytes for blob in blobs]


def _read_pack(pack: dict[str, Any]) -> tuple[bytes, list[Columns]]:
    blobs = pack["blobs"]
    columns = [_read_columns([blob for blob in blobs if blob["type"] == kind]) for kind in _KINDS]
    if sum(len(ids) for ids, *_ in columns) != len(blobs):
        raise ValueError("a blob of an unknown type")
    return _read_ids([pack["id"]])[0], columns


def _read_columns(blobs: list[dict[str, Any]]) -> Columns:
    sealed = [blob["length"] for blob in blobs]
    if min(sealed, default=OVERHEAD) < OVERHEAD:
        raise ValueError("a blob without a possible place")
    plains = [blob.get("uncompressed_length", 0) for blob in blobs]
    return _read_ids([blob["id"] for blob in blobs]), [blob["offset"] for blob in blobs], sealed, plains


def _read_ids(names: list[str]) -> list[bytes]:
    ids = bytes.fromhex("".join(names))
    if not {len(name) for name in names} <= {2 * ID_BYTES} or len(ids) != ID_BYTES * len(names):  # it skips spaces
        raise ValueError("an id that is none")
    return [ids[start : start + ID_BYTES] for start in range(0, len(ids), ID_BYTES)]


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
