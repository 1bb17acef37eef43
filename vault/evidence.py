"""Evidence: reading a vault that may be damaged; damage is written down among the findings, and reading goes on."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from refloat.errors import IntegrityError, NotFound
from vault.blobs import BlobKind, PackedBlob
from vault.files import FileKind, key_of, read_named, require_small, stored
from vault.findings import Findings
from vault.index import Index
from vault.keys import check_key_file
from vault.pack_proof import PackProof, prove
from vault.reading import BlobReader, Range
from vault.repository import REQUESTS, OpenVault

BATCH_BLOBS = 1024
_PACK = re.compile(rb'\{"id":"([0-9a-f]{64})","blobs":')
PACKS_AT_ONCE = 4
"""Whole packs read at once; each takes the memory of one request."""
Job = TypeVar("Job")
Answer = TypeVar("Answer")


@dataclass
class IndexSeen:
    """Everything the readable index files say. ``repeated``: how often a pack stood in one more file."""

    index: Index
    names: set[str] = field(default_factory=set)
    damaged: dict[str, str] = field(default_factory=dict)
    repeated: int = 0


def read_each(
    vault: OpenVault, kind: FileKind, names: Iterable[str] | None = None
) -> Iterator[tuple[str, bytes | IntegrityError]]:
    """Name and JSON text of small files, of all of a kind or of these, or why one does not read; what went away is
    passed over.
    """
    listed = ((name, found.size_bytes) for name, found in stored(vault.store, kind))

    def read(job: tuple[str, int]) -> tuple[str, bytes | IntegrityError | None]:
        name, size_bytes = job
        try:
            require_small(kind, name, size_bytes)
            return name, vault.files.read(kind, name)
        except IntegrityError as wrong:
            return name, wrong
        except NotFound:
            return name, None

    with ThreadPoolExecutor(REQUESTS, thread_name_prefix=f"read {kind.value}") as pool:
        for name, text in ahead(pool, read, listed if names is None else ((name, 0) for name in names), REQUESTS):
            if text is not None:
                yield name, text


def ahead(pool: ThreadPoolExecutor, work: Callable[[Job], Answer], jobs: Iterable[Job], count: int) -> Iterator[Answer]:
    """Answers in the order of the jobs, of which no more than ``count`` are begun before their turn."""
    waiting: deque[Future[Answer]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(work, job))
            if len(waiting) >= count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for each in waiting:
            each.cancel()


def read_index(vault: OpenVault) -> IndexSeen:
    """All index files; the damaged ones are told and passed over."""
    seen = IndexSeen(Index())
    for name, text in read_each(vault, FileKind.INDEX):
        seen.names.add(name)
        if isinstance(text, IntegrityError):
            seen.damaged[name] = text.message
            continue
        try:
            repeated = _repeated(seen.index, text)
            seen.index.add_file(text)
            seen.repeated += repeated
        except IntegrityError as wrong:
            seen.damaged[name] = wrong.message
    seen.index.settle()
    return seen


def _repeated(index: Index, text: bytes) -> int:
    """How many packs of an index file another has named before, as far as it is written as restic and we do."""
    return sum(index.has_pack(bytes.fromhex(found[1].decode())) for found in _PACK.finditer(text))


@dataclass
class PacksSeen:
    """The listing of all packs against the index. ``unindexed``: name and size of those that no index names."""

    count: int = 0
    size_bytes: int = 0
    unindexed: list[tuple[bytes, int]] = field(default_factory=list)


def compare_packs(vault: OpenVault, index: Index, findings: Findings) -> PacksSeen:
    """Every pack that the index names is stored, in the size its blobs make."""
    listed, missing = PacksSeen(), set(index.packs())
    for name, found in stored(vault.store, FileKind.PACK):
        pack = bytes.fromhex(name)
        listed.count += 1
        listed.size_bytes += found.size_bytes
        if pack not in missing:
            listed.unindexed.append((pack, found.size_bytes))
            continue
        missing.discard(pack)
        expected = index.pack_bytes(pack)
        if found.size_bytes != expected:
            findings.add_pack(pack, f"it has {found.size_bytes} bytes, not {expected}")
    for pack in sorted(missing):
        findings.add_pack(pack, "it is gone")
    return listed


def read_blobs(
    vault: OpenVault, index: Index, findings: Findings, numbers: Iterable[int], moved: Callable[[int, int], None]
) -> None:
    """Read data blobs by their numbers; ``moved`` hears how many, and how many bytes of them, were read well."""
    reader, rest = BlobReader(vault.files, index), iter(numbers)

    def read(wanted: Range) -> tuple[Range, str | None, dict[PackedBlob, str]]:
        bad: dict[PackedBlob, str] = {}
        try:
            sealed = memoryview(reader.fetch(wanted))
        except IntegrityError as gone:
            return wanted, gone.message, bad
        for blob in wanted.blobs:
            start = blob.offset - wanted.start
            try:
                reader.open(wanted.pack, blob, sealed[start : start + blob.sealed_bytes])
            except IntegrityError as wrong:
                bad[blob] = wrong.message
        return wanted, None, bad

    with ThreadPoolExecutor(REQUESTS, thread_name_prefix="verify") as pool:
        while batch := list(islice(rest, BATCH_BLOBS)):
            places = [index.at(BlobKind.DATA, number) for number in batch]
            whole = [place for place in places if not findings.has_pack(place[0])]
            for wanted, gone, bad in ahead(pool, read, reader.ranges(whole), REQUESTS):
                if gone is not None:
                    findings.add_pack(wanted.pack, gone)
                    continue
                for blob, reason in bad.items():
                    number = index.number(BlobKind.DATA, blob.id)
                    if number is not None:
                        findings.add_blob(BlobKind.DATA, number, reason)
                good = [blob for blob in wanted.blobs if blob not in bad]
                moved(len(good), sum(blob.size_bytes for blob in good))


def read_packs(vault: OpenVault, packs: Iterable[tuple[bytes, int]]) -> Iterator[PackProof]:
    """Every byte of packs, given by id and size."""
    with ThreadPoolExecutor(PACKS_AT_ONCE, thread_name_prefix="verify packs") as pool:
        yield from ahead(pool, lambda each: prove(vault.files, *each), packs, PACKS_AT_ONCE)


def look_at_other_files(vault: OpenVault, findings: Findings) -> None:
    """Key files and vault locks: what is damaged there keeps nobody from recovering, until it does."""
    for kind in (FileKind.KEY, FileKind.LOCK):
        for name, listed in stored(vault.store, kind):
            with suppress(NotFound):
                try:
                    require_small(kind, name, listed.size_bytes)
                    if kind is FileKind.KEY:
                        check_key_file(read_named(vault.store, kind, name))
                    else:
                        vault.files.read(kind, name)
                except IntegrityError as wrong:
                    findings.add(key_of(kind, name), wrong.message)
