"""Resealing: blobs of one vault stored in another under its own key; ids, and so trees, stay what they are.

Data first, then trees. What the other vault holds already is not stored twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice

from refloat.errors import IntegrityError
from refloat.recovery_point import DESCRIPTOR
from vault.blobs import BlobKind
from vault.evidence import BATCH_BLOBS
from vault.files import FileKind
from vault.findings import Findings
from vault.index import Index
from vault.nodes import FILE
from vault.reach import Reach
from vault.reading import BlobReader, Place, Range, in_parallel
from vault.repository import OpenVault
from vault.snapshots import AnyRecord, moved_record
from vault.writing import BlobWriter

THREADS = 2
"""Each fills a pack of its own: 17 MiB, and 8 MiB of what it reads."""


class Resealing:
    """The far end of one copy: a vault with a key of its own. ``to`` proves what is put into it."""

    def __init__(self, source: OpenVault, to: OpenVault) -> None:
        self.source, self.to = source, to
        self._index, self._theirs = source.index(), to.index()
        self._reader = BlobReader(source.files, self._index)

    def missing(self, reach: Reach) -> tuple[int, int]:
        """How many blobs the far end lacks, of those that were reached, and their sealed bytes."""
        count = size = 0
        for kind in BlobKind:
            for number in self._numbers(reach, kind):
                count += 1
                size += self._index.at(kind, number)[1].sealed_bytes
        return count, size

    def _numbers(self, reach: Reach, kind: BlobKind) -> Iterator[int]:
        """Each is looked up when its turn comes, so that what was stored meanwhile is not stored again."""
        for number in reach.used[kind]:
            if not self._theirs.has(kind, self._index.at(kind, number)[1].id):
                yield number

    def move_blobs(self, reach: Reach, findings: Findings, moved: Callable[[int], None]) -> int:
        """Store what the far end lacks; ``moved`` hears bytes. Returns the bytes that were added there.

        A blob that is not what its name says is added to the findings and left out.

        Raises:
            IntegrityError: The far end does not give back what was stored.
            ProviderError: A store does not answer.
        """
        added = 0
        for kind in (BlobKind.DATA, BlobKind.TREE):
            writer = BlobWriter(self.to.files, self._theirs)
            try:
                self._move_kind(kind, reach, writer, findings, moved)
                writer.finish()
            finally:
                writer.close()
            added += writer.added_bytes
        return added

    def _move_kind(
        self, kind: BlobKind, reach: Reach, writer: BlobWriter, findings: Findings, moved: Callable[[int], None]
    ) -> None:
        numbers = self._numbers(reach, kind)
        with ThreadPoolExecutor(THREADS, thread_name_prefix="reseal") as pool:
            while batch := list(islice(numbers, BATCH_BLOBS)):
                bad = list[tuple[Place, str]]()

                def move(wanted: Range, bad: list[tuple[Place, str]] = bad) -> None:
                    self._move_range(wanted, writer, bad)

                ranges = self._reader.ranges(self._index.at(kind, number) for number in batch)
                in_parallel(move, ranges, pool)
                for (_, blob), why in bad:
                    number = self._index.number(kind, blob.id)
                    if number is not None:
                        findings.add_blob(kind, number, why)
                moved(sum(self._index.at(kind, number)[1].sealed_bytes for number in batch))

    def _move_range(self, wanted: Range, writer: BlobWriter, bad: list[tuple[Place, str]]) -> None:
        try:
            fetched = memoryview(self._reader.fetch(wanted))
        except IntegrityError as wrong:
            bad.extend(((wanted.pack, blob), wrong.message) for blob in wanted.blobs)
            return
        for blob in wanted.blobs:
            start = blob.offset - wanted.start
            try:
                plain = self._reader.open(wanted.pack, blob, fetched[start : start + blob.sealed_bytes])
            except IntegrityError as wrong:
                bad.append(((wanted.pack, blob), wrong.message))
            else:
                writer.save(blob.kind, plain, blob.id)

    def seal(self, record: AnyRecord) -> str:
        """Store a snapshot record of the same tree, which tells where the descriptor lies here; its new name."""
        return self.to.files.write(FileKind.SNAPSHOT, moved_record(record, self._descriptor(record)))

    def _descriptor(self, record: AnyRecord) -> Place | None:
        if record.ours is None:
            return None
        index: Index = self._theirs
        with suppress(IntegrityError):  # the shortcut is only that
            for node in BlobReader(self.to.files, index).tree(record.tree):
                if node.name == DESCRIPTOR.encode() and node.type == FILE and len(node.blobs) == 1:
                    return index.find(BlobKind.DATA, node.blobs[0])
        return None
