"""Cutting files where their content says so: an insertion moves the cuts along, and changes few chunks.

For dumps, logs and archives, which shift; what is overwritten in place (databases, block devices) is better cut at
fixed places. FastCDC of 2020 (Xia et al., IEEE TPDS 31(9)) as pyfastcdc has it, in C, without the
interpreter's lock.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import sha256

from pyfastcdc import FastCDC

from vault.sealing import MasterKey

NAME = "fastcdc-2020-1m"
"""What is recorded with a volume: this algorithm, these sizes, a seed of the vault's key. Part of its chunks' identity:
another name stores everything again.
"""
SMALLEST_BYTES = 256 << 10
AVERAGE_BYTES = 1 << 20
LARGEST_BYTES = 4 << 20
PIECE_BYTES = 128 << 20
"""A file is cut in pieces of this size, each from its own start, so that all cores cut it: part of the identity, too.
An insertion moves the cuts along in every piece, and costs it the chunks at its ends.
"""


def seed_of(key: MasterKey) -> int:
    """Where a vault cuts: its own secret, or the sizes of stored chunks would tell which known file they are of."""
    made = sha256(b"refloat content-defined chunks" + key.encrypt).digest()
    return int.from_bytes(made[:8], "little") >> 1  # the library doubles it in 64 bits


def chunks(file: int, seed: int, start: int = 0, end: int | None = None) -> Iterator[memoryview]:
    """The chunks of an open file from ``start`` to ``end``, or to its end, each valid until the next is asked for.

    Takes 8 MiB. Zeros are chunks of ``LARGEST_BYTES``. The caller compares the sum of their lengths with what it
    expects.

    Raises:
        OSError: The file cannot be read.
    """
    cutter = FastCDC(AVERAGE_BYTES, min_size=SMALLEST_BYTES, max_size=LARGEST_BYTES, seed=seed)
    return (chunk.data for chunk in cutter.cut_stream(_Stream(file, start, end)))


class _Stream:
    """Part of an open file, whatever its position is."""

    def __init__(self, file: int, start: int, end: int | None) -> None:
        self._file, self._offset, self._end = file, start, end

    def readinto(self, buffer: memoryview) -> int:
        """As ``io.RawIOBase.readinto``."""
        room = len(buffer) if self._end is None else min(len(buffer), self._end - self._offset)
        read = os.preadv(self._file, [buffer[:room]], self._offset) if room else 0
        self._offset += read
        return read
