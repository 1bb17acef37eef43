"""Reading blobs: one, a tree, or many in few requests; every byte that leaves here was verified against its id."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

from refloat.errors import IntegrityError
from vault.blobs import BlobKind, PackedBlob
from vault.files import SealedFiles
from vault.index import Index
from vault.nodes import Node, decode_tree

GAP_BYTES = 1 << 20
"""Unwanted bytes worth reading rather than asking twice (restic's restorer uses the same)."""
REQUEST_BYTES = 4 << 20
REQUEST_BLOBS = 512
"""So that work on small blobs is spread, too."""
WINDOW_BYTES = 1 << 20
"""Trees lie close together in packs: they are read by windows, a few of which are kept."""
WINDOWS = 16
LARGE_BYTES = 4 << 20

Place = tuple[bytes, PackedBlob]
"""Pack id and blob."""


@dataclass(frozen=True)
class Range:
    """Neighbouring blobs of one pack that are read by one request."""

    pack: bytes
    start: int
    length: int
    blobs: tuple[PackedBlob, ...]


class BlobReader:
    """Reads blobs of one vault by one index. Callable from several threads."""

    def __init__(self, files: SealedFiles, index: Index) -> None:
        self._files, self._index = files, index
        self._windows: OrderedDict[tuple[bytes, int], bytes] = OrderedDict()
        self._guard = threading.Lock()

    def place(self, kind: BlobKind, blob_id: bytes) -> Place:
        """Where a blob lies.

        Raises:
            IntegrityError: No index file names it.
        """
        found = self._index.find(kind, blob_id)
        if found is None:
            raise IntegrityError(
                f"{kind.value} blob {blob_id.hex()} is in no index of {self._files.store.url}", blob=blob_id.hex()
            )
        return found

    def read(self, kind: BlobKind, blob_id: bytes) -> bytes:
        """One blob's plaintext.

        Raises:
            IntegrityError: It is unknown, gone or damaged.
        """
        pack, blob = self.place(kind, blob_id)
        return self.open(pack, blob, self._files.read_part(pack, blob.offset, blob.sealed_bytes))

    def tree(self, blob_id: bytes) -> list[Node]:
        """The nodes of a tree.

        Raises:
            IntegrityError: It is unknown, gone, damaged, or holds what no folder can hold.
        """
        plain = self.tree_text(blob_id)
        try:
            return decode_tree(plain)
        except IntegrityError as wrong:
            raise IntegrityError(f"tree {blob_id.hex()}: {wrong}", blob=blob_id.hex()) from wrong

    def tree_text(self, blob_id: bytes) -> bytes:
        """The text of a tree, whatever it says.

        Raises:
            IntegrityError: It is unknown, gone or damaged.
        """
        pack, blob = self.place(BlobKind.TREE, blob_id)
        return self.open(pack, blob, self._through_windows(pack, blob))

    def open(self, pack: bytes, blob: PackedBlob, sealed: bytes | memoryview) -> bytes:
        """The plaintext of sealed bytes that were read from a pack.

        Raises:
            IntegrityError: They are not what was sealed; the message names blob and pack.
        """
        try:
            return self._files.codec.open(sealed, blob)
        except IntegrityError as wrong:
            where = f"pack {pack.hex()} of {self._files.store.url}"
            raise IntegrityError(f"{wrong} ({where})", blob=blob.id.hex(), pack=pack.hex()) from wrong

    def ranges(self, places: Iterable[Place], limit_bytes: int = REQUEST_BYTES) -> list[Range]:
        """Requests that read these blobs, each once: by pack and offset, neighbours together up to a limit."""
        found: list[Range] = []
        pack, run, end = b"", list[PackedBlob](), 0
        for here, blob in sorted(set(places), key=lambda place: (place[0], place[1].offset)):
            ends = blob.offset + blob.sealed_bytes
            is_far = here != pack or blob.offset - end > GAP_BYTES
            if run and (is_far or ends - run[0].offset > limit_bytes or len(run) >= REQUEST_BLOBS):
                found.append(Range(pack, run[0].offset, end - run[0].offset, tuple(run)))
                run = []
            pack, end = here, ends
            run.append(blob)
        if run:
            found.append(Range(pack, run[0].offset, end - run[0].offset, tuple(run)))
        return found

    def fetch(self, wanted: Range) -> bytes:
        """The sealed bytes of one request.

        Raises:
            IntegrityError: The pack is gone or cut off.
        """
        return self._files.read_part(wanted.pack, wanted.start, wanted.length)

    def open_range(self, wanted: Range, fetched: bytes) -> Iterator[tuple[PackedBlob, bytes]]:
        """The blobs of one request with their plaintexts.

        Raises:
            IntegrityError: One is damaged.
        """
        sealed = memoryview(fetched)
        for blob in wanted.blobs:
            start = blob.offset - wanted.start
            yield blob, self.open(wanted.pack, blob, sealed[start : start + blob.sealed_bytes])

    def read_range(self, wanted: Range) -> Iterator[tuple[PackedBlob, bytes]]:
        """Fetch and open.

        Raises:
            IntegrityError: A blob is gone or damaged.
        """
        return self.open_range(wanted, self.fetch(wanted))

    def _through_windows(self, pack: bytes, blob: PackedBlob) -> bytes:
        """A small blob's sealed bytes, out of windows that hold its neighbours too."""
        if blob.sealed_bytes > LARGE_BYTES:
            return self._files.read_part(pack, blob.offset, blob.sealed_bytes)
        first, last = blob.offset // WINDOW_BYTES, (blob.offset + blob.sealed_bytes - 1) // WINDOW_BYTES
        joined = b"".join(self._window(pack, number) for number in range(first, last + 1))
        start = blob.offset - first * WINDOW_BYTES
        return joined[start : start + blob.sealed_bytes]

    def _window(self, pack: bytes, number: int) -> bytes:
        key = (pack, number)
        with self._guard:
            if key in self._windows:
                self._windows.move_to_end(key)
                return self._windows[key]
        start = number * WINDOW_BYTES
        read = self._files.read_part(pack, start, min(WINDOW_BYTES, self._index.blobs_end(pack) - start))
        with self._guard:
            self._windows[key] = read
            while len(self._windows) > WINDOWS:
                self._windows.popitem(last=False)
        return read


def in_parallel(
    work: Callable[[Range], None],
    ranges: list[Range],
    pool: ThreadPoolExecutor,
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """Do the work for every range on the pool, and something else here; the first failure is raised once nothing runs
    any more.
    """
    futures = [pool.submit(work, each) for each in ranges]
    try:
        meanwhile()
        for future in futures:
            future.result()
    finally:
        for future in futures:
            future.cancel()
        wait(futures)
