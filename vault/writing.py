"""Writing blobs: packs are filled by any number of threads, stored, and only then named by an index file.

Order of writes as restic's design document asks: packs, then the index that names them; the snapshot record comes from
the catalogue, last. Index files are written while the work goes on, so that what a killed run stored is reused.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from hashlib import sha256
from mmap import mmap
from typing import NamedTuple

from refloat.clock import Deadline
from refloat.errors import Unsupported
from vault.blobs import BlobKind
from vault.claims import Claims
from vault.files import FileKind, SealedFiles, write_named
from vault.index import Index, encode_pack, join_packs
from vault.packs import TARGET_BYTES, ClosedPack, PackBuilder, SealedBlob

CAPACITY_BYTES = TARGET_BYTES + (5 << 18)
"""A pack's buffer: the target, one chunk beyond it, and the header."""
SPARE_BYTES = 1 << 16
UPLOADS = 2
"""Packs on their way to the store at once; each holds its buffer."""
INDEX_BLOBS = 50_000
INDEX_AGE = timedelta(minutes=10)
"""restic closes an index file at that many blobs or that age."""


class StoredPack(NamedTuple):
    """A pack that lies in the store: what an index file says of it, how many blobs and bytes it has."""

    text: bytes
    blobs: int
    size_bytes: int


class PackWriter:
    """Stores blobs that the vault does not hold yet, in packs. ``save`` is callable from several threads.

    Each thread fills a data pack of its own, so that compressing, sealing and hashing share nothing; trees are few and
    share one pack. ``claims`` are those of a crew.
    """

    def __init__(
        self, files: SealedFiles, index: Index, *, uploads: int = UPLOADS, claims: Claims | None = None
    ) -> None:
        self._files, self._index, self._claims = files, index, claims
        self._claimed: set[tuple[BlobKind, bytes]] = set()
        self._guard = threading.Lock()
        self._tree_guard = threading.Lock()
        self._open: dict[tuple[BlobKind, int], PackBuilder] = {}
        self._slots = threading.BoundedSemaphore(uploads)
        self._pool = ThreadPoolExecutor(uploads, thread_name_prefix="store packs")
        self._uploads: list[Future[None]] = []
        self._spare: list[mmap] = []

    def save(self, kind: BlobKind, plain: bytes | bytearray | memoryview, blob_id: bytes | None = None) -> bytes:
        """Store a blob unless the vault holds it; its id. It is durable after ``flush``.

        Raises:
            Unsupported: It is larger than any blob may be.
            RefloatError: The store refused an earlier pack.
        """
        blob_id = blob_id or sha256(plain).digest()
        if not self._claim(kind, blob_id):
            return blob_id
        if len(plain) > kind.limit_bytes:
            raise Unsupported(f"a {kind.value} blob of {len(plain)} bytes is too large: a folder has too many entries")
        if kind is BlobKind.TREE:
            with self._tree_guard:
                self._add(kind, 0, blob_id, plain)
        else:
            self._add(kind, threading.get_ident(), blob_id, plain)
        return blob_id

    def flush(self) -> None:
        """Store what is still open, and wait for all packs; call when no ``save`` runs.

        Raises:
            RefloatError: The store refused a pack.
        """
        for builder in self._open.values():
            self._upload(builder)
        self._open.clear()
        for upload in self._uploads:
            upload.result()
        self._uploads.clear()

    def close(self) -> None:
        """Let go of the threads, without storing what is still open; idempotent."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _claim(self, kind: BlobKind, blob_id: bytes) -> bool:
        """Whether the caller is the one to store this blob: nobody did or does."""
        with self._guard:
            if (kind, blob_id) in self._claimed or self._index.has(kind, blob_id):
                return False
            if self._claims is not None and not self._claims.take(kind, blob_id):
                return False
            self._claimed.add((kind, blob_id))
            return True

    def _add(self, kind: BlobKind, thread: int, blob_id: bytes, plain: bytes | bytearray | memoryview) -> None:
        builder = self._builder(kind, thread, len(plain))
        builder.add(blob_id, plain, self._files.codec)
        if builder.is_full:
            del self._open[kind, thread]
            self._upload(builder)

    def _builder(self, kind: BlobKind, thread: int, blob_bytes: int) -> PackBuilder:
        """An open pack with room for a blob."""
        builder = self._open.get((kind, thread))
        if builder is not None and not builder.has_room(blob_bytes):
            self._upload(builder)
            builder = None
        if builder is None:
            builder = self._open[kind, thread] = PackBuilder(kind, self._buffer(kind, blob_bytes))
        return builder

    def _buffer(self, kind: BlobKind, blob_bytes: int) -> mmap | int:
        """A buffer that a stored pack has left, for the system takes 15 ms to find 17 MiB; or the size of a new one, as
        for trees, which mostly fill little of it: what is not touched is no memory yet.
        """
        if blob_bytes + SPARE_BYTES > CAPACITY_BYTES:
            return blob_bytes + SPARE_BYTES
        with self._guard:
            return self._spare.pop() if self._spare and kind is BlobKind.DATA else CAPACITY_BYTES

    def _upload(self, builder: PackBuilder) -> None:
        """Hand a pack to the store's threads; waits while as many are under way as may be."""
        pack = builder.close(self._files.codec)
        self._slots.acquire()
        with self._guard:
            for done in [upload for upload in self._uploads if upload.done()]:
                self._uploads.remove(done)
                if done.exception() is not None:
                    self._slots.release()
                done.result()
            self._uploads.append(self._pool.submit(self._store, pack))

    def _store(self, pack: ClosedPack) -> None:
        try:
            write_named(self._files.store, FileKind.PACK, pack.id.hex(), pack.body)
            with self._guard:
                self._index.add(pack.id, pack.blobs)
                self._claimed.difference_update((blob.kind, blob.id) for blob in pack.blobs)
                self._stored(StoredPack(encode_pack(pack.id, pack.blobs), len(pack.blobs), len(pack.body)))
        finally:
            buffer = pack.body.obj
            pack.body.release()
            if isinstance(buffer, mmap) and len(buffer) == CAPACITY_BYTES:
                with self._guard:
                    self._spare.append(buffer)
            self._slots.release()

    def _stored(self, pack: StoredPack) -> None:
        """A pack was stored and the index in memory knows it; called under the writer's lock."""
        raise NotImplementedError


