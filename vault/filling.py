"""Filling files: the pieces of many files are gathered until they can be read by pack in few requests, for the crew."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256

from refloat.errors import IntegrityError
from vault import placing
from vault.blobs import BlobKind, PackedBlob
from vault.chunking import zero_id
from vault.crew import Crew
from vault.disk import shown, translated
from vault.folders import Folders
from vault.nodes import Node
from vault.pouring import Part, Pour, Poured, Whole, whole
from vault.reading import BlobReader, Place
from vault.tally import Tally

BATCH_BYTES = 64 << 20
BATCH_PIECES = 4096
Done = Callable[[], None]


class _Wanted:
    """Who wants a blob, and what to call for each once it has it."""

    def __init__(self) -> None:
        self.wholes: list[Whole] = []
        self.parts: list[Part] = []
        self.dones: list[Done] = []


class Filling:
    """Gathers pieces of files until a batch is worth reading. ``flush`` hands out the rest."""

    def __init__(self, reader: BlobReader, crew: Crew[Pour, Poured], folders: Folders, tally: Tally) -> None:
        self._reader, self._crew, self._folders, self._tally = reader, crew, folders, tally
        self._forget()

    def add(self, folder: bytes, node: Node, done: Done, *, at_once: bool) -> None:
        """See to a file; ``done`` is called once it is complete, here or while a later piece is handed out.

        ``at_once``: the file is made before ``add`` returns, since something bears its name or others link to it.

        Raises:
            IntegrityError: A blob of it is unknown, or its blobs do not add up to its size.
        """
        places = [self._reader.place(BlobKind.DATA, blob_id) for blob_id in node.blobs]
        size = sum(blob.size_bytes for _, blob in places)
        if size != node.size:
            path = shown(b"%s/%s" % (folder, node.name))
            raise IntegrityError(f"{path}: its {len(places)} blobs have {size} bytes, the file has {node.size}")
        if len(places) == 1 and not at_once:
            wanted = self._want(places[0])
            wanted.wholes.append(whole(folder, node))
            wanted.dones.append(partial(self._end, done))
            self._flush_when_full()
            return
        self._add_parts(folder, node, places, done)

    def flush(self) -> None:
        """Hand out everything gathered so far.

        Raises:
            RefloatError: What an earlier piece failed with.
        """
        wanted = self._wanted
        ranges = self._reader.ranges(self._places)
        self._forget()
        for each in ranges:
            found = [wanted[blob.id] for blob in each.blobs]
            job = Pour(each, [some.wholes for some in found], [some.parts for some in found])
            self._crew.do(job, partial(self._poured, [done for some in found for done in some.dones]))

    def _poured(self, dones: Sequence[Done], answer: Poured) -> None:
        self._tally.add(data_bytes=answer.data_bytes)
        for done in dones:
            done()

    def _end(self, done: Done) -> None:
        self._tally.add(files=1)
        done()

    def _forget(self) -> None:
        self._wanted: defaultdict[bytes, _Wanted] = defaultdict(_Wanted)
        self._places: list[Place] = []
        self._bytes = 0

    def _want(self, place: Place) -> _Wanted:
        """Where to note who wants a blob."""
        self._places.append(place)
        self._bytes += place[1].sealed_bytes
        return self._wanted[place[1].id]

    def _flush_when_full(self) -> None:
        if self._bytes >= BATCH_BYTES or len(self._places) >= BATCH_PIECES:
            self.flush()

    def _add_parts(self, folder: bytes, node: Node, places: Sequence[Place], done: Done) -> None:
        """Make the file, and want what it does not hold yet."""
        file, is_new = placing.open_file(self._folders.file(folder), node.name, node.size)
        try:
            if is_new:
                os.ftruncate(file, node.size)
            pieces = _Pieces(partial(self._complete, folder, node, done))
            offset = 0
            for place in places:
                blob = place[1]
                if _is_there(file, offset, blob, is_new=is_new):
                    self._tally.add(data_bytes=blob.size_bytes)
                else:
                    pieces.pending += 1
                    wanted = self._want(place)
                    wanted.parts.append((folder, node.name, offset, is_new))
                    wanted.dones.append(pieces.end)
                    self._flush_when_full()
                offset += blob.size_bytes
        finally:
            os.close(file)
        pieces.end()

    def _complete(self, folder: bytes, node: Node, done: Done) -> None:
        with translated(f"{shown(node.name)} cannot be given its facts"):
            file = placing.open_to_finish(self._folders.file(folder), node.name)
            try:
                placing.set_node_facts(file, node)
            finally:
                os.close(file)
        self._end(done)


class _Pieces:
    """A file whose pieces are on their way; the last one completes it."""

    def __init__(self, complete: Done) -> None:
        self._complete = complete
        self.pending = 1
        """Pieces not yet written, and one for whoever adds them."""

    def end(self) -> None:
        """One piece is written."""
        self.pending -= 1
        if not self.pending:
            self._complete()


def _is_there(file: int, offset: int, blob: PackedBlob, *, is_new: bool) -> bool:
    """Whether the file holds these bytes: an earlier try wrote them, or they are zeros and it is new."""
    if is_new:
        return blob.size_bytes % placing.HOLE_BYTES == 0 and blob.id == zero_id(blob.size_bytes)
    return sha256(os.pread(file, blob.size_bytes, offset)).digest() == blob.id
