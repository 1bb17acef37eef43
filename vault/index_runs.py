"""The part of the index that lies in temporary files: entries in the order of their numbers, and sorted runs of keys.

A key is the beginning of a blob id and the number of its entry. A run is read by page: a filter in memory answers most
of the questions for what it does not hold, the first key of every page says which one to read. Files and not mappings
of them, since pages that are mapped count as the process's memory. About 60 bytes per blob on disk, and as much again
for the keys while runs are merged; less than one byte per blob in memory.
"""

from __future__ import annotations

import errno
import heapq
import os
import struct
import tempfile
import weakref
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import islice

from refloat.errors import RefloatError, StoreFull, TransferFailed
from vault.blobs import ID_BYTES

ENTRY = struct.Struct(f"<{ID_BYTES}sIIII")
"""Id, pack number, offset, sealed length, plaintext length (0: not compressed)."""
PREFIX_BYTES = 8
_PREFIX = struct.Struct(f"<{PREFIX_BYTES}s{ENTRY.size - PREFIX_BYTES}x")
_KEY = struct.Struct(f">{PREFIX_BYTES}sI")
_WHOLE_KEY = struct.Struct(f"{_KEY.size}s")
_HASH = struct.Struct(f">{PREFIX_BYTES // 2}xI{_KEY.size - PREFIX_BYTES}x")
_HASH_MASK = (1 << 32) - 1
_NUMBER = struct.Struct(">I")
_NO_NUMBER = 1 << 32
PAGE_BYTES = 128 * _KEY.size
_BATCH_KEYS = 64 * 128
"""Keys read and written at once; whole pages."""
FAN = 16
"""So many runs of one level are merged into one of the next."""
SETTLED_RUNS = 4
FILTER_BITS, LEAST_FILTER_BITS, AMPLE_FILTER_BITS = 8, 3, 1 << 25
"""A run's filter has 8 bits per key (one question in nine is passed on in vain) as long as that is 4 MiB at most; 3 per
key beyond (one in four).
"""


Bytes = bytes | bytearray | memoryview


class Scratch:
    """A temporary file without a name, that only grows. It goes when the last that uses it goes."""

    def __init__(self) -> None:
        try:
            file = tempfile.TemporaryFile(buffering=0, prefix="refloat-index-")  # noqa: SIM115 (closed by finalize)
        except OSError as error:
            raise _told(error) from error
        weakref.finalize(self, file.close)
        self._fd = file.fileno()

    def write(self, start: int, data: Bytes) -> None:
        """Put bytes at a place.

        Raises:
            StoreFull: There is no room for them.
        """
        try:
            done = 0
            while done < len(data):
                done += os.pwrite(self._fd, memoryview(data)[done:], start + done)
        except OSError as error:
            raise _told(error) from error

    def read(self, start: int, length: int) -> bytes:
        """Bytes from a place on, fewer at the end of the file."""
        try:
            return os.pread(self._fd, length, start)
        except OSError as error:
            raise _told(error) from error


def _told(error: OSError) -> RefloatError:
    folder = tempfile.tempdir or os.environ.get("TMPDIR", "/tmp")
    text = f"the index of the vault does not fit memory and needs a temporary file in {folder}: {error.strerror}"
    guidance = "Point TMPDIR to a folder with room: about 80 bytes for every blob of the vault, 800 MB for 10 TB."
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreFull(text, guidance=guidance)
    return TransferFailed(text, guidance=guidance)


class EntryLog:
    """Entries in the order of their numbers, from 0 on. A forked process that adds does so to a file of its own."""

    def __init__(self) -> None:
        self._files: tuple[tuple[int, Scratch], ...] = ()
        self._process = 0
        self._count = 0

    def write(self, number: int, entries: Bytes) -> None:
        """Put entries, laid end to end, in the place of all from a number on: what an addition that failed left behind.

        Raises:
            StoreFull: There is no room for them.
        """
        if self._process != os.getpid():
            self._files += ((number, Scratch()),)
            self._process = os.getpid()
        first, file = self._files[-1]
        file.write((number - first) * ENTRY.size, entries)
        self._count = number + len(entries) // ENTRY.size

    def read(self, number: int, entries: int = 1) -> bytes:
        """Neighbouring entries, fewer where a file ends."""
        end = self._count
        for first, file in reversed(self._files):
            if first <= number:
                return file.read((number - first) * ENTRY.size, min(entries, end - number) * ENTRY.size)
            end = first
        raise IndexError(number)


