"""Pouring: what a worker does for an extract. It makes what a tree lists, and writes blobs to where they belong.

Files of one blob are made by the worker that visits their folder; files of several, and files of several names, are
told to the mover, which hands their pieces out.
"""

from __future__ import annotations

import os
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from typing import NamedTuple

from refloat.errors import IntegrityError
from vault import placing
from vault.blobs import BlobKind
from vault.crew import AHEAD
from vault.direct import DirectFile, DirectWriter
from vault.disk import explained, names_in, shown, translated
from vault.files import SealedFiles
from vault.folders import Folders
from vault.index import Index
from vault.nodes import DIR, FILE, SOCKET, Node
from vault.reading import BlobReader, Place, Range

LOST_AND_FOUND = b"lost+found"
"""The file system's own folder, at the top of a volume; neither removed nor missed."""
VISIT_BYTES = 8 << 20
VISIT_FILES = 1024
"""What one job fills; folders that hold more are cut into slices."""
MOST_TREES = 4
MOST_OPEN = 16


class Visit(NamedTuple):
    """A job: folders, each with its path and its tree, to be made equal to it as far as one worker may."""

    folders: list[tuple[bytes, bytes]]


class Slice(NamedTuple):
    """A job: files of one blob, counted in the order of the folder's tree, from ``start`` to before ``end``."""

    path: bytes
    tree: bytes
    start: int
    end: int


class Pour(NamedTuple):
    """A job: a range, and for each of its blobs the places in one file where it belongs; ``is_new``: the file holds
    nothing but zeros yet.
    """

    folder: bytes
    name: bytes
    is_new: bool
    range: Range
    offsets: list[list[int]]


Job = Visit | Slice | Pour


class Entered(NamedTuple):
    """What is left to do of a folder that was visited: its folders; files for the mover; slices of its other files."""

    below: list[Node]
    apart: list[Node]
    slices: list[tuple[int, int]]


class Made(NamedTuple):
    """The answer to any job: one entry per folder visited, files that are complete, bytes written or found right."""

    folders: list[Entered]
    files: int
    data_bytes: int


