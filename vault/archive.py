"""Archive: a folder → packs, indexes and a tree. The walk, the folders on their way to becoming trees, the result.

Depth first; each folder's tree is stored as soon as everything in it is. The mover walks and puts trees together; the
crew's workers look at names and read files.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from refloat.errors import ConfigError
from refloat.folder_facts import FolderFacts
from vault import content_defined, disk
from vault.blobs import BlobKind
from vault.chunking import checked_chunk_bytes, chunk_bytes, volume_chunk_bytes
from vault.claims import Claims
from vault.crew import Crew, crew_of
from vault.disk import names_in, shown, translated
from vault.files import Reopen, SealedFiles
from vault.filing import Chunked, Chunks, Facts, Filed, Filer, Names
from vault.folders import OPEN_FOLDER, Folders
from vault.nodes import DIR, Node, encode_node, encode_tree
from vault.repository import OpenVault
from vault.tally import Tally
from vault.writing import BlobWriter

BATCH_NAMES = 256
PIECE_BYTES = 16 << 20
"""What one job reads of a large file, at least a chunk."""
MOST_NAMED = 100
"""Unreadable paths that are named; all are counted."""


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
    """A folder's copy: its tree's id, its own facts, regular files, sum of their sizes, what was added to the store.

    ``chunk_bytes`` must be given to the next archive of the folder.
    """

    tree: str
    top: FolderFacts
    files: int
    data_bytes: int
    added_bytes: int
    chunk_bytes: int
    unreadable: tuple[str, ...]
    unreadable_count: int


def archive(
    vault: OpenVault,
    root: Path,
    tally: Tally,
    *,
    parent: str | None = None,
    reopen: Reopen | None = None,
    chunk_size: int | None = None,
    by_content: bool = False,
) -> Archived:
    """Store everything below a folder, on all cores when the store can be opened again.

    ``parent`` is the tree of an earlier copy. A file is unchanged, and not read again, when size, modification time,
    change time and inode are those of the parent and the vault still holds its blobs: restic's rule. Clones of block
    volumes keep all four; snapshots that copy files do not, and their files are read again (and stored once). A parent
    that cannot be read costs time, not safety: it is passed over.

    ``chunk_size`` is what was recorded with the parent: least bytes per chunk of files larger than 1 MiB; without one
    it follows from what the volume holds. ``by_content``: such files are cut where their content says, and not at
    fixed places.

    Raises:
        ConfigError: There is no such folder.
        InvalidDocument: No chunk has that size.
        Interrupted: The tally was told to stop.
        RefloatError: The store refused, or the vault is damaged.
    """
    try:
        top = os.open(root, OPEN_FOLDER)
    except OSError as error:
        raise ConfigError(f"{root} is no folder that can be read: {error.strerror}") from error
    step = checked_chunk_bytes(chunk_size) if chunk_size else _chunk_bytes_of(top)
    index = vault.index()
    claims = Claims() if reopen else None

    def worker() -> Filer:
        files = SealedFiles(reopen(), vault.files.key) if reopen else vault.files
        return Filer(files, index, top, claims, owns_store=reopen is not None)

    writer = BlobWriter(vault.files, index)
    try:
        with (
            translated(f"{root} cannot be read"),
            crew_of(worker, is_forkable=reopen is not None, still=tally.add) as crew,
        ):
            work = _Archive(writer, crew, tally, top, 0 if by_content else step)
            facts, tree = disk.facts_of(top), work.run(bytes.fromhex(parent or ""))
        writer.finish()
    finally:
        writer.close()
        os.close(top)
    bad = work.unreadable
    return Archived(
        tree.hex(), facts, work.files, work.data_bytes, writer.added_bytes, step, tuple(bad.paths), bad.count
    )


def _chunk_bytes_of(folder: int) -> int:
    facts = os.fstatvfs(folder)
    return volume_chunk_bytes((facts.f_blocks - facts.f_bfree) * facts.f_frsize)


class _Folder:
    """A folder on its way to becoming a tree: one slot per name, filled in any order as answers come; or its tree."""

    def __init__(self, above: _Folder | None, slot: int, node: Node | None, path: bytes) -> None:
        self.above, self.slot, self.node, self.path = above, slot, node, path
        self.slots: list[bytes | None] = []
        self.tree: bytes | None = None
        self.pending = 1  # the walk itself
        self.is_lost = False


@dataclass
class _Frame:
    """A folder the walk is in, or comes to: names that no worker has yet."""

    folder: _Folder
    earlier: bytes
    names: list[bytes] | None = None
    next: int = 0


class _Large:
    """A file that is read by pieces."""

    def __init__(self, folder: _Folder, slot: int, node: Node, step: int) -> None:
        self.folder, self.slot, self.node = folder, slot, node
        self.facts: Facts = (node.inode, node.size, node.mtime, node.ctime)
        self.step = chunk_bytes(node.size, step) if step else 0
        self.piece_bytes = max(1, PIECE_BYTES // self.step) * self.step if step else content_defined.PIECE_BYTES
        self.ids: dict[int, bytes] = {}
        self.next = 0
        self.pending = 0
        self.why: str | None = None
        self.is_whole = True


class _Archive:
    """One run of ``archive``. ``step``: least bytes per chunk, 0 for cuts where the content says."""

    def __init__(
        self,
        writer: BlobWriter,
        crew: Crew[Names | Chunks, Filed | Chunked],
        tally: Tally,
        top: int,
        step: int,
    ) -> None:
        self._writer, self._crew, self._tally = writer, crew, tally
        self._folders, self._step = Folders(top), step
        self._frames: list[_Frame] = []
        self._larges: deque[_Large] = deque()
        self._root: bytes | None = None
        self.unreadable = Unreadable()
        self.files = self.data_bytes = 0

    def run(self, parent: bytes) -> bytes:
        """The root's tree id."""
        try:
            self._frames.append(_Frame(_Folder(None, 0, None, b""), parent))
            while self._next() or self._crew.wait():
                self._tally.add()
            self._crew.finish(self._last)
        finally:
            self._folders.close()
        if self._root is None:
            raise AssertionError("a walk that ended has stored its root")
        return self._root

    def _next(self) -> bool:
        """Hand out one more job; False when there is none until an answer comes."""
        if self._larges:
            self._hand_out_piece(self._larges[0])
            return True
        while self._frames:
            frame = self._frames[-1]
            names = self._look(frame) if frame.names is None else frame.names
            if frame.next < len(names):
                self._hand_out_names(frame, names)
                return True
            self._frames.pop()
            self._release(frame.folder)
        return False

    def _look(self, frame: _Frame) -> list[bytes]:
        """List a folder. One that cannot be listed is left out of the copy, and named."""
        folder = frame.folder
        try:
            frame.names = names_in(self._folders.file(folder.path))
        except OSError as error:
            if folder.above is None:
                raise
            self.unreadable.add(folder.path, error.strerror or str(error))
            frame.names, folder.is_lost = [], True
        folder.slots = [None] * len(frame.names)
        return frame.names

    def _hand_out_names(self, frame: _Frame, listed: list[bytes]) -> None:
        first = frame.next
        names = listed[first : first + BATCH_NAMES]
        frame.next += len(names)
        frame.folder.pending += 1
        job = Names(frame.folder.path, names, frame.earlier, len(names) == len(listed))
        self._crew.do(job, partial(self._filed, frame.folder, first))

    def _filed(self, folder: _Folder, first: int, answer: Filed | Chunked) -> None:
        self._take(answer)
        if not isinstance(answer, Filed):
            raise AssertionError("names are answered by nodes")
        for path, why in answer.wrong:
            self.unreadable.add(path, why)
        self.files += answer.files
        self.data_bytes += answer.data_bytes
        self._tally.add(files=answer.files, data_bytes=answer.data_bytes)
        folder.tree = answer.tree
        below: list[_Frame] = []
        for slot, entry in enumerate(answer.entries, first):
            if not isinstance(entry, Node):
                folder.slots[slot] = entry
            elif entry.type == DIR:
                below.append(self._below(folder, slot, entry))
            else:
                folder.pending += 1
                self._larges.append(_Large(folder, slot, entry, self._step))
        self._frames += reversed(below)
        self._release(folder)

    def _below(self, above: _Folder, slot: int, node: Node) -> _Frame:
        earlier, node.subtree = node.subtree, b""
        above.pending += 1
        return _Frame(_Folder(above, slot, node, _joined(above.path, node.name)), earlier)

    def _hand_out_piece(self, large: _Large) -> None:
        start = large.next
        end = min(large.node.size, start + large.piece_bytes)
        large.next = end
        large.pending += 1
        if end == large.node.size:
            self._larges.popleft()
        job = Chunks(large.folder.path, large.node.name, large.facts, large.step, start, end)
        self._crew.do(job, partial(self._chunked, large, start, end))

    def _chunked(self, large: _Large, start: int, end: int, answer: Filed | Chunked) -> None:
        self._take(answer)
        if not isinstance(answer, Chunked):
            raise AssertionError("chunks are answered by their ids")
        large.pending -= 1
        large.why = large.why or answer.why
        if answer.is_whole:
            large.ids[start] = answer.ids
            self._tally.add(data_bytes=end - start)
        else:
            large.is_whole = False
            if large in self._larges:  # the rest of it need not be read
                self._larges.remove(large)
                large.next = large.node.size
        if not large.pending and large.next == large.node.size:
            self._end_large(large)

    def _end_large(self, large: _Large) -> None:
        folder, node = large.folder, large.node
        if large.why is not None:
            self.unreadable.add(_joined(folder.path, node.name), large.why)
        if large.is_whole:
            node.content = b"".join(large.ids[start] for start in sorted(large.ids))
            folder.slots[large.slot] = encode_node(node)
            self.files += 1
            self.data_bytes += node.size
            self._tally.add(files=1)
        self._release(folder)

    def _take(self, answer: Filed | Chunked) -> None:
        """What a worker stored is named in this mover's index files."""
        self._writer.adopt(answer.packs)

    def _last(self, answer: Filed | Chunked) -> None:
        self._take(answer)
        if isinstance(answer, Filed):
            self._writer.adopt_trees(answer.trees)

    def _release(self, folder: _Folder) -> None:
        """One entry of a folder is complete; the last one makes it a tree, and may make those above trees too."""
        while True:
            folder.pending -= 1
            if folder.pending:
                return
            if folder.is_lost and folder.above is not None:
                folder = folder.above
                continue
            tree = folder.tree or self._save(folder)
            folder.slots = []
            if folder.above is None or folder.node is None:
                self._root = tree
                return
            folder.node.subtree = tree
            folder.above.slots[folder.slot] = encode_node(folder.node)
            folder = folder.above

    def _save(self, folder: _Folder) -> bytes:
        return self._writer.save(BlobKind.TREE, encode_tree(slot for slot in folder.slots if slot is not None))


def _joined(folder: bytes, name: bytes) -> bytes:
    return b"%s/%s" % (folder, name) if folder else name
