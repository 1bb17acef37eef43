"""Cutting files into chunks: at fixed places, counted from the start of the file, so that a page overwritten in place
changes one chunk; and knowing chunks of zeros without reading or hashing them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256

from refloat.errors import InvalidDocument

CHUNK_BYTES = 256 << 10
"""What a database overwrites in place costs its chunks: 2 % of a gigabyte, as MiB, added 9.1 MiB to a vault with these,
15.6 MiB with chunks of 1 MiB, and 20.3 MiB with restic's.
"""
LARGEST_CHUNK_BYTES = 16 << 20
PAGE_BYTES = 4096
"""Chunks are multiples of it: no sector or page ever lies in two of them."""
_LOOK_BYTES = 512
MOST_CHUNKS = 1 << 18
"""Larger files have larger chunks: a node lists all of its chunks."""
MOST_VOLUME_CHUNKS = 1 << 22
"""Larger volumes have larger chunks: every mover reads an index that lists all of them."""


def volume_chunk_bytes(used_bytes: int) -> int:
    """Least size of the chunks of a volume that holds so many bytes: 256 KiB up to 1 TiB, 1 MiB up to 4 TiB, and so on,
    at most 16 MiB. Part of the volume's identity in the vault, where another size stores everything again: it is
    recorded with the first copy, and kept.
    """
    return _enlarged(CHUNK_BYTES, used_bytes, MOST_VOLUME_CHUNKS)


def chunk_bytes(file_bytes: int, at_least: int = CHUNK_BYTES) -> int:
    """Size of a file's chunks: ``at_least`` up to 2^18 of them, then four times that, and so on, at most 16 MiB."""
    return _enlarged(at_least, file_bytes, MOST_CHUNKS)


def _enlarged(size: int, of_bytes: int, most: int) -> int:
    while of_bytes > size * most and size < LARGEST_CHUNK_BYTES:
        size = min(4 * size, LARGEST_CHUNK_BYTES)
    return size


def checked_chunk_bytes(size: int) -> int:
    """The size itself.

    Raises:
        InvalidDocument: No chunk has that size.
    """
    if size % PAGE_BYTES or not 0 < size <= LARGEST_CHUNK_BYTES:
        raise InvalidDocument(f"{size} bytes is no chunk size: a multiple of {PAGE_BYTES}, at most 16 MiB")
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
    if chunk[0] or chunk[-1] or bytes(chunk[:_LOOK_BYTES]) != bytes(min(_LOOK_BYTES, len(chunk))):
        return False
    # views are compared byte by byte, at a thirtieth of the speed
    return (bytes(chunk) if isinstance(chunk, memoryview) else chunk) == zeros(len(chunk))


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
