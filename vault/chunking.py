"""Cutting files into chunks: at fixed places, counted from the start of the file, so that a page overwritten in place
changes one chunk; and knowing chunks of zeros without reading or hashing them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256

CHUNK_BYTES = 1 << 20
LARGEST_CHUNK_BYTES = 16 << 20
MOST_CHUNKS = 1 << 18
"""Larger files have larger chunks: a node lists all of its chunks, and the index each of them."""


def chunk_bytes(file_bytes: int) -> int:
    """Size of a file's chunks: 1 MiB up to 256 GiB, then four times that, at most 16 MiB. Part of a file's identity in
    the vault: another size stores everything again.
    """
    size = CHUNK_BYTES
    while file_bytes > size * MOST_CHUNKS and size < LARGEST_CHUNK_BYTES:
        size *= 4
    return size


@lru_cache(maxsize=2)
def zeros(length: int) -> bytes:
    """That many zeros."""
    return bytes(length)


@lru_cache(maxsize=64)
def zero_id(length: int) -> bytes:
    """The blob id of that many zeros."""
    return sha256(zeros(length)).digest()


def is_zero(chunk: bytes | bytearray | memoryview) -> bool:
    """Whether a chunk that is not empty is all zeros; compares memory, no loop in Python."""
    return not chunk[0] and not chunk[-1] and chunk == zeros(len(chunk))


def holes(file: int, size: int, step: int, start: int = 0) -> Iterator[tuple[int, int, bool]]:
    """Offset, length and whether it lies in a hole, of every chunk of an open file of that size, or of its first
    ``size`` bytes from ``start`` on, which is a multiple of ``step``.
    """
    data = _next_data(file, start, size)
    for offset in range(start, size, step):
        length = min(step, size - offset)
        if data < offset:
            data = _next_data(file, offset, size)
        yield offset, length, data >= offset + length


def _next_data(file: int, offset: int, size: int) -> int:
    """Where the next data begins at or after an offset; the offset itself where the file system cannot tell."""
    try:
        return os.lseek(file, offset, os.SEEK_DATA)
    except OSError as error:
        return size if error.errno == errno.ENXIO else offset
