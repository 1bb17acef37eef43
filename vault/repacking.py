"""Repacking: used blobs move from packs that waste room into new ones, as they are sealed; each is read and hashed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from refloat.errors import IntegrityError
from vault.blobs import BlobKind, PackedBlob
from vault.files import FileKind, SealedFiles, key_of, write_named
from vault.index_files import IndexWriter
from vault.packs import PackBuilder
from vault.reading import BlobReader
from vault.writing import CAPACITY_BYTES, SPARE_BYTES

REQUESTS = 4
"""Ranges of a pack asked for at once; each has up to 8 MiB."""


class Repacker:
    """Fills new packs, and names them in index files. Not thread-safe."""

    def __init__(self, files: SealedFiles, reader: BlobReader, index: IndexWriter) -> None:
        self._files, self._reader, self._index = files, reader, index
        self._open: dict[BlobKind, PackBuilder] = {}
        self.blobs = self.packs = self.bytes = 0
        """Moved so far, and into how many new packs of how many bytes."""

    def move(self, pack: bytes, blobs: list[PackedBlob]) -> None:
        """Copy blobs of a pack.

        Raises:
            IntegrityError: One is not what was sealed.
            ProviderError: The store refuses a new pack.
        """
        ranges = self._reader.ranges((pack, blob) for blob in blobs)
        with ThreadPoolExecutor(REQUESTS, thread_name_prefix="repack") as pool:
            for start in range(0, len(ranges), REQUESTS):
                some = ranges[start : start + REQUESTS]
                for wanted, fetched in zip(some, pool.map(self._reader.fetch, some), strict=True):
                    for blob in wanted.blobs:
                        place = blob.offset - wanted.start
                        self._add(pack, blob, memoryview(fetched)[place : place + blob.sealed_bytes])

    def finish(self) -> None:
        """Store what is still open, and name it.

        Raises:
            ProviderError: The store refuses.
        """
        for builder in self._open.values():
            self._store(builder)
        self._open.clear()

    def _add(self, pack: bytes, blob: PackedBlob, sealed: memoryview) -> None:
        self._reader.open(pack, blob, sealed)
        builder = self._open.get(blob.kind)
        if builder is not None and not builder.has_room(blob.sealed_bytes):
            self._store(builder)
            builder = None
        if builder is None:
            builder = PackBuilder(blob.kind, max(CAPACITY_BYTES, blob.sealed_bytes + SPARE_BYTES))
            self._open[blob.kind] = builder
        builder.add_sealed(blob, sealed)
        self.blobs += 1
        if builder.is_full:
            self._store(self._open.pop(blob.kind))

    def _store(self, builder: PackBuilder) -> None:
        """Store a pack and see that it is there whole: the old copies go on its word."""
        closed = builder.close(self._files.codec)
        key = key_of(FileKind.PACK, closed.id.hex())
        write_named(self._files.store, FileKind.PACK, closed.id.hex(), closed.body)
        size = self._files.store.stat(key).size_bytes
        if size != len(closed.body):
            raise IntegrityError(f"{key} of {self._files.store.url} has {size} bytes, {len(closed.body)} were stored")
        self._index.add(closed.id, list(closed.blobs))
        self.packs += 1
        self.bytes += size
