"""Marking: every blob that any snapshot record leads to, refloat's or another program's, as bits over the index.

What cannot be read is not passed over: a record, a tree or an index entry that is missing stops the marking, because
whatever lies behind it would look unused.
"""

from __future__ import annotations

from array import array

import orjson

from refloat.errors import IntegrityError
from vault.bits import Bits
from vault.blobs import ID_BYTES, BlobKind
from vault.files import FileKind, stored
from vault.index import Index
from vault.nodes import DIR
from vault.reading import BlobReader
from vault.repository import OpenVault


class Marks:
    """What a vault's snapshot records lead to. Not thread-safe."""

    def __init__(self, vault: OpenVault, index: Index) -> None:
        self._index = index
        self._reader = BlobReader(vault.files, index)
        self.used = {kind: Bits(index.count(kind)) for kind in BlobKind}
        """Numbers of the index's blobs."""

    def __len__(self) -> int:
        """How many blobs are used."""
        return sum(map(len, self.used.values()))

    def add(self, root: bytes) -> None:
        """Walk a tree; what was walked before is not walked again, however often and wherever it stands.

        Raises:
            IntegrityError: A tree does not read, or a blob is in no index.
        """
        trees, waiting = self.used[BlobKind.TREE], array("I", [self._number(BlobKind.TREE, root)])
        while waiting:
            number = waiting.pop()
            if number in trees:
                continue
            trees.add(number)
            _, blob = self._index.at(BlobKind.TREE, number)
            for node in self._reader.tree(blob.id):
                for blob_id in node.blobs:
                    self.used[BlobKind.DATA].add(self._number(BlobKind.DATA, blob_id))
                if node.type == DIR:
                    waiting.append(self._number(BlobKind.TREE, node.subtree))

    def _number(self, kind: BlobKind, blob_id: bytes) -> int:
        number = self._index.number(kind, blob_id)
        if number is None:
            raise IntegrityError(f"{kind.value} blob {blob_id.hex()} is in no index", blob=blob_id.hex())
        return number


def mark(vault: OpenVault) -> tuple[Marks, frozenset[str]]:
    """Walk everything from every snapshot record; the marks, and the records' names.

    Raises:
        IntegrityError: A snapshot record, an index file or a tree does not read, or a blob is missing.
    """
    names = [name for name, _ in stored(vault.store, FileKind.SNAPSHOT)]
    marks = Marks(vault, vault.index(is_fresh=True))
    for name, text in vault.read_many(FileKind.SNAPSHOT, names):
        if text is None:
            raise IntegrityError(f"snapshots/{name} of {vault.url} vanished while it was to be read")
        try:
            marks.add(_tree_of(text))
        except IntegrityError as wrong:
            message = f"snapshots/{name} of {vault.url} does not lead to whole data: {wrong}"
            raise IntegrityError(message, **wrong.context) from wrong
    return marks, frozenset(names)


def _tree_of(text: bytes) -> bytes:
    """The tree that a snapshot record of any program names."""
    try:
        tree = bytes.fromhex(orjson.loads(text)["tree"])
    except (ValueError, KeyError, TypeError) as wrong:
        raise IntegrityError("it names no tree") from wrong
    if len(tree) != ID_BYTES:
        raise IntegrityError("it names no tree")
    return tree
