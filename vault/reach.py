"""Reach: what a recovery point's tree leads to, and which damaged objects are on the way.

A tree that many points share is walked once: when nothing below it is damaged, one bit says so. Trees are input:
neither their depth nor how often one stands in others (a few can describe 2**64 folders) costs more than their number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from refloat.errors import IntegrityError
from vault.bits import Bits
from vault.blobs import BlobKind
from vault.disk import shown
from vault.files import FileKind, key_of
from vault.findings import Findings
from vault.index import Index
from vault.nodes import DIR, FILE, Node
from vault.reading import BlobReader

MOST_LOST = 100_000
"""Ids kept of blobs that are in no index."""


class Reach:
    """Walks points of one vault. Not thread-safe."""

    def __init__(self, reader: BlobReader, index: Index, findings: Findings) -> None:
        self.reader, self.index, self.findings = reader, index, findings
        self.used = {kind: Bits(index.count(kind)) for kind in BlobKind}
        """Numbers of all blobs that were reached."""
        self.lost: set[tuple[BlobKind, bytes]] = set()
        """Blobs that were reached and are in no index, the first of them."""
        self.clean = Bits(index.count(BlobKind.TREE))
        """Numbers of trees that were walked, with nothing damaged below them."""
        self.files = self.file_bytes = 0
        """Files and their bytes in all distinct trees that were reached."""

    def walk(self, root: bytes) -> dict[str, str]:
        """The damaged objects that a tree needs, by store key, each with the first path that needs it.

        What only a walk can see (a tree that does not read, a file of another size than its blobs) is added to the
        findings.

        Raises:
            ProviderError: The store does not answer.
        """
        return _Walk(self, root).run()


@dataclass
class _Frame:
    """A folder the walk is in."""

    name: bytes
    number: int
    nodes: Iterator[Node]
    is_new: bool
    is_clean: bool = True


class _Walk:
    """The walk of one tree, depth first."""

    def __init__(self, reach: Reach, root: bytes) -> None:
        self._reach, self._root = reach, root
        self._index, self._findings = reach.index, reach.findings
        self._stack: list[_Frame] = []
        self._soiled = set[int]()
        """Trees of this walk with damage below them: not walked again where they stand a second time."""
        self._met: dict[str, str] = {}

    def run(self) -> dict[str, str]:
        self._enter(b"", self._root)
        while self._stack:
            frame = self._stack[-1]
            node = next(frame.nodes, None)
            if node is None:
                self._leave()
            elif node.type == DIR:
                self._enter(node.name, node.subtree)
            elif node.type == FILE:
                self._file(frame, node)
        return self._met

    def _enter(self, name: bytes, tree: bytes) -> None:
        number = self._index.number(BlobKind.TREE, tree)
        if number is None:
            self._lose(name, BlobKind.TREE, tree)
        elif number in self._soiled:
            self._soil()
        elif number not in self._reach.clean:
            is_new = number not in self._reach.used[BlobKind.TREE]
            self._reach.used[BlobKind.TREE].add(number)
            pack, _ = self._index.at(BlobKind.TREE, number)
            nodes = None if self._findings.concerns(BlobKind.TREE, number, pack) else self._nodes(number, tree)
            if nodes is None:
                self._soiled.add(number)
                self._meet(name, key_of(FileKind.PACK, pack.hex()))
            else:
                self._stack.append(_Frame(name, number, iter(nodes), is_new))

    def _nodes(self, number: int, tree: bytes) -> list[Node] | None:
        try:
            return self._reach.reader.tree(tree)
        except IntegrityError as wrong:
            self._findings.add_blob(BlobKind.TREE, number, wrong.message)
            return None

    def _leave(self) -> None:
        frame = self._stack.pop()
        if frame.is_clean:
            self._reach.clean.add(frame.number)
        else:
            self._soiled.add(frame.number)
            self._soil()

    def _file(self, frame: _Frame, node: Node) -> None:
        size, is_whole, used = 0, True, self._reach.used[BlobKind.DATA]
        for blob_id in node.blobs:
            number = self._index.number(BlobKind.DATA, blob_id)
            if number is None:
                self._lose(node.name, BlobKind.DATA, blob_id)
                is_whole = False
                continue
            used.add(number)
            pack, blob = self._index.at(BlobKind.DATA, number)
            size += blob.size_bytes
            if self._findings.concerns(BlobKind.DATA, number, pack):
                self._meet(node.name, key_of(FileKind.PACK, pack.hex()))
        if is_whole and size != node.size:
            pack, _ = self._index.at(BlobKind.TREE, frame.number)
            key, path = key_of(FileKind.PACK, pack.hex()), shown(self._path(node.name))
            self._findings.add(key, f"{path} has {node.size} bytes, its blobs together {size}")
            self._meet(node.name, key)
        if frame.is_new:
            self._reach.files += 1
            self._reach.file_bytes += node.size

    def _lose(self, name: bytes, kind: BlobKind, blob_id: bytes) -> None:
        """A blob is in no index."""
        if len(self._reach.lost) < MOST_LOST:
            self._reach.lost.add((kind, blob_id))
        self._findings.add(self._findings.lost_index, f"{kind.value} blob {blob_id.hex()} is in no index")
        self._meet(name, self._findings.lost_index)

    def _meet(self, name: bytes, key: str) -> None:
        """The entry of this name in the folder the walk is in needs a damaged object."""
        if key not in self._met:
            self._met[key] = shown(self._path(name))
        self._soil()

    def _soil(self) -> None:
        if self._stack:
            self._stack[-1].is_clean = False

    def _path(self, name: bytes) -> bytes:
        return b"/".join([*(frame.name for frame in self._stack[1:]), name])
