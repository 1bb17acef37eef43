"""Mirroring: files of a vault moved byte for byte to where the same vault has, or gets, a second home.

Packs first, then the index files that name them; keys and configuration once everything they open is there. Nothing is
sealed again, so a mirror opens by the passwords its vault had when the mirror was made.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress

import orjson

from refloat.clock import now
from refloat.errors import AlreadyExists, IntegrityError, NotFound
from vault.blobs import BlobKind
from vault.files import CONFIG, FileKind, key_of, read_named, stored, write_named
from vault.findings import Findings
from vault.index_files import IndexWriter, packs_named
from vault.proving import Room, is_whole
from vault.reach import Reach
from vault.repository import COPY_OF, OpenVault
from vault.wrapped import FOLDER as WRAPPED

REQUESTS = 4
MEMORY_BYTES = 96 << 20
"""Packs in memory at once, all together; one that is larger is moved alone."""


def begin_mirror(source: OpenVault, to: OpenVault) -> None:
    """Say whose copy is made in an empty prefix, before anything else is written there."""
    text = orjson.dumps({"version": 1, "copy_of": source.id, "begun": now().isoformat()})
    with suppress(AlreadyExists):
        to.store.put(f"{COPY_OF}{source.id}", text, if_absent=True)


class Mirror:
    """The far end of one copy: another home of the same vault. ``to`` proves what is put into it."""

    def __init__(self, source: OpenVault, to: OpenVault, *, is_new: bool) -> None:
        self.source, self.to, self.is_new = source, to, is_new
        self._index, self._theirs = source.index(), to.index()
        self.packs = {bytes.fromhex(name): found.size_bytes for name, found in stored(to.store, FileKind.PACK)}
        """Sizes of the packs that are stored at the far end."""

    def lost(self) -> list[bytes]:
        """Packs that the far end's index names and that are not stored there as it says."""
        return [pack for pack in self._theirs.packs() if self.packs.get(pack) != self._theirs.pack_bytes(pack)]

    def missing(self, reach: Reach) -> list[bytes]:
        """The source's packs that hold a blob the far end lacks, of those that were reached."""
        found: dict[bytes, None] = {}
        for kind in BlobKind:
            for number in reach.used[kind]:
                pack, blob = self._index.at(kind, number)
                if pack not in found and not self._has(kind, blob.id):
                    found[pack] = None
        return sorted(found)

    def _has(self, kind: BlobKind, blob_id: bytes) -> bool:
        place = self._theirs.find(kind, blob_id)
        return place is not None and self.packs.get(place[0]) == self._theirs.pack_bytes(place[0])

    def move_packs(self, packs: list[bytes], findings: Findings, moved: Callable[[int], None]) -> int:
        """Move packs, several at a time; ``moved`` hears the size of each. Returns how many were stored.

        A pack that is not what its name says is added to the findings and left out.

        Raises:
            IntegrityError: The far end does not give back what was stored.
            ProviderError: A store does not answer.
        """
        room, count = Room(MEMORY_BYTES), 0

        def move(pack: bytes) -> tuple[bytes, bool | str]:
            with room.taken(self._index.pack_bytes(pack)):
                return pack, self._move(pack)

        pool = ThreadPoolExecutor(REQUESTS, thread_name_prefix="move packs")
        try:
            for each in as_completed([pool.submit(move, pack) for pack in packs]):
                pack, outcome = each.result()
                if isinstance(outcome, str):
                    findings.add_pack(pack, outcome)
                else:
                    self.packs[pack] = self._index.pack_bytes(pack)
                    count += outcome
                    moved(self._index.pack_bytes(pack))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return count

    def _move(self, pack: bytes) -> bool | str:
        """Whether the pack was stored, not there already; or why it cannot be had from the source."""
        name, size = pack.hex(), self._index.pack_bytes(pack)
        key = key_of(FileKind.PACK, name)
        is_there = self.packs.get(pack)
        if is_there == size and is_whole(self.to.store, key, name, size):
            return False
        try:
            body = read_named(self.source.store, FileKind.PACK, name)
        except (NotFound, IntegrityError) as wrong:
            return wrong.message
        if len(body) != size:
            return f"it has {len(body)} bytes, the index says {size}"
        if is_there is None:
            write_named(self.to.store, FileKind.PACK, name, body)
        else:
            self.to.store.put(key, body)  # the rest of a torn upload, or damaged since
        return True

    def name_packs(self, packs: list[bytes]) -> int:
        """Have index files of the far end name these packs, as far as they are stored; how many files were written.

        An index file of the source is moved as it is when all its packs are there; else a new one is made.
        """
        unnamed = {pack for pack in packs if pack in self.packs and not self._theirs.has_pack(pack)}
        count, known = 0, {name for name, _ in stored(self.to.store, FileKind.INDEX)}
        for name, _ in list(stored(self.source.store, FileKind.INDEX)) if unnamed else ():
            if name in known:
                continue
            with suppress(NotFound):  # superseded meanwhile; what it said is made new
                named = set(packs_named(self.source.files.read(FileKind.INDEX, name)))
                if named & unnamed and all(pack in self.packs for pack in named):
                    body = read_named(self.source.store, FileKind.INDEX, name)
                    write_named(self.to.store, FileKind.INDEX, name, body)
                    unnamed -= named
                    count += 1
        writer = IndexWriter(self.to.files)
        for pack in sorted(unnamed):
            writer.add(pack, sorted(self._index.blobs_of(pack), key=lambda blob: blob.offset))
        writer.flush()
        return count + len(writer.written)

    def open_up(self) -> None:
        """Keys, wrapped passwords, and last the configuration: from then on there is a vault at the far end."""
        if not self.is_new:
            return
        for name, _ in stored(self.source.store, FileKind.KEY):
            write_named(self.to.store, FileKind.KEY, name, read_named(self.source.store, FileKind.KEY, name))
        for found in self.source.store.list(WRAPPED):
            with suppress(AlreadyExists):
                self.to.store.put(found.key, self.source.store.get(found.key), if_absent=True)
        config = self.source.store.get(CONFIG)
        with suppress(AlreadyExists):
            self.to.store.put(CONFIG, config, if_absent=True)
        if self.to.store.get(CONFIG) != config:
            raise IntegrityError(
                f"{self.to.url}/{CONFIG} is not what was copied: another vault was made there meanwhile"
            )
        self.is_new = False

    def seal(self, name: str) -> str:
        """Move a snapshot record as it is."""
        write_named(self.to.store, FileKind.SNAPSHOT, name, read_named(self.source.store, FileKind.SNAPSHOT, name))
        return name