class Run:
    """Keys in ascending order; never changes."""

    def __init__(self, keys: Iterable[bytes], most: int, level: int) -> None:
        self.level = level
        self._file, self._keys, self._fences = Scratch(), 0, array("Q")
        self._bits = max(min(most * FILTER_BITS, AMPLE_FILTER_BITS), most * LEAST_FILTER_BITS)
        self._filter: bytearray | None = bytearray(self._bits // 8 + 1)
        rest = iter(keys)
        while batch := list(islice(rest, _BATCH_KEYS)):
            self._append(self._filter, b"".join(batch))
            self._fences.extend(int.from_bytes(key[:PREFIX_BYTES], "big") for key in batch[:: PAGE_BYTES // _KEY.size])

    def __len__(self) -> int:
        return self._keys

    def _append(self, bitmap: bytearray, keys: bytes) -> None:
        self._file.write(self._keys * _KEY.size, keys)
        self._keys += len(keys) // _KEY.size
        bits = self._bits
        for (hashed,) in _HASH.iter_unpack(keys):
            bit = hashed * bits >> 32
            bitmap[bit >> 3] |= 1 << (bit & 7)

    def may_hold(self, prefix: int) -> bool:
        """False when it surely holds no key that begins so."""
        bitmap = self._filter
        bit = (prefix & _HASH_MASK) * self._bits >> 32
        return bitmap is None or bool(bitmap[bit >> 3] & 1 << (bit & 7))

    def numbers(self, prefix: int) -> Iterator[int]:
        """The numbers of all entries whose id begins so, ascending."""
        wanted, page = prefix.to_bytes(PREFIX_BYTES, "big"), max(0, bisect_left(self._fences, prefix) - 1)
        while page < len(self._fences) and self._fences[page] <= prefix:
            keys = self._file.read(page * PAGE_BYTES, PAGE_BYTES)
            at = keys.find(wanted)
            while at >= 0:
                if at % _KEY.size == 0:
                    yield _NUMBER.unpack_from(keys, at + PREFIX_BYTES)[0]
                at = keys.find(wanted, at + 1)
            page += 1

    def forget_filter(self) -> None:
        """Give up the memory of the filter: the run is about to become part of another."""
        self._filter = None

    def __iter__(self) -> Iterator[bytes]:
        """All keys, read by batch."""
        for start in range(0, self._keys * _KEY.size, _BATCH_KEYS * _KEY.size):
            for (key,) in _WHOLE_KEY.iter_unpack(self._file.read(start, _BATCH_KEYS * _KEY.size)):
                yield key


class Spilled:
    """Entries in temporary files, found by id. A value: adding makes another one, that shares what did not change."""

    def __init__(self, log: EntryLog, count: int = 0, runs: tuple[Run, ...] = ()) -> None:
        self._log, self._count, self._runs = log, count, runs

    def find(self, blob_id: bytes) -> int | None:
        """The number of the first entry of an id; None when the id is unknown."""
        prefix = int.from_bytes(blob_id[:PREFIX_BYTES], "big")
        for run in self._runs:
            if run.may_hold(prefix):
                for number in run.numbers(prefix):
                    if self._log.read(number)[:ID_BYTES] == blob_id:
                        return number
        return None

    def read(self, number: int, entries: int = 1) -> bytes:
        """Neighbouring entries, fewer where a file ends."""
        return self._log.read(number, entries)

    def extended(self, entries: Bytes, run_keys: int) -> Spilled:
        """With more entries, in runs of ``run_keys`` at first.

        Raises:
            StoreFull: There is no room for them.
        """
        first, size, runs = self._count, run_keys * ENTRY.size, self._runs
        for start in range(0, len(entries), size):
            part = memoryview(entries)[start : start + size]
            numbers = range(first + start // ENTRY.size, _NO_NUMBER)
            keys = sorted(map(_KEY.pack, (prefix for (prefix,) in _PREFIX.iter_unpack(part)), numbers))
            runs = _levelled((*runs, Run(keys, len(keys), level=0)))
        self._log.write(first, entries)
        return Spilled(self._log, first + len(entries) // ENTRY.size, runs)

    def settled(self) -> Spilled:
        """In at most ``SETTLED_RUNS`` runs, the oldest of which stay as they are.

        Raises:
            StoreFull: There is no room for another copy of the keys.
        """
        if len(self._runs) <= SETTLED_RUNS:
            return self
        return Spilled(self._log, self._count, _merged(self._runs, SETTLED_RUNS - 1))


def _levelled(runs: tuple[Run, ...]) -> tuple[Run, ...]:
    while len(runs) >= FAN and runs[-FAN].level == runs[-1].level:
        runs = _merged(runs, len(runs) - FAN, higher=1)
    return runs


def _merged(runs: tuple[Run, ...], kept: int, *, higher: int = 0) -> tuple[Run, ...]:
    parts = runs[kept:]
    for run in parts:
        run.forget_filter()
    return (*runs[:kept], Run(heapq.merge(*parts), sum(map(len, parts)), parts[0].level + higher))
