"""Packs: many sealed blobs in one stored object, with a sealed header and its length at the end.

Restic's design document, "Pack Format": entries follow physical order, offsets are the running sum, data and tree
blobs lie in different packs.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap

from refloat.errors import IntegrityError
from vault.blobs import ID_BYTES, BlobCodec, BlobKind, PackedBlob
from vault.sealing import OVERHEAD, SCRATCH, BadSeal, Sealer

TARGET_BYTES = 16 << 20
HEADER_LIMIT_BYTES = 16 << 20
MOST_BLOBS = HEADER_LIMIT_BYTES // 41 // 4
"""A pack is closed at a quarter of what its header could hold: no pack of very small blobs grows a huge header."""
LARGEST_PACK_BYTES = (1 << 32) - 1
"""Offsets and lengths have 32 bits."""
_RAW = struct.Struct(f"<BI{ID_BYTES}s")
_COMPRESSED = struct.Struct(f"<BII{ID_BYTES}s")
_LENGTH = struct.Struct("<I")
_TYPES = {(BlobKind.DATA, False): 0, (BlobKind.TREE, False): 1, (BlobKind.DATA, True): 2, (BlobKind.TREE, True): 3}
_KINDS = {number: kind for kind, number in _TYPES.items()}


def entry_bytes(plain_bytes: int) -> int:
    """Length of one blob's header entry."""
    return _COMPRESSED.size if plain_bytes else _RAW.size


def frame_bytes() -> int:
    """What a pack has besides blobs and header entries: the header's seal and its length."""
    return OVERHEAD + _LENGTH.size


def encode_header(blobs: Sequence[PackedBlob]) -> bytes:
    """The header before it is sealed."""
    return b"".join(
        _COMPRESSED.pack(_TYPES[b.kind, True], b.sealed_bytes, b.plain_bytes, b.id)
        if b.plain_bytes
        else _RAW.pack(_TYPES[b.kind, False], b.sealed_bytes, b.id)
        for b in blobs
    )


def decode_header(header: bytes) -> list[PackedBlob]:
    """The blobs a header lists, with their offsets.

    Raises:
        IntegrityError: It is no header.
    """
    blobs: list[PackedBlob] = []
    place = offset = 0
    while place < len(header):
        kind, is_compressed = _KINDS.get(header[place], (None, False))
        entry = _COMPRESSED if is_compressed else _RAW
        if kind is None or place + entry.size > len(header):
            raise IntegrityError("a pack's header is damaged: no such entry")
        fields = entry.unpack_from(header, place)
        sealed, plain, blob_id = (fields[1], fields[2], fields[3]) if is_compressed else (fields[1], 0, fields[2])
        if sealed < OVERHEAD or (is_compressed and not plain):
            raise IntegrityError("a pack's header is damaged: an impossible length")
        blobs.append(PackedBlob(kind, blob_id, offset, sealed, plain))
        place += entry.size
        offset += sealed
    return blobs


def read_header(pack: bytes | memoryview, sealer: Sealer, *, skipped: int = 0) -> list[PackedBlob]:
    """The blobs a pack holds, by its own header. ``skipped``: bytes at the pack's start that were not read.

    Raises:
        IntegrityError: The pack is cut off, or its header is not what was sealed or does not fit the blobs.
    """
    size = len(pack) - _LENGTH.size
    (sealed_bytes,) = _LENGTH.unpack_from(pack, size) if size >= 0 else (0,)
    if not OVERHEAD < sealed_bytes <= min(size, HEADER_LIMIT_BYTES):
        raise IntegrityError("a pack is damaged or cut off: it has no header")
    try:
        blobs = decode_header(sealer.open(memoryview(pack)[size - sealed_bytes : size]))
    except BadSeal as wrong:
        raise IntegrityError(f"a pack's header is damaged: {wrong}") from wrong
    if sum(blob.sealed_bytes for blob in blobs) != skipped + size - sealed_bytes:
        raise IntegrityError("a pack's header does not fit its blobs")
    return blobs


@dataclass(frozen=True)
class ClosedPack:
    """A pack ready to be stored: its id (the SHA-256 of its bytes), the bytes, the blobs in it."""

    id: bytes
    body: memoryview
    blobs: tuple[PackedBlob, ...]


SealedBlob = tuple[PackedBlob, bytes]
"""A blob, and its sealed bytes."""


def new_buffer(size: int) -> mmap:
    """Memory for a pack: what of it is not touched takes none, and a store may write from it past the page cache."""
    return mmap(-1, size, flags=MAP_PRIVATE | MAP_ANONYMOUS)


class PackBuilder:
    """One open pack in one buffer, which sealed blobs are written into directly. Not thread-safe."""

    def __init__(self, kind: BlobKind, buffer: mmap | int) -> None:
        """``buffer``: what it is built in, whatever it holds; or the bytes of a new one."""
        self.kind = kind
        self._buffer = new_buffer(buffer) if isinstance(buffer, int) else buffer
        self._used = 0
        self._blobs: list[PackedBlob] = []

    @property
    def is_empty(self) -> bool:
        """No blob yet."""
        return not self._blobs

    @property
    def is_full(self) -> bool:
        """It should be closed."""
        return self._used >= TARGET_BYTES or len(self._blobs) >= MOST_BLOBS

    def has_room(self, plain_bytes: int) -> bool:
        """Whether one more blob of that size, and the header, fit the buffer for sure."""
        needed = self._used + plain_bytes + OVERHEAD + _COMPRESSED.size * (len(self._blobs) + 1) + frame_bytes()
        return needed + SCRATCH <= len(self._buffer)

    def add(self, blob_id: bytes, plain: bytes | bytearray | memoryview, codec: BlobCodec) -> int:
        """Compress and seal a blob into the pack, then read it back; returns its sealed length.

        ``plain`` was hashed just before. It is not hashed again, which would take as long as the first time: that what
        reads back is what was there when the blob came here proves as much, of memory that keeps what it is given.

        Raises:
            IntegrityError: What was sealed does not read back: memory or processor of this machine is at fault.
        """
        fingerprint = codec.fingerprint(plain)
        content, plain_bytes = codec.pack(plain)
        rest = memoryview(self._buffer)[self._used :]
        size = codec.sealer.seal_into(content, rest)
        blob = PackedBlob(self.kind, blob_id, self._used, size, plain_bytes)
        codec.read_back(rest[:size], blob, fingerprint)
        self._blobs.append(blob)
        self._used += size
        return size

    def add_sealed(self, blob: PackedBlob, sealed: bytes | memoryview) -> None:
        """Take over a blob as it lies sealed in another pack of the vault; the caller has verified it."""
        self._buffer[self._used : self._used + len(sealed)] = sealed
        self._blobs.append(blob._replace(offset=self._used))
        self._used += len(sealed)

    def sealed(self) -> list[SealedBlob]:
        """What is in it so far, for another pack to take over."""
        return [(blob, bytes(self._buffer[blob.offset : blob.offset + blob.sealed_bytes])) for blob in self._blobs]

    def close(self, codec: BlobCodec) -> ClosedPack:
        """Write header and length. The builder is not used again.

        Raises:
            IntegrityError: The header does not read back.
        """
        view = memoryview(self._buffer)
        size = codec.sealer.seal_into(encode_header(self._blobs), view[self._used :])
        end = self._used + size + _LENGTH.size
        view[self._used + size : end] = _LENGTH.pack(size)
        if read_header(view[:end], codec.sealer) != self._blobs:
            raise IntegrityError("a pack's header does not read back: this machine's memory cannot be trusted")
        return ClosedPack(sha256(view[:end]).digest(), view[:end], tuple(self._blobs))
