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
from vault.disk import shown, translated
from vault.files import SealedFiles
from vault.folders import Folders
from vault.index import Index
from vault.nodes import Node
from vault.reading import BlobReader, Range

MOST_OPEN = 16
_PART = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Whole(NamedTuple):
    """A file that is one blob: it is made, written and given its facts at once."""

    folder: bytes
    name: bytes
    size: int
    mode: int
    uid: int
    gid: int
    mtime: int
    xattrs: tuple[tuple[str, bytes], ...]


class Part(NamedTuple):
    """A place in a file that is there; ``is_new``: it holds nothing but zeros yet."""

    folder: bytes
    name: bytes
    offset: int
    is_new: bool


class Pour(NamedTuple):
    """A job: a range, and for each of its blobs everywhere it belongs."""

    range: Range
    targets: list[list[Whole | Part]]


class Poured(NamedTuple):
    """Bytes that were written."""

    data_bytes: int


def whole(folder: bytes, node: Node) -> Whole:
    """The file of a node."""
    return Whole(folder, node.name, node.size, node.mode, node.uid, node.gid, node.mtime, node.xattrs)


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
        for (_, plain), targets in zip(opened, job.targets, strict=True):
            for target in targets:
                with translated(f"{_shown(target)} cannot be written"):
                    if isinstance(target, Whole):
                        self._make(target, plain)
                    else:
                        self._write(target, plain)
                done += len(plain)
        return Poured(done)

    def _make(self, target: Whole, plain: bytes) -> None:
        file, is_new = placing.open_file(self._folders.file(target.folder), target.name, target.size)
        try:
            if not is_new:
                placing.write_all(file, 0, plain)
            elif target.size >= placing.HOLE_BYTES:
                os.ftruncate(file, target.size)
                placing.write_new(file, 0, plain)
            else:
                placing.write_all(file, 0, plain)
            placing.set_facts(file, target)
        finally:
            os.close(file)

    def _write(self, target: Part, plain: bytes) -> None:
        write = placing.write_new if target.is_new else placing.write_all
        write(self._part(target), target.offset, plain)

    def _part(self, target: Part) -> int:
        key = (target.folder, target.name)
        file = self._open.get(key)
        if file is None:
            file = self._open[key] = os.open(target.name, _PART, dir_fd=self._folders.file(target.folder))
            if len(self._open) > MOST_OPEN:
                os.close(self._open.popitem(last=False)[1])
        return file


def _shown(target: Whole | Part) -> str:
    return shown(b"%s/%s" % (target.folder, target.name) if target.folder else target.name)
