"""Filing: what a worker does for an archive. Names of a folder become nodes, chunks of a large file become blobs.

A file that changes or shrinks while it is read is told to the mover, never silently shortened.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from refloat.errors import IntegrityError
from vault import content_defined
from vault.blobs import ID_BYTES, BlobKind
from vault.chunking import CHUNK_BYTES, holes, is_zero, zero_id, zeros
from vault.claims import Claims
from vault.disk import node_of, path_below, read_xattrs
from vault.earlier import EarlierFolder
from vault.files import SealedFiles
from vault.folders import Folders
from vault.index import Index
from vault.nodes import DIR, FILE, SOCKET, SYMLINK, Node, encode_node, encode_tree
from vault.packs import SealedBlob
from vault.reading import BlobReader
from vault.writing import BlobWriter, CrewWriter, PackWriter, StoredPack

CHANGED = "changed while it was read"
INLINE_BYTES = 1 << 20
"""Files up to this size are read with the names of their folder, as one blob each."""
ENOUGH_BYTES = 32 << 20
"""What is read for one job; files beyond it that are not tiny become jobs of their own."""
TINY_BYTES = 64 << 10
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
Facts = tuple[int, int, int, int]
"""Inode, size, modification and change time: what tells whether a file is still the one that was looked at."""


class Names(NamedTuple):
    """A job: names in a folder, and the tree of an earlier copy of that folder, or nothing. ``are_all``: the folder
    holds no others.
    """

    folder: bytes
    names: list[bytes]
    earlier: bytes
    are_all: bool


class Chunks(NamedTuple):
    """A job: chunks of a large file from ``start`` to ``end``, of ``step`` bytes, or where the content says (0)."""

    folder: bytes
    name: bytes
    facts: Facts
    step: int
    start: int
    end: int


class Filed(NamedTuple):
    """What names became: a node's text each; or a node, of a folder to walk (``subtree``: its earlier tree) or of a
    file to read by chunks; or None, where nothing can be stored. ``packs``: what was stored since the last answer.
    ``tree``: of a folder of which no more is to be done, and entries are not given. ``trees``: with the last answer,
    those that are in no pack yet.
    """

    entries: list[bytes | Node | None]
    wrong: list[tuple[bytes, str]]
    files: int
    data_bytes: int
    packs: list[StoredPack]
    tree: bytes | None = None
    trees: Sequence[SealedBlob] = ()


class Chunked(NamedTuple):
    """The chunks' ids end to end; ``why``: what is wrong with the file; not ``is_whole``: bytes of it are missing."""

    ids: bytes
    why: str | None
    is_whole: bool
    packs: list[StoredPack]


class Reading(NamedTuple):
    """How the reading of one file ended. ``why``: what is wrong with it; ``is_whole``: as many bytes as stat said."""

    why: str | None = None
    is_whole: bool = True


def facts_of(found: os.stat_result) -> Facts:
    """What must stay the same while a file is read."""
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def read_small(file: int, node: Node, found: os.stat_result, writer: PackWriter | BlobWriter) -> Reading:
    """Store an open file of at most one chunk; its content goes into the node."""
    body = os.read(file, node.size + 1)
    while 0 < len(body) < node.size and (more := os.read(file, node.size + 1 - len(body))):
        body += more
    if len(body) < node.size:
        return Reading(CHANGED, is_whole=False)
    if node.size:
        node.content = writer.save(BlobKind.DATA, body[: node.size] if len(body) > node.size else body)
    return Reading() if facts_of(found) == facts_of(os.fstat(file)) else Reading(CHANGED)


