"""Proof of a pack: every byte of one stored pack read once, and judged by its name, its header and its blobs' ids."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from refloat.errors import IntegrityError, NotFound, RangeNotSatisfiable
from vault.blobs import PackedBlob
from vault.files import FileKind, SealedFiles, key_of
from vault.packs import read_header
from vault.reading import REQUEST_BYTES
from vault.sealing import OVERHEAD

TAIL_BYTES = 64 << 10
"""Enough for the header of nearly every pack."""
_LENGTH = struct.Struct("<I")


@dataclass
class PackProof:
    """What a pack holds by its own header, and what is wrong with it. ``flaw``: with the pack as a whole."""

    pack: bytes
    size_bytes: int
    blobs: list[PackedBlob] = field(default_factory=list)
    damaged: dict[PackedBlob, str] = field(default_factory=dict)
    flaw: str | None = None

    @property
    def is_mixed(self) -> bool:
        """Whether it holds data and trees."""
        return len({blob.kind for blob in self.blobs}) > 1


def prove(files: SealedFiles, pack: bytes, size_bytes: int) -> PackProof:
    """Read a pack of that size whole, a few MiB at a time.

    Raises:
        ProviderError: The store does not answer.
    """
    proof = PackProof(pack, size_bytes)
    try:
        _prove(files, proof)
    except IntegrityError as wrong:
        proof.flaw = wrong.message
    except (NotFound, RangeNotSatisfiable):
        proof.flaw = "it went away, or became shorter, while it was read"
    return proof


def _prove(files: SealedFiles, proof: PackProof) -> None:
    key = key_of(FileKind.PACK, proof.pack.hex())
    tail = _tail(files, key, proof.size_bytes)
    start = proof.size_bytes - len(tail)
    proof.blobs = read_header(tail, files.codec.sealer, skipped=start)
    digest = sha256()
    for run in _runs(proof.blobs):
        first, last = run[0], run[-1]
        length = last.offset + last.sealed_bytes - first.offset
        piece = memoryview(files.store.get(key, start=first.offset, length=length))
        digest.update(piece)
        for blob in run:
            place = blob.offset - first.offset
            _judge(files, proof, blob, piece[place : place + blob.sealed_bytes])
    digest.update(tail)
    if digest.digest() != proof.pack and not proof.damaged:
        raise IntegrityError("its bytes are not those it was stored with")


def _tail(files: SealedFiles, key: str, size_bytes: int) -> bytes:
    """Header and length, or what stands in their place."""
    length = min(size_bytes, TAIL_BYTES)
    tail = files.store.get(key, start=size_bytes - length, length=length) if length else b""
    wanted = _LENGTH.unpack(tail[-_LENGTH.size :])[0] + _LENGTH.size if length >= _LENGTH.size else 0
    if length < wanted <= size_bytes:
        tail = files.store.get(key, start=size_bytes - wanted, length=wanted)
    return tail[max(0, len(tail) - wanted) :]


def _judge(files: SealedFiles, proof: PackProof, blob: PackedBlob, sealed: Any) -> None:
    try:
        files.codec.open(sealed, blob)
    except IntegrityError as wrong:
        proof.damaged[blob] = wrong.message


def _runs(blobs: list[PackedBlob]) -> Iterator[list[PackedBlob]]:
    """Neighbours that one request reads."""
    run: list[PackedBlob] = []
    for blob in blobs:
        if blob.sealed_bytes > blob.kind.limit_bytes + OVERHEAD:
            raise IntegrityError(f"its header claims a blob of {blob.sealed_bytes} bytes")
        if run and blob.offset + blob.sealed_bytes - run[0].offset > REQUEST_BYTES:
            yield run
            run = []
        run.append(blob)
    if run:
        yield run
