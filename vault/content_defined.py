"""Cutting files where their content says so: an insertion moves the cuts along, and changes few chunks.

For dumps, logs and archives, which shift; what is overwritten in place (databases, block devices) is better cut at
fixed places. FastCDC of 2020 (Xia et al., IEEE TPDS 31(9)) as pyfastcdc has it, in C, without the
interpreter's lock.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import sha256

from refloat.errors import ConfigError
from vault.sealing import MasterKey

NAME = "fastcdc-2020-1m"
"""What is recorded with a volume: this algorithm, these sizes, a seed of the vault's key. Part of its chunks' identity:
another name stores everything again.
"""
SMALLEST_BYTES = 256 << 10
AVERAGE_BYTES = 1 << 20
LARGEST_BYTES = 4 << 20


def seed_of(key: MasterKey) -> int:
    """Where a vault cuts: its own secret, or the sizes of stored chunks would tell which known file they are of."""
    return int.from_bytes(sha256(b"refloat content-defined chunks" + key.encrypt).digest()[:8], "little")


def chunks(file: int, seed: int) -> Iterator[memoryview]:
    """The chunks of an open file from its start to its end, each valid until the next is asked for; takes 8 MiB.

    Zeros are chunks of ``LARGEST_BYTES``. The caller compares the sum of their lengths with the size it expects.

    Raises:
        ConfigError: The library is not installed.
        OSError: The file cannot be read.
    """
    try:
        from pyfastcdc import FastCDC
    except ImportError as missing:
        raise ConfigError(
            "content-defined chunks need a library that is not installed", guidance="Install refloat[cdc]."
        ) from missing
    cutter = FastCDC(AVERAGE_BYTES, min_size=SMALLEST_BYTES, max_size=LARGEST_BYTES, seed=seed)
    return (chunk.data for chunk in cutter.cut_stream(_Stream(file)))


class _Stream:
    """An open file read from its start, whatever its position is."""

    def __init__(self, file: int) -> None:
        self._file, self._offset = file, 0

    def readinto(self, buffer: memoryview) -> int:
        """As ``io.RawIOBase.readinto``."""
        read = os.preadv(self._file, [buffer], self._offset)
        self._offset += read
        return read