class BlobWriter(PackWriter):
    """Stores blobs and names their packs in index files."""

    def __init__(self, files: SealedFiles, index: Index, *, index_blobs: int = INDEX_BLOBS) -> None:
        super().__init__(files, index)
        self._index_blobs = index_blobs
        self._unindexed: list[StoredPack] = []
        self._index_due = Deadline.after(INDEX_AGE)
        self.added_bytes = 0
        """What was added to the store so far, packs only; complete after ``finish``."""

    def adopt(self, packs: Iterable[StoredPack]) -> None:
        """Name packs that workers stored in this writer's index files; the index in memory need not know them.

        Raises:
            RefloatError: The store refused an index file.
        """
        with self._guard:
            for pack in packs:
                self._stored(pack)

    def adopt_trees(self, trees: Iterable[SealedBlob]) -> None:
        """Store trees that workers sealed, as ``save`` does.

        Raises:
            RefloatError: The store refused an earlier pack.
        """
        for blob, sealed in trees:
            if self._claim(BlobKind.TREE, blob.id):
                with self._tree_guard:
                    builder = self._builder(BlobKind.TREE, 0, len(sealed))
                    builder.add_sealed(blob, sealed)
                    if builder.is_full:
                        del self._open[BlobKind.TREE, 0]
                        self._upload(builder)

    def finish(self) -> None:
        """Store what is still open and name it in an index; call once, when no ``save`` runs any more.

        Raises:
            RefloatError: The store refused a pack or an index file.
        """
        try:
            self.flush()
            with self._guard:
                self._write_index()
        finally:
            self.close()

    def _stored(self, pack: StoredPack) -> None:
        self.added_bytes += pack.size_bytes
        self._unindexed.append(pack)
        if self._index_due.is_over or sum(each.blobs for each in self._unindexed) >= self._index_blobs:
            self._write_index()

    def _write_index(self) -> None:
        if self._unindexed:
            self._files.write(FileKind.INDEX, join_packs(pack.text for pack in self._unindexed))
            self._unindexed = []
        self._index_due = Deadline.after(INDEX_AGE)


class CrewWriter(PackWriter):
    """A worker's writer: what it stored is told to the mover, which names it in an index file."""

    def __init__(self, files: SealedFiles, index: Index, claims: Claims | None) -> None:
        super().__init__(files, index, uploads=1, claims=claims)
        self._packs: list[StoredPack] = []

    def taken(self) -> list[StoredPack]:
        """Every pack that was stored since the last call."""
        with self._guard:
            packs, self._packs = self._packs, []
            return packs

    def trees(self) -> list[SealedBlob]:
        """Trees of a pack that is not full, which goes nowhere: the mover puts all workers' into one. Call before
        ``flush``, once.
        """
        builder = self._open.pop((BlobKind.TREE, 0), None)
        return builder.sealed() if builder else []

    def _stored(self, pack: StoredPack) -> None:
        self._packs.append(pack)