class Pourer:
    """One worker of an extract (``vault.crew.Worker``). ``root``: the open folder that is filled."""

    def __init__(self, files: SealedFiles, index: Index, root: int, *, owns_store: bool = False) -> None:
        self._files, self._owns_store = files, owns_store
        self._reader = BlobReader(files, index)
        self._folders = Folders(root)
        self._open: OrderedDict[tuple[bytes, bytes], DirectFile] = OrderedDict()
        self._writer = DirectWriter()
        self._trees: OrderedDict[bytes, list[Node]] = OrderedDict()
        self._pool = ThreadPoolExecutor(AHEAD, thread_name_prefix="fetch")

    def begin(self, job: Job) -> Callable[[], Made]:
        """Make what has no content, and begin to fetch the rest; what is returned writes it."""
        if isinstance(job, Pour):
            return partial(self._pour, job, self._pool.submit(self._reader.fetch, job.range))
        if isinstance(job, Slice):
            files = self._single(self._tree(job.tree))[job.start : job.end]
            there = set(names_in(self._folders.file(job.path)))
            return self._fill([], [(job.path, file) for file in files], {job.path: there})
        return self._visit(job)

    def finish(self) -> Made:
        """Nothing is kept back."""
        return Made([], 0, 0)

    def close(self) -> None:
        """Let go of files, folders, threads and, where it is its own, the store."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        while self._open:
            self._open.popitem()[1].close()
        self._writer.close()
        self._folders.close()
        if self._owns_store:
            self._files.store.close()

    def _tree(self, tree: bytes) -> list[Node]:
        if tree not in self._trees:
            self._trees[tree] = self._reader.tree(tree)
            if len(self._trees) > MOST_TREES:
                self._trees.popitem(last=False)
        return self._trees[tree]

    @staticmethod
    def _single(nodes: Sequence[Node]) -> list[Node]:
        """Files that one worker makes whole: one blob or none, one name."""
        return [node for node in nodes if node.type == FILE and node.links <= 1 and len(node.content) <= 32]

    def _visit(self, job: Visit) -> Callable[[], Made]:
        entered: list[Entered] = []
        wanted: list[tuple[bytes, Node]] = []
        there: dict[bytes, set[bytes]] = {}
        room_bytes, room_files = VISIT_BYTES, VISIT_FILES
        for path, tree in job.folders:
            nodes = self._tree(tree)
            there[path] = self._enter(path, nodes)
            files = self._single(nodes)
            size = sum(file.size for file in files)
            fits = size <= room_bytes and len(files) <= room_files
            if fits:
                room_bytes, room_files = room_bytes - size, room_files - len(files)
                wanted += [(path, file) for file in files]
            alone = set(map(id, files))
            apart = [node for node in nodes if node.type == FILE and id(node) not in alone]
            below = [node for node in nodes if node.type == DIR]
            entered.append(Entered(below, apart, [] if fits else _slices(files)))
        return self._fill(entered, wanted, there)

    def _enter(self, path: bytes, nodes: Sequence[Node]) -> set[bytes]:
        """Remove what the tree does not list, make folders, links and devices; the names that were there before."""
        with translated(f"{shown(path) or 'the top of the volume'} cannot be filled"):
            here = self._folders.file(path)
            there = set(names_in(here))
            for name in there - {node.name for node in nodes}:
                if path or name != LOST_AND_FOUND or not placing.is_folder(here, name):
                    placing.remove(here, name)
        for node in nodes:
            if node.type in (FILE, SOCKET):
                continue
            below = _joined(path, node.name)
            with translated(f"{shown(below)} cannot be made"):
                if node.type == DIR:
                    self._folders.keep(below, placing.open_folder(here, node.name))
                else:
                    placing.make_special(here, node)
        return there

    def _fill(
        self, entered: list[Entered], wanted: list[tuple[bytes, Node]], there: dict[bytes, set[bytes]]
    ) -> Callable[[], Made]:
        """Begin to fetch the contents of files of one blob; what is returned makes the files. ``wanted``: folder and
        node; ``there``: names that each folder held before.
        """
        by_blob: defaultdict[bytes, list[tuple[bytes, Node]]] = defaultdict(list)
        places: list[Place] = []
        kept = kept_bytes = 0
        for path, node in wanted:
            if node.name in there[path] and self._is_kept(path, node):
                kept, kept_bytes = kept + 1, kept_bytes + node.size
                continue
            blob_id, size = bytes(node.content), 0
            if blob_id:
                places.append(self._reader.place(BlobKind.DATA, blob_id))
                size = places[-1][1].size_bytes
            if size != node.size:
                name = shown(_joined(path, node.name))
                raise IntegrityError(f"{name}: its {len(node.blobs)} blobs have {size} bytes, the file has {node.size}")
            by_blob[blob_id].append((path, node))
        fetches = [(each, self._pool.submit(self._reader.fetch, each)) for each in self._reader.ranges(places)]
        return partial(self._make_all, Made(entered, kept, kept_bytes), by_blob, fetches)

    def _is_kept(self, path: bytes, node: Node) -> bool:
        """Whether the file is there with this content, of an earlier try; it gets its facts then."""
        with translated(f"{shown(_joined(path, node.name))} cannot be compared"):
            file = placing.open_same(self._folders.file(path), node.name, node.size)
            if file is None:
                return False
            try:
                if sha256(os.pread(file, node.size, 0)).digest() != node.content:
                    return False
                placing.set_node_facts(file, node)
            finally:
                os.close(file)
        return True

    def _make_all(
        self, kept: Made, by_blob: dict[bytes, list[tuple[bytes, Node]]], fetches: list[tuple[Range, Future[bytes]]]
    ) -> Made:
        _, files, data_bytes = kept
        for path, node in by_blob.pop(b"", ()):
            self._make(path, node, b"")
            files += 1
        for wanted, fetched in fetches:
            for blob, plain in self._reader.open_range(wanted, fetched.result()):
                for path, node in by_blob[blob.id]:
                    self._make(path, node, plain)
                    files += 1
                    data_bytes += len(plain)
        return Made(kept.folders, files, data_bytes)

    def _make(self, path: bytes, node: Node, plain: bytes) -> None:
        try:
            file, is_new = placing.open_file(self._folders.file(path), node.name, node.size)
            try:
                if is_new and node.size >= placing.HOLE_BYTES:
                    os.ftruncate(file, node.size)
                    placing.write_new(file, 0, plain)
                else:
                    placing.write_all(file, 0, plain)
                placing.set_node_facts(file, node)
            finally:
                os.close(file)
        except OSError as error:
            raise explained(f"{shown(_joined(path, node.name))} cannot be written", error) from error

    def _pour(self, job: Pour, fetched: Future[bytes]) -> Made:
        done = 0
        with translated(f"{shown(_joined(job.folder, job.name))} cannot be written"):
            file = self._part(job.folder, job.name)
            opened = self._reader.open_range(job.range, fetched.result())
            try:
                for (_, plain), offsets in zip(opened, job.offsets, strict=True):
                    for offset in offsets:
                        for start, run in placing.runs(plain) if job.is_new else [(0, memoryview(plain))]:
                            self._writer.write(file, offset + start, run)
                        done += len(plain)
            finally:
                self._writer.drain()
        return Made([], 0, done)

    def _part(self, folder: bytes, name: bytes) -> DirectFile:
        file = self._open.get((folder, name))
        if file is None:
            opened = placing.open_part(self._folders.file(folder), name)
            file = self._open[folder, name] = DirectFile(opened, os.O_WRONLY)
            if len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)[1].close()
        return file


def _slices(files: Sequence[Node]) -> list[tuple[int, int]]:
    """Cuts a folder's files into jobs."""
    slices: list[tuple[int, int]] = []
    start = size = 0
    for number, file in enumerate(files):
        if number > start and (size + file.size > VISIT_BYTES or number - start >= VISIT_FILES):
            slices.append((start, number))
            start, size = number, 0
        size += file.size
    return [*slices, (start, len(files))]


def _joined(folder: bytes, name: bytes) -> bytes:
    return b"%s/%s" % (folder, name) if folder else name
