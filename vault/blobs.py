"""Blobs: a chunk or a tree, its SHA-256 id, and its sealed form; the only place that turns one into the other."""

from __future__ import annotations

from enum import Enum
from hashlib import sha256
from typing import NamedTuple

from refloat.errors import IntegrityError
from vault.compressing import BadFrame, Compressor
from vault.sealing import OVERHEAD, BadSeal, MasterKey, Sealer, fingerprinter

ID_BYTES = 32
SQUEEZED_BYTES = 64 << 20
MOST_SQUEEZED = 100
"""No tree larger than that is compressed more: its nodes hold hashes."""
DATA_LIMIT_BYTES = 64 << 20
TREE_LIMIT_BYTES = 512 << 20


class BlobKind(Enum):
    """What a blob is. Lookups are always by kind *and* id: a file may hold the very bytes of a tree."""

    DATA = "data"
    TREE = "tree"

    __hash__ = object.__hash__  # enum's own is a call into Python, several for every blob

    @property
    def limit_bytes(self) -> int:
        """Most bytes of plaintext that are accepted on reading and written."""
        return DATA_LIMIT_BYTES if self is BlobKind.DATA else TREE_LIMIT_BYTES


class PackedBlob(NamedTuple):
    """Where a sealed blob lies in its pack. ``plain_bytes`` is 0 for a blob that is not compressed."""

    kind: BlobKind
    id: bytes
    offset: int
    sealed_bytes: int
    plain_bytes: int

    @property
    def size_bytes(self) -> int:
        """Length of the plaintext."""
        return self.plain_bytes or self.sealed_bytes - OVERHEAD


class BlobCodec:
    """Plaintext to sealed blob and back. One per thread, never shared."""

    def __init__(self, key: MasterKey) -> None:
        self.sealer = Sealer(key)
        self.compressor = Compressor()
        self.fingerprint = fingerprinter()

    def pack(self, plain: bytes | bytearray | memoryview) -> tuple[bytes | bytearray | memoryview, int]:
        """What is to be sealed, and the plaintext's length, or 0 when compression gains nothing and it stays raw."""
        frame = self.compressor.compress(plain)
        return (frame, len(plain)) if len(frame) < len(plain) else (plain, 0)

    def open(self, sealed: bytes | memoryview, blob: PackedBlob) -> bytes:
        """The plaintext, its seal, size and hash verified.

        Raises:
            IntegrityError: It is not what its id says.
        """
        plain = self._opened(sealed, blob)
        if sha256(plain).digest() != blob.id:
            raise IntegrityError(f"{name(blob)} holds other data than its name says", blob=blob.id.hex())
        return plain

    def read_back(self, sealed: bytes | memoryview, blob: PackedBlob, fingerprint: bytes) -> None:
        """Open what this process has sealed; ``fingerprint``: of the plaintext, by this codec.

        Raises:
            IntegrityError: It is not what was sealed: memory or processor of this machine is at fault.
        """
        if self.fingerprint(self._opened(sealed, blob)) != fingerprint:
            raise IntegrityError(f"{name(blob)} does not read back as it was given", blob=blob.id.hex())

    def _opened(self, sealed: bytes | memoryview, blob: PackedBlob) -> bytes:
        if blob.size_bytes > blob.kind.limit_bytes:
            raise IntegrityError(f"{name(blob)} claims {blob.size_bytes} bytes, more than a {blob.kind.value} blob has")
        if blob.plain_bytes > SQUEEZED_BYTES and blob.plain_bytes > MOST_SQUEEZED * blob.sealed_bytes:
            raise IntegrityError(f"{name(blob)} claims {blob.plain_bytes} bytes out of {blob.sealed_bytes}")
        try:
            plain = self.sealer.open(sealed)
            if blob.plain_bytes:
                plain = self.compressor.expand(plain, blob.plain_bytes)
        except (BadSeal, BadFrame) as wrong:
            raise IntegrityError(f"{name(blob)} is damaged: {wrong}", blob=blob.id.hex()) from wrong
        return plain


def name(blob: PackedBlob) -> str:
    """A blob in words."""
    return f"{blob.kind.value} blob {blob.id.hex()[:16]}"
