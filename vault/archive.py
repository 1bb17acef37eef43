"""Archive: a folder → packs, indexes and a tree. The walk, the folders on their way to becoming trees, the result.

Depth first; each folder's tree is stored as soon as everything in it is. Small files are read by the walk itself
(threads only get into each other's way there), large ones by chunks on all cores.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from refloat.errors import ConfigError, IntegrityError
from refloat.recovery_point import FolderFacts
from vault.blobs import BlobKind
from vault.disk import facts_of, names_in, node_of, path_below, read_xattrs, shown, translated
from vault.filing import ChunkedFiles, Reading, read_small
from vault.nodes import DIR, FILE, SOCKET, SYMLINK, Node, encode_node, encode_tree
from vault.reading import BlobReader
from vault.repository import OpenVault
from vault.tally import Tally
from vault.writing import BlobWriter

INLINE_BYTES = 128 << 10
"""Files up to this size are read by the walk."""
MOST_NAMED = 100
"""Unreadable paths that are named; all are counted."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_log = logging.getLogger(__name__)


@dataclass
class Unreadable:
    """Paths that could not be read whole: they vanished, changed while they were read, or the volume refused."""

    paths: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, path: bytes, why: str) -> None:
        """Record one."""
        self.count += 1
        if len(self.paths) < MOST_NAMED:
            self.paths.append(f"{shown(path)}: {why}")


@dataclass(frozen=True)
class Archived:
    """A folder's copy: its tree's id, its own facts, regular files, sum of their sizes, what was added to the store."""

    tree: str
    top: FolderFacts
    files: int
    data_bytes: int
    added_bytes: int
    unreadable: tuple[str, ...]
    unreadable_count: int


def archive(vault: OpenVault, root: Path, tally: Tally, *, parent: str | None = None) -> Archived:
    """Store everything below a folder.

    ``parent`` is the tree of an earlier copy. A file is unchanged, and not read again, when size, modification time,
    change time and inode are those of the parent and the vault still holds its blobs: restic's rule. Clones of block
    volumes keep all four; snapshots that copy files do not, and their files are read again (and stored once). A parent
    that cannot be read costs time, not safety: it is passed over.

    Raises:
        ConfigError: There is no such folder.
        Interrupted: The tally was told to stop.
        RefloatError: The store refused, or the vault is damaged.
    """
    try:
        top = os.open(root, _FOLDER)
    except OSError as error:
        raise ConfigError(f"{root} is no folder that can be read: {error.strerror}") from error
    writer = BlobWriter(vault.files, vault.index())
    try:
        work = _Archive(vault, writer, tally, parent)
        with translated(f"{root} cannot be read"):
            facts, tree = facts_of(top), work.run(top)
        writer.finish()
    finally:
        writer.close()
        os.close(top)
    bad = work.unreadable
    return Archived(tree.hex(), facts, work.files, work.data_bytes, writer.added_bytes, tuple(bad.paths), bad.count)


class _Folder:
    """A folder on its way to becoming a tree: one slot per name, filled in any order by whoever finishes that entry."""

    def __init__(self, above: _Folder | None, slot: int, node: Node | None, path: bytes) -> None:
        self.above, self.slot, self.node, self.path = above, slot, node, path
        self.slots: list[bytes | None] = []
        self.pending = 1  # the walk itself


class _Frame:
    """A folder the walk is in."""

    def __init__(self, folder: _Folder, file: int, names: list[bytes], earlier: dict[bytes, Node]) -> None:
        self.folder, self.file, self.earlier = folder, file, earlier
        self.names: Iterator[tuple[int, bytes]] = enumerate(names)


