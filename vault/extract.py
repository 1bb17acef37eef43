"""Extract: a tree → a folder that equals it. The walk makes folders, links and what is no file; the crew fills files.

Safe to begin again: what is there already is compared by content and kept or replaced; what is not in the tree goes.
Every byte is verified against its id before it is written. Folders get their facts last, deepest first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

from refloat.errors import ConfigError
from refloat.recovery_point import FolderFacts
from vault import placing
from vault.crew import Crew, crew_of
from vault.disk import apply_facts, names_in, shown, translated
from vault.files import Reopen, SealedFiles
from vault.filling import Filling
from vault.folders import OPEN_FOLDER, Folders
from vault.nodes import DIR, FILE, SOCKET, Node
from vault.pouring import Pour, Poured, Pourer
from vault.reading import BlobReader
from vault.repository import OpenVault
from vault.tally import Tally

LOST_AND_FOUND = b"lost+found"
"""The file system's own, at the top of a volume; neither removed nor missed."""


@dataclass(frozen=True)
class Extracted:
    """What was brought back: regular files, and the sum of their sizes."""

    files: int
    data_bytes: int


def extract(
    vault: OpenVault,
    tree: str,
    root: Path,
    tally: Tally,
    *,
    top: FolderFacts | None = None,
    reopen: Reopen | None = None,
) -> Extracted:
    """Make a folder equal to a tree, on all cores when the store can be opened again; ``top`` are the facts the folder
    itself gets.

    Raises:
        ConfigError: There is no such folder.
        IntegrityError: The vault does not hold the tree, or data of it is damaged.
        StoreFull: The volume is too small.
        AccessDenied: The mover may not make what the tree holds.
        Interrupted: The tally was told to stop.
    """
    try:
        folder = os.open(root, OPEN_FOLDER)
    except OSError as error:
        raise ConfigError(f"{root} is no folder that can be filled: {error.strerror}") from error
    index = vault.index()

    def worker() -> Pourer:
        files = SealedFiles(reopen(), vault.files.key) if reopen else vault.files
        return Pourer(files, index, folder, owns_store=reopen is not None)

    try:
        with translated(f"{root} cannot be filled"):
            with crew_of(worker, is_forkable=reopen is not None, still=tally.add) as crew:
                work = _Extract(vault, folder, crew, tally)
                work.run(bytes.fromhex(tree))
            if top is not None:
                node = Node(b"", DIR, 0, uid=0, gid=0, mtime=0, ctime=0)
                apply_facts(node, top)
                placing.set_node_facts(folder, node)
            placing.sync(folder)
    finally:
        os.close(folder)
    return Extracted(work.files, work.data_bytes)


class _Folder:
    """A folder that is being filled; once everything in it is complete it gets its facts."""

    def __init__(self, above: _Folder | None, node: Node | None, path: bytes) -> None:
        self.above, self.node, self.path = above, node, path
        self.pending = 1  # the walk itself


@dataclass
class _Frame:
    """A folder the walk is in."""

    folder: _Folder
    nodes: Iterator[Node]
    there: set[bytes]
    """Names that were there before."""


class _Extract:
    """One run of ``extract``."""

    def __init__(self, vault: OpenVault, root: int, crew: Crew[Pour, Poured], tally: Tally) -> None:
        self._reader = BlobReader(vault.files, vault.index())
        self._folders, self._crew, self._tally = Folders(root), crew, tally
        self._filling = Filling(self._reader, crew, self._folders, tally)
        self._links: dict[tuple[int, int], tuple[bytes, bytes, bytes]] = {}
        self.files = self.data_bytes = 0

    def run(self, tree: bytes) -> None:
        """Walk the tree."""
        try:
            stack = [self._enter(_Folder(None, None, b""), tree)]
            while stack:
                frame = stack[-1]
                node = next(frame.nodes, None)
                if node is None:
                    stack.pop()
                    self._release(frame.folder)
                    continue
                self._tally.add()
                path = _joined(frame.folder.path, node.name)
                with translated(f"{shown(path)} cannot be made"):
                    below = self._entry(frame, node, path)
                if below is not None:
                    stack.append(below)
            self._filling.flush()
            self._crew.finish(self._last)
        finally:
            self._folders.close()

    def _enter(self, folder: _Folder, tree: bytes) -> _Frame:
        file = self._folders.file(folder.path)
        nodes = self._reader.tree(tree)
        there = set(names_in(file))
        for name in there - {each.name for each in nodes}:
            if folder.path or name != LOST_AND_FOUND:
                placing.remove(file, name)
        return _Frame(folder, iter(nodes), there)

    def _entry(self, frame: _Frame, node: Node, path: bytes) -> _Frame | None:
        """Make one node; a frame when it is a folder to walk into."""
        folder = frame.folder
        here = self._folders.file(folder.path)
        if node.type == DIR:
            self._folders.keep(path, placing.open_folder(here, node.name))
            folder.pending += 1
            return self._enter(_Folder(folder, node, path), node.subtree)
        if node.type == FILE:
            self._file(frame, node)
        elif node.type != SOCKET:
            placing.make_special(here, node)
        return None

    def _file(self, frame: _Frame, node: Node) -> None:
        self.files += 1
        self.data_bytes += node.size
        folder = frame.folder
        if node.links > 1 and node.inode:
            content = sha256(node.content).digest()
            first = self._links.setdefault((node.device_id, node.inode), (content, folder.path, node.name))
            if first != (content, folder.path, node.name) and first[0] == content:
                above, here = self._folders.file(first[1]), self._folders.file(folder.path)
                placing.link(above, first[2], here, node.name)
                self._tally.add(data_bytes=node.size, files=1)
                return
        folder.pending += 1
        at_once = node.links > 1 or node.name in frame.there
        self._filling.add(folder.path, node, partial(self._release, folder), at_once=at_once)

    def _last(self, answer: Poured) -> None:
        self._tally.add(data_bytes=answer.data_bytes)

    def _release(self, folder: _Folder) -> None:
        """One entry of a folder is complete; the last one gives it its facts, and may complete those above too."""
        here: _Folder | None = folder
        while here is not None:
            here.pending -= 1
            if here.pending:
                return
            if here.node is not None:
                with translated(f"{shown(here.path)} cannot be given its facts"):
                    placing.set_node_facts(self._folders.file(here.path), here.node)
            here = here.above


def _joined(folder: bytes, name: bytes) -> bytes:
    return b"%s/%s" % (folder, name) if folder else name
