"""Extract: a tree → a folder that equals it. The walk, and the pieces of work it gathers.

Safe to begin again: what is there already is compared by content and kept or replaced; what is not in the tree goes.
Every byte is verified against its id before it is written. Folders get their facts last, deepest first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from refloat.errors import ConfigError
from refloat.recovery_point import FolderFacts
from vault import placing
from vault.disk import apply_facts, names_in, shown, translated
from vault.filling import Filling
from vault.nodes import DIR, FILE, SOCKET, Node
from vault.reading import BlobReader
from vault.repository import OpenVault
from vault.tally import Tally

LOST_AND_FOUND = b"lost+found"
"""The file system's own, at the top of a volume; neither removed nor missed."""
MOST_FOLDERS = 256
"""Folders that wait, open, for the files in them."""


@dataclass(frozen=True)
class Extracted:
    """What was brought back: regular files, and the sum of their sizes."""

    files: int
    data_bytes: int


def extract(vault: OpenVault, tree: str, root: Path, tally: Tally, *, top: FolderFacts | None = None) -> Extracted:
    """Make a folder equal to a tree; ``top`` are the facts the folder itself gets.

    Raises:
        ConfigError: There is no such folder.
        IntegrityError: The vault does not hold the tree, or data of it is damaged.
        StoreFull: The volume is too small.
        AccessDenied: The mover may not make what the tree holds.
        Interrupted: The tally was told to stop.
    """
    try:
        folder = os.open(root, placing.OPEN_FOLDER)
    except OSError as error:
        raise ConfigError(f"{root} is no folder that can be filled: {error.strerror}") from error
    try:
        with translated(f"{root} cannot be filled"):
            work = _Extract(vault, folder, tally)
            work.run(bytes.fromhex(tree))
            if top is not None:
                node = Node(b"", DIR, 0, uid=0, gid=0, mtime=0, ctime=0)
                apply_facts(node, top)
                placing.set_facts(folder, node)
            placing.sync(folder)
    finally:
        os.close(folder)
    return Extracted(work.files, work.data_bytes)


@dataclass
class _Frame:
    """A folder the walk is in."""

    file: int
    node: Node | None
    path: tuple[bytes, ...]
    nodes: Iterator[Node]
    there: set[bytes]
    """Names that were there before."""


class _Extract:
    """One run of ``extract``."""

    def __init__(self, vault: OpenVault, root: int, tally: Tally) -> None:
        self._reader = BlobReader(vault.files, vault.index())
        self._root, self._tally = root, tally
        self._links: dict[tuple[int, int], tuple[bytes, tuple[bytes, ...]]] = {}
        self._left: list[_Frame] = []
        self.files = self.data_bytes = 0

    def run(self, tree: bytes) -> None:
        """Walk the tree; files are filled by threads, many at a time."""
        with Filling(self._reader, self._tally) as self._filling:
            stack = [self._enter(os.dup(self._root), None, (), tree)]
            try:
                while stack:
                    frame = stack[-1]
                    node = next(frame.nodes, None)
                    if node is None:
                        self._left.append(stack.pop())
                        if len(self._left) >= MOST_FOLDERS:
                            self._settle()
                    else:
                        self._tally.add()
                        with translated(f"{shown(b'/'.join((*frame.path, node.name)))} cannot be made"):
                            below = self._entry(frame, node)
                        if below is not None:
                            stack.append(below)
                self._settle()
            finally:
                for frame in (*stack, *self._left):
                    os.close(frame.file)

    def _enter(self, file: int, node: Node | None, path: tuple[bytes, ...], tree: bytes) -> _Frame:
        try:
            nodes = self._reader.tree(tree)
            there = set(names_in(file))
            for name in there - {each.name for each in nodes}:
                if path or name != LOST_AND_FOUND:
                    placing.remove(file, name)
        except BaseException:
            os.close(file)
            raise
        return _Frame(file, node, path, iter(nodes), there)

    def _entry(self, frame: _Frame, node: Node) -> _Frame | None:
        """Make one node; a frame when it is a folder to walk into."""
        if node.type == DIR:
            file = placing.open_folder(frame.file, node.name)
            return self._enter(file, node, (*frame.path, node.name), node.subtree)
        if node.type == FILE:
            self._file(frame, node)
        elif node.type != SOCKET:
            placing.make_special(frame.file, node)
        return None

    def _file(self, frame: _Frame, node: Node) -> None:
        path = (*frame.path, node.name)
        self.files += 1
        self.data_bytes += node.size
        if node.links > 1 and node.inode:
            content = sha256(node.content).digest()
            first = self._links.setdefault((node.device_id, node.inode), (content, path))
            if first[1] != path and first[0] == content:
                placing.link(self._root, first[1], frame.file, node.name)
                self._tally.add(data_bytes=node.size, files=1)
                return
        self._filling.add(frame.file, node, b"/".join(path), at_once=node.links > 1 or node.name in frame.there)

    def _settle(self) -> None:
        """Fill all files that wait; then the folders the walk has left can get their facts."""
        self._filling.drain()
        while self._left:
            frame = self._left.pop(0)
            try:
                if frame.node is not None:
                    with translated(f"{shown(b'/'.join(frame.path))} cannot be given its facts"):
                        placing.set_facts(frame.file, frame.node)
            finally:
                os.close(frame.file)