class Filer:
    """One worker of an archive (``vault.crew.Worker``). ``root``: the open folder that is archived."""

    def __init__(
        self, files: SealedFiles, index: Index, root: int, claims: Claims | None, *, owns_store: bool = False
    ) -> None:
        self._files, self._index, self._owns_store = files, index, owns_store
        self._writer = CrewWriter(files, index, claims)
        self._reader = BlobReader(files, index)
        self._folders = Folders(root)
        self._device = os.fstat(root).st_dev
        self._earlier = (b"", EarlierFolder())
        self._buffer = bytearray(CHUNK_BYTES)

    def begin(self, job: Names | Chunks) -> Callable[[], Filed | Chunked]:
        """Take a job."""
        return partial(self._names, job) if isinstance(job, Names) else partial(self._chunks, job)

    def finish(self) -> Filed:
        """Store what is still open."""
        trees = self._writer.trees()
        self._writer.flush()
        return Filed([], [], 0, 0, self._writer.taken(), trees=trees)

    def close(self) -> None:
        """Let go of folders, threads and, where it is its own, the store."""
        self._folders.close()
        self._writer.close()
        if self._owns_store:
            self._files.store.close()

    def _names(self, job: Names) -> Filed:
        work = _Batch(self, job)
        try:
            folder = self._folders.file(job.folder)
        except OSError as error:
            return Filed([None] * len(job.names), [(job.folder, _why(error))], 0, 0, self._writer.taken())
        earlier = self._earlier_folder(job.earlier)
        for name in job.names:
            try:
                work.entries.append(work.entry(folder, name, earlier))
            except OSError as error:
                work.miss(name, _why(error))
            except UnicodeEncodeError:
                work.miss(name, "an extended attribute's name is no UTF-8")
        entries, tree = work.entries, None
        if job.are_all and not any(isinstance(entry, Node) for entry in entries):
            texts = (entry for entry in entries if isinstance(entry, bytes))
            entries, tree = [], self._writer.save(BlobKind.TREE, encode_tree(texts))
        return Filed(entries, work.wrong, work.files, work.data_bytes, self._writer.taken(), tree)

    def _earlier_folder(self, tree: bytes) -> EarlierFolder:
        """The earlier copy of a folder; a tree that cannot be read costs time, not safety: its files are read again."""
        if tree != self._earlier[0]:
            self._earlier = (tree, EarlierFolder())
            with suppress(IntegrityError):
                self._earlier = (tree, EarlierFolder(self._reader.tree_text(tree)))
        return self._earlier[1]

    def _chunks(self, job: Chunks) -> Chunked:
        try:
            file = os.open(job.name, _READ, dir_fd=self._folders.file(job.folder))
        except OSError as error:
            return Chunked(b"", _why(error), is_whole=False, packs=self._writer.taken())
        try:
            was_same = facts_of(os.fstat(file)) == job.facts
            ids = self._read_chunks(file, job)
            if ids is None:
                return Chunked(b"", CHANGED, is_whole=False, packs=self._writer.taken())
            is_same = was_same and facts_of(os.fstat(file)) == job.facts
            return Chunked(ids, None if is_same else CHANGED, is_whole=True, packs=self._writer.taken())
        except OSError as error:
            return Chunked(b"", _why(error), is_whole=False, packs=self._writer.taken())
        finally:
            os.close(file)

    def _read_chunks(self, file: int, job: Chunks) -> bytes | None:
        """The ids of the chunks; None when the file has become shorter."""
        ids = bytearray()
        if not job.step:
            return self._cut_by_content(file, job)
        for offset, length, is_hole in holes(file, job.end, job.step, job.start):
            if is_hole:
                ids += self._writer.save(BlobKind.DATA, zeros(length), zero_id(length))
                continue
            chunk = self._read(file, offset, length)
            if len(chunk) < length:
                return None
            ids += self._writer.save(BlobKind.DATA, chunk, zero_id(length) if is_zero(chunk) else None)
        return bytes(ids) if os.fstat(file).st_size >= job.end else None  # what lies beyond the end reads as a hole

    def _cut_by_content(self, file: int, job: Chunks) -> bytes | None:
        ids, size = bytearray(), 0
        for chunk in content_defined.chunks(file, content_defined.seed_of(self._files.key), job.start, job.end):
            ids += self._writer.save(BlobKind.DATA, chunk, zero_id(len(chunk)) if is_zero(chunk) else None)
            size += len(chunk)
        return bytes(ids) if size == job.end - job.start else None

    def _read(self, file: int, offset: int, length: int) -> memoryview:
        """Bytes of a file, in the one buffer; fewer when it ends before."""
        if length > len(self._buffer):
            self._buffer = bytearray(length)
        chunk, done = memoryview(self._buffer)[:length], 0
        while done < length and (read := os.preadv(file, [chunk[done:]], offset + done)):
            done += read
        return chunk[:done]

    def holds(self, ids: bytes | bytearray) -> bool:
        """Whether the vault holds all of these blobs."""
        has = self._index.has
        if len(ids) == ID_BYTES:
            return has(BlobKind.DATA, bytes(ids))
        return all(has(BlobKind.DATA, bytes(ids[i : i + ID_BYTES])) for i in range(0, len(ids), ID_BYTES))

    @property
    def writer(self) -> CrewWriter:
        """Where blobs go."""
        return self._writer

    def device_of(self, found: os.stat_result) -> int:
        """A number for the file system: the system's own differs with every mount, so the root's is 1."""
        return 1 if found.st_dev == self._device else found.st_dev + 2


