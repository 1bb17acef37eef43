"""Pouring: what a worker does for an extract. It reads a range of a pack and writes its blobs to where they belong."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from vault import placing
from vault.crew import AHEAD
from vault.disk import explained, shown
from vault.files import SealedFiles
from vault.folders import Folders
from vault.index import Index
from vault.nodes import Node
from vault.reading import BlobReader, Range

MOST_OPEN = 16
_PART = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


Whole = tuple[bytes, bytes, int, int, int, int, int, placing.Xattrs]
"""A file that is one blob, made, written and given its facts at once: folder, name, size, mode, uid, gid, mtime,
attributes. Plain tuples, since thousands of them cross a pipe.
"""
Part = tuple[bytes, bytes, int, bool]
"""A place in a file that is there: folder, name, offset, and whether the file holds nothing but zeros yet."""


class Pour(NamedTuple):
    """A job: a range, and for each of its blobs everywhere it belongs."""

    range: Range
    wholes: list[list[Whole]]
    parts: list[list[Part]]


class Poured(NamedTuple):
    """Bytes that were written."""

    data_bytes: int


def whole(folder: bytes, node: Node) -> Whole:
    """The file of a node."""
    return folder, node.name, node.size, node.mode, node.uid, node.gid, node.mtime, node.xattrs


class Pourer:
    """One worker of an extract (``vault.crew.Worker``). ``root``: the open folder that is filled."""

    def __init__(self, files: SealedFiles, index: Index, root: int, *, owns_store: bool = False) -> None:
        self._files, self._owns_store = files, owns_store
        self._reader = BlobReader(files, index)
        self._folders = Folders(root)
        self._open: OrderedDict[tuple[bytes, bytes], int] = OrderedDict()
        self._pool = ThreadPoolExecutor(AHEAD, thread_name_prefix="fetch")

    def begin(self, job: Pour) -> Callable[[], Poured]:
        """Fetch the range; what is returned writes it."""
        return partial(self._pour, job, self._pool.submit(self._reader.fetch, job.range))

    def finish(self) -> Poured:
        """Nothing is kept back."""
        return Poured(0)

    def close(self) -> None:
        """Let go of files, folders, threads and, where it is its own, the store."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        while self._open:
            os.close(self._open.popitem()[1])
        self._folders.close()
        if self._owns_store:
            self._files.store.close()

    def _pour(self, job: Pour, fetched: Future[bytes]) -> Poured:
        done = 0
        opened = self._reader.open_range(job.range, fetched.result())
        for (_, plain), wholes, parts in zip(opened, job.wholes, job.parts, strict=True):
            target: Whole | Part = parts[0] if parts else wholes[0]
            try:
                for target in wholes:
                    self._make(target, plain)
                for target in parts:
                    self._write(target, plain)
            except OSError as error:
                path = b"%s/%s" % target[:2] if target[0] else target[1]
                raise explained(f"{shown(path)} cannot be written", error) from error
            done += len(plain) * (len(wholes) + len(parts))
        return Poured(done)

    def _make(self, target: Whole, plain: bytes) -> None:
        folder, name, size, mode, uid, gid, mtime, xattrs = target
        file, is_new = placing.open_file(self._folders.file(folder), name, size)
        try:
            if is_new and size >= placing.HOLE_BYTES:
                os.ftruncate(file, size)
                placing.write_new(file, 0, plain)
            else:
                placing.write_all(file, 0, plain)
            placing.set_facts(file, mode, uid, gid, mtime, xattrs)
        finally:
            os.close(file)

    def _write(self, target: Part, plain: bytes) -> None:
        folder, name, offset, is_new = target
        write = placing.write_new if is_new else placing.write_all
        write(self._part(folder, name), offset, plain)

    def _part(self, folder: bytes, name: bytes) -> int:
        file = self._open.get((folder, name))
        if file is None:
            file = self._open[folder, name] = os.open(name, _PART, dir_fd=self._folders.file(folder))
            if len(self._open) > MOST_OPEN:
                os.close(self._open.popitem(last=False)[1])
        return file
