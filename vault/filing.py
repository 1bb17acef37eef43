"""File contents on their way into blobs: small ones in one read, large ones by chunks on all cores.

A file that changes or shrinks while it is read is told to the caller, never silently shortened.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from vault.blobs import ID_BYTES, BlobKind
from vault.chunking import chunk_bytes, holes, is_zero, zero_id, zeros
from vault.nodes import Node
from vault.tally import Tally
from vault.writing import BlobWriter

CHANGED = "changed while it was read"
MOST_CORES = 16
"""Each worker fills a pack of its own, about 20 MiB of memory."""


@dataclass(frozen=True)
class Reading:
    """How the reading of one file ended. ``why``: what is wrong with it; ``is_whole``: as many bytes as stat said."""

    why: str | None = None
    is_whole: bool = True


def read_small(file: int, node: Node, found: os.stat_result, writer: BlobWriter) -> Reading:
    """Store an open file of at most one chunk; its content goes into the node."""
    body = os.read(file, node.size + 1)
    while 0 < len(body) < node.size and (more := os.read(file, node.size + 1 - len(body))):
        body += more
    if len(body) < node.size:
        return Reading(CHANGED, is_whole=False)
    if node.size:
        node.content = writer.save(BlobKind.DATA, body[: node.size] if len(body) > node.size else body)
    return Reading() if _is_same(found, os.fstat(file)) else Reading(CHANGED)


def _is_same(before: os.stat_result, after: os.stat_result) -> bool:
    return (before.st_ino, before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_ino, after.st_size, after.st_mtime_ns, after.st_ctime_ns,
    )  # fmt: skip


def cores() -> int:
    """Processor cores this process may use: what its affinity and its cgroup's quota allow, within ``MOST_CORES``."""
    allowed = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):  # no cgroup v2, or no quota: "max"
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        allowed = min(allowed, -(-int(quota) // int(period)))
    return max(1, min(allowed, MOST_CORES))


Finish = Callable[[Reading], None]


class ChunkedFiles:
    """Reads large files by chunks, in threads of its own; leaving the block waits for all of them.

    Bounded: as many chunks are under way as keep the cores busy.
    """

    def __init__(self, writer: BlobWriter, tally: Tally) -> None:
        self._writer, self._tally = writer, tally
        workers = cores()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="chunks")
        self._room = threading.BoundedSemaphore(2 * workers)
        self._guard = threading.Lock()
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._failure = self._failure or error
        self._pool.shutdown(wait=True)
        if error is None:
            self.raise_if_failed()

    def raise_if_failed(self) -> None:
        """Raise what any chunk's work ended with."""
        if self._failure is not None:
            raise self._failure

    def read(self, file: int, node: Node, found: os.stat_result, finish: Finish) -> None:
        """Store an open file, which is closed here; ``finish`` is called once, from any thread, when all of it is."""
        job = _Job(file, found, finish)
        try:
            step = chunk_bytes(node.size)
            node.content = job.ids = bytearray(-(-node.size // step) * ID_BYTES)
            for number, (offset, length, is_hole) in enumerate(holes(file, node.size, step)):
                self.raise_if_failed()
                if is_hole:
                    job.put(number, self._writer.save(BlobKind.DATA, zeros(length), zero_id(length)))
                    self._tally.add(data_bytes=length)
                else:
                    self._room.acquire()
                    with self._guard:
                        job.pending += 1
                    self._pool.submit(self._chunk, job, number, offset, length)
        finally:
            self._end(job)

    def _chunk(self, job: _Job, number: int, offset: int, length: int) -> None:
        try:
            if self._failure is None and job.reading.is_whole:
                chunk = self._read(job.file, offset, length)
                if len(chunk) < length:
                    job.reading = Reading(CHANGED, is_whole=False)
                else:
                    known = zero_id(length) if is_zero(chunk) else None
                    job.put(number, self._writer.save(BlobKind.DATA, chunk, known))
                    self._tally.add(data_bytes=length)
        except OSError as error:
            job.reading = Reading(error.strerror or str(error), is_whole=False)
        except BaseException as error:  # noqa: BLE001 (raised by the walk)
            self._failure = self._failure or error
        finally:
            self._room.release()
            self._end(job)

    def _read(self, file: int, offset: int, length: int) -> bytes | bytearray:
        """Bytes of a file; fewer when it ends before."""
        chunk = os.pread(file, length, offset)
        while 0 < len(chunk) < length and (more := os.pread(file, length - len(chunk), offset + len(chunk))):
            chunk += more
        return chunk

    def _end(self, job: _Job) -> None:
        """One part of a job ended; the last one finishes it."""
        with self._guard:
            job.pending -= 1
            if job.pending:
                return
        try:
            if job.reading.why is None and not _is_same(job.found, os.fstat(job.file)):
                job.reading = Reading(CHANGED)
            os.close(job.file)
            if self._failure is None:
                self._tally.add(files=1)
                job.finish(job.reading)
        except BaseException as error:  # noqa: BLE001 (raised by the walk)
            self._failure = self._failure or error


class _Job:
    """One file being read in parts; the walk's own part is the first."""

    def __init__(self, file: int, found: os.stat_result, finish: Finish) -> None:
        self.file, self.found, self.finish = file, found, finish
        self.ids = bytearray()
        self.pending = 1
        self.reading = Reading()

    def put(self, number: int, blob_id: bytes) -> None:
        """The id of one chunk."""
        self.ids[number * ID_BYTES : (number + 1) * ID_BYTES] = blob_id