class _Batch:
    """One job of names on its way."""

    def __init__(self, filer: Filer, job: Names) -> None:
        self._filer, self._folder = filer, job.folder
        self.entries: list[bytes | Node | None] = []
        self.wrong: list[tuple[bytes, str]] = []
        self.files = self.data_bytes = self._read_bytes = 0

    def miss(self, name: bytes, why: str) -> None:
        """Nothing can be stored under a name."""
        self.entries.append(None)
        self._record(name, why)

    def _record(self, name: bytes, why: str) -> None:
        self.wrong.append((b"%s/%s" % (self._folder, name) if self._folder else name, why))

    def entry(self, folder: int, name: bytes, earlier: EarlierFolder) -> bytes | Node | None:
        """Deal with one name."""
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        same = earlier.same_file(name, found) if stat.S_ISREG(found.st_mode) else None
        if same is not None and not self._filer.holds(same.content):
            same = None
        if same is not None and same.text is not None:
            return self._count(found.st_size, same.text)
        device = self._filer.device_of(found) if found.st_nlink > 1 else 1
        node = node_of(name, found, device)
        if node is None or node.type == SOCKET:  # a socket is its server's, and means nothing without it
            return None
        if same is not None:
            node.content, node.xattrs = same.content, same.xattrs  # attributes change the change time too
            return self._count(node.size, encode_node(node))
        if node.type == FILE:
            return self._file(folder, node, found)
        node.xattrs = read_xattrs(path_below(folder, name))
        if node.type == DIR:
            node.subtree = earlier.subtree(name)
            return node
        if node.type == SYMLINK:
            node.target = os.readlink(name, dir_fd=folder)
        return encode_node(node)

    def _file(self, folder: int, node: Node, found: os.stat_result) -> bytes | Node | None:
        file = os.open(node.name, _READ, dir_fd=folder)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                self._record(node.name, CHANGED)
                return None
            node.xattrs = read_xattrs(file)
            if node.size > INLINE_BYTES or (self._read_bytes > ENOUGH_BYTES and node.size > TINY_BYTES):
                return node
            reading = read_small(file, node, found, self._filer.writer)
        finally:
            os.close(file)
        self._read_bytes += node.size
        if reading.why is not None:
            self._record(node.name, reading.why)
        return self._count(node.size, encode_node(node)) if reading.is_whole else None

    def _count(self, size: int, text: bytes) -> bytes:
        self.files += 1
        self.data_bytes += size
        return text


def _why(error: OSError) -> str:
    return error.strerror or str(error)
