"""Filling files: the pieces of many files, read by pack in few requests, verified, written by several threads."""

from __future__ import annotations

import os
import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from hashlib import sha256
from types import TracebackType
from typing import Self

from refloat.errors import IntegrityError
from vault import placing
from vault.blobs import BlobKind, PackedBlob
from vault.chunking import zero_id
from vault.disk import shown, translated
from vault.nodes import Node
from vault.reading import BlobReader, Place, Range, in_parallel
from vault.tally import Tally

BATCH_BYTES = 64 << 20
BATCH_PIECES = 4096
SMALL_BYTES = 64 << 10
"""Requests whose blobs are smaller on average are written out by one thread."""
AHEAD = 4
THREADS = 8
"""Requests in flight; over a network the waiting, not the work, is what takes time."""


@dataclass(eq=False)
class _File:
    """A file being filled; the end of its last piece gives it its facts and closes it."""

    folder: int
    node: Node
    path: bytes
    file: int = -1
    is_new: bool = True
    pending: int = 1
    """Pieces not yet written, and one for whoever adds them."""


class Filling:
    """Gathers pieces of files until a batch is worth reading. Leaving the block closes what is unfinished."""

    def __init__(self, reader: BlobReader, tally: Tally) -> None:
        self._reader, self._tally = reader, tally
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="fill files")
        self._guard = threading.Lock()
        self._open: set[_File] = set()
        self._forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True)
        for file in self._open:
            os.close(file.file)

    def add(self, folder: int, node: Node, path: bytes, *, at_once: bool) -> None:
        """Make a file and see to its content; complete after ``drain``, until when the folder must stay open.

        ``at_once``: the file is made before ``add`` returns, since something bears its name or others link to it.

        Raises:
            IntegrityError: A blob of it is unknown, or its blobs do not add up to its size.
        """
        places = [self._reader.place(BlobKind.DATA, blob_id) for blob_id in node.blobs]
        size = sum(blob.size_bytes for _, blob in places)
        if size != node.size:
            raise IntegrityError(f"{shown(path)}: its {len(places)} blobs have {size} bytes, the file has {node.size}")
        file = _File(folder, node, path)
        if at_once or len(places) != 1:
            file.file, file.is_new = placing.open_file(folder, node.name, node.size)
            self._open.add(file)
            if file.is_new:
                os.ftruncate(file.file, node.size)
        offset = 0
        for place in places:
            self._want(file, offset, place)
            offset += place[1].size_bytes
        self._end_piece(file)

    def drain(self) -> None:
        """Read and write everything gathered so far.

        Raises:
            RefloatError: The first failure, once nothing runs any more.
        """
        ranges = self._reader.ranges(self._places)
        small = [each for each in ranges if each.length < SMALL_BYTES * len(each.blobs)]
        large = [each for each in ranges if each.length >= SMALL_BYTES * len(each.blobs)]
        in_parallel(self._fill, large, self._pool, meanwhile=lambda: self._fill_small(small))
        self._forget()

    def _fill_small(self, ranges: list[Range]) -> None:
        """One thread writes small files, for several only get into each other's way; others fetch ahead of it."""
        ahead: deque[tuple[Range, Future[bytes]]] = deque()
        try:
            for number in range(len(ranges) + AHEAD):
                if number < len(ranges):
                    ahead.append((ranges[number], self._pool.submit(self._reader.fetch, ranges[number])))
                if number >= AHEAD or number >= len(ranges):
                    if not ahead:
                        break
                    wanted, fetched = ahead.popleft()
                    self._put(self._reader.open_range(wanted, fetched.result()))
        finally:
            wait([fetched for _, fetched in ahead])

    def _forget(self) -> None:
        self._wanted: defaultdict[bytes, list[tuple[_File, int]]] = defaultdict(list)
        self._places: list[Place] = []
        self._bytes = 0

    def _want(self, file: _File, offset: int, place: Place) -> None:
        blob = place[1]
        if file.file >= 0 and self._is_there(file, offset, blob):
            self._tally.add(data_bytes=blob.size_bytes)
            return
        with self._guard:
            file.pending += 1
        self._wanted[blob.id].append((file, offset))
        self._places.append(place)
        self._bytes += blob.sealed_bytes
        if self._bytes >= BATCH_BYTES or len(self._places) >= BATCH_PIECES:
            self.drain()

    def _is_there(self, file: _File, offset: int, blob: PackedBlob) -> bool:
        """Whether the file holds these bytes: an earlier try wrote them, or they are zeros and it is new."""
        if file.is_new:
            return blob.size_bytes % placing.HOLE_BYTES == 0 and blob.id == zero_id(blob.size_bytes)
        return sha256(os.pread(file.file, blob.size_bytes, offset)).digest() == blob.id

    def _fill(self, wanted: Range) -> None:
        self._put(self._reader.read_range(wanted))

    def _put(self, blobs: Iterator[tuple[PackedBlob, bytes]]) -> None:
        """Write blobs to everywhere they belong."""
        for blob, plain in blobs:
            for file, offset in self._wanted[blob.id]:
                with translated(f"{shown(file.path)} cannot be written"):
                    self._write(file, offset, plain)
                    self._tally.add(data_bytes=len(plain))
                    self._end_piece(file)

    def _write(self, file: _File, offset: int, plain: bytes) -> None:
        if file.file < 0:
            file.file, file.is_new = placing.open_file(file.folder, file.node.name, file.node.size)
            with self._guard:
                self._open.add(file)
            if len(plain) >= placing.HOLE_BYTES:
                os.ftruncate(file.file, file.node.size)
        if file.is_new:
            placing.write_new(file.file, offset, plain)
        else:
            placing.write_all(file.file, offset, plain)

    def _end_piece(self, file: _File) -> None:
        with self._guard:
            file.pending -= 1
            if file.pending:
                return
        placing.set_facts(file.file, file.node)
        with self._guard:
            self._open.discard(file)
        os.close(file.file)
        self._tally.add(files=1)
