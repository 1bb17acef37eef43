"""Filling files of several blobs, or several names: each is made, and its pieces become jobs, in few requests."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from hashlib import sha256

from refloat.errors import IntegrityError
from vault import placing
from vault.blobs import ID_BYTES, BlobKind, PackedBlob
from vault.chunking import zero_id
from vault.disk import shown, translated
from vault.nodes import Node
from vault.pouring import Pour
from vault.reading import BlobReader, Place
from vault.tally import Tally

BATCH_BLOBS = 1024


class FileFill:
    """One file on its way. Not thread-safe."""

    def __init__(self, reader: BlobReader, tally: Tally, path: bytes, node: Node) -> None:
        self._reader, self._tally, self._path, self.node = reader, tally, path, node

    @property
    def _shown(self) -> str:
        return shown(b"%s/%s" % (self._path, self.node.name) if self._path else self.node.name)

    def jobs(self, folder: int) -> Generator[Pour, None, None]:
        """Make the file in its open folder, or keep what an earlier try left of it, and name what it lacks.

        Raises:
            IntegrityError: A blob of it is unknown, or its blobs do not add up to its size.
        """
        self._refuse_wrong_size()
        node = self.node
        with translated(f"{self._shown} cannot be made"):
            file, is_new = placing.open_file(folder, node.name, node.size)
        try:
            if is_new:
                os.ftruncate(file, node.size)
            offset = 0
            for places in self._batches():
                lacking: defaultdict[bytes, list[int]] = defaultdict(list)
                for _, blob in places:
                    if _is_there(file, offset, blob, is_new=is_new):
                        self._tally.add(data_bytes=blob.size_bytes)
                    else:
                        lacking[blob.id].append(offset)
                    offset += blob.size_bytes
                wanted = [place for place in places if place[1].id in lacking]
                for each in self._reader.ranges(wanted):
                    yield Pour(self._path, node.name, is_new, each, [lacking[blob.id] for blob in each.blobs])
        finally:
            os.close(file)

    def complete(self, folder: int) -> None:
        """All pieces are written: give the file its facts."""
        with translated(f"{self._shown} cannot be given its facts"):
            file = placing.open_to_finish(folder, self.node.name)
            try:
                placing.set_node_facts(file, self.node)
            finally:
                os.close(file)

    def _batches(self) -> Iterator[Sequence[Place]]:
        step = BATCH_BLOBS * ID_BYTES
        for start in range(0, len(self.node.content), step):
            some = bytes(self.node.content[start : start + step])
            yield [
                self._reader.place(BlobKind.DATA, some[place : place + ID_BYTES])
                for place in range(0, len(some), ID_BYTES)
            ]

    def _refuse_wrong_size(self) -> None:
        size = sum(blob.size_bytes for places in self._batches() for _, blob in places)
        if size != self.node.size:
            number = len(self.node.content) // ID_BYTES
            raise IntegrityError(f"{self._shown}: its {number} blobs have {size} bytes, the file has {self.node.size}")


def _is_there(file: int, offset: int, blob: PackedBlob, *, is_new: bool) -> bool:
    """Whether the file holds these bytes: an earlier try wrote them, or they are zeros and it is new."""
    if is_new:
        return blob.size_bytes % placing.HOLE_BYTES == 0 and blob.id == zero_id(blob.size_bytes)
    return sha256(os.pread(file, blob.size_bytes, offset)).digest() == blob.id