class _Archive:
    """One run of ``archive``."""

    def __init__(self, vault: OpenVault, writer: BlobWriter, tally: Tally, parent: str | None) -> None:
        self._index, self._writer, self._tally = vault.index(), writer, tally
        self._reader = BlobReader(vault.files, self._index)
        self._parent = parent
        self._guard = threading.Lock()
        self._devices: dict[int, int] = {}
        self._root: bytes | None = None
        self.unreadable = Unreadable()
        self.files = self.data_bytes = 0

    def run(self, top: int) -> bytes:
        """The root's tree id."""
        with ChunkedFiles(self._writer, self._tally) as self._chunked:
            self._walk(top)
        if self._root is None:
            raise AssertionError("a walk that ended has stored its root")
        return self._root

    def _walk(self, top: int) -> None:
        root = _Folder(None, 0, None, b"")
        earlier = bytes.fromhex(self._parent) if self._parent else b""
        stack = [self._enter(root, os.dup(top), earlier)]
        try:
            while stack:
                frame = stack[-1]
                slot, name = next(frame.names, (-1, b""))
                if slot < 0:
                    stack.pop()
                    os.close(frame.file)
                    self._release(frame.folder)
                elif (below := self._entry(frame, slot, name)) is not None:
                    stack.append(below)
        finally:
            for frame in stack:
                os.close(frame.file)

    def _enter(self, folder: _Folder, file: int, earlier: bytes) -> _Frame:
        try:
            names = names_in(file)
        except BaseException:
            os.close(file)
            raise
        folder.slots = [None] * len(names)
        return _Frame(folder, file, names, self._earlier(earlier))

    def _earlier(self, tree: bytes) -> dict[bytes, Node]:
        """The parent's files and folders of the same place."""
        if not tree:
            return {}
        try:
            return {node.name: node for node in self._reader.tree(tree) if node.type in (FILE, DIR)}
        except IntegrityError as wrong:
            _log.warning("the earlier copy cannot be compared with, its files are read again: %s", wrong)
            return {}

    def _entry(self, frame: _Frame, slot: int, name: bytes) -> _Frame | None:
        """Deal with one name; a frame when it is a folder to walk into."""
        self._tally.add()
        self._chunked.raise_if_failed()
        path = os.path.join(frame.folder.path, name)  # noqa: PTH118 (bytes: names need not be UTF-8)
        try:
            found = os.stat(name, dir_fd=frame.file, follow_symlinks=False)
            node = node_of(name, found, self._device(found))
            if node is None or node.type == SOCKET:  # a socket is its server's, and means nothing without it
                return None
            if node.type == DIR:
                return self._folder(frame, slot, node, path)
            if node.type == SYMLINK:
                node.target = os.readlink(name, dir_fd=frame.file)
            node.xattrs = read_xattrs(path_below(frame.file, name))
            if node.type == FILE:
                self._file(frame, slot, node, found, path)
            else:
                frame.folder.slots[slot] = encode_node(node)
        except OSError as error:
            self._record(path, error.strerror or str(error))
        except UnicodeEncodeError:
            self._record(path, "an extended attribute's name is no UTF-8")
        return None

    def _folder(self, frame: _Frame, slot: int, node: Node, path: bytes) -> _Frame:
        file = os.open(node.name, _FOLDER, dir_fd=frame.file)
        earlier = frame.earlier.get(node.name)
        folder = _Folder(frame.folder, slot, node, path)
        try:
            node.xattrs = read_xattrs(file)
        except BaseException:
            os.close(file)
            raise
        below = self._enter(folder, file, earlier.subtree if earlier else b"")
        with self._guard:
            frame.folder.pending += 1
        return below

    def _file(self, frame: _Frame, slot: int, node: Node, found: os.stat_result, path: bytes) -> None:
        folder, earlier = frame.folder, frame.earlier.get(node.name)
        if earlier is not None and self._is_unchanged(node, earlier):
            node.content = earlier.content
            self._fill(folder, slot, node, path, Reading())
            self._tally.add(data_bytes=node.size, files=1)
            return
        file = os.open(node.name, _READ, dir_fd=frame.file)
        if node.size <= INLINE_BYTES:
            try:
                reading = read_small(file, node, found, self._writer)
            finally:
                os.close(file)
            self._fill(folder, slot, node, path, reading)
            self._tally.add(data_bytes=node.size, files=1)
            return

        def finish(reading: Reading) -> None:
            self._fill(folder, slot, node, path, reading)
            self._release(folder)

        with self._guard:
            folder.pending += 1
        self._chunked.read(file, node, found, finish)

    def _is_unchanged(self, node: Node, earlier: Node) -> bool:
        same = (node.size, node.mtime, node.ctime, node.inode) == (
            earlier.size, earlier.mtime, earlier.ctime, earlier.inode,
        )  # fmt: skip
        return same and earlier.type == FILE and all(self._index.has(BlobKind.DATA, each) for each in earlier.blobs)

    def _fill(self, folder: _Folder, slot: int, node: Node, path: bytes, reading: Reading) -> None:
        """A file was dealt with: its node takes its place, unless bytes of it are missing."""
        if reading.why is not None:
            self._record(path, reading.why)
        if reading.is_whole:
            folder.slots[slot] = encode_node(node)
            with self._guard:
                self.files += 1
                self.data_bytes += node.size

    def _release(self, folder: _Folder) -> None:
        """One entry of a folder is complete; the last one makes it a tree, and may make those above trees too."""
        while True:
            with self._guard:
                folder.pending -= 1
                if folder.pending:
                    return
            tree = self._writer.save(BlobKind.TREE, encode_tree(slot for slot in folder.slots if slot is not None))
            folder.slots = []
            if folder.above is None or folder.node is None:
                self._root = tree
                return
            folder.node.subtree = tree
            folder.above.slots[folder.slot] = encode_node(folder.node)
            folder = folder.above

    def _device(self, found: os.stat_result) -> int:
        """A number for the file system, by the order they are met: the system's own differs with every mount."""
        return self._devices.setdefault(found.st_dev, len(self._devices) + 1)

    def _record(self, path: bytes, why: str) -> None:
        with self._guard:
            self.unreadable.add(path, why)
