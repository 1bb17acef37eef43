"""Verify: proof that a sealed point reads back. It sees what stock ``restic check`` does not: sizes of files.

Always: the snapshot record and the descriptor say what was sealed, every tree is reachable, every blob is in the index,
every pack is there in its full size, every file is as long as its blobs together, every manifest reads. Then a sample
of the data blobs, or all of them and every pack's header, is read, decrypted and hashed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from refloat.errors import IntegrityError, NotFound
from refloat.recovery_point import DESCRIPTOR, CataloguedPoint
from vault.bits import Bits
from vault.blobs import BlobKind
from vault.catalogue import manifests
from vault.files import FileKind, key_of, stored
from vault.findings import Findings
from vault.nodes import DIR
from vault.packs import read_header
from vault.reach import Reach
from vault.reading import BlobReader, Range, in_parallel
from vault.repository import REQUESTS, OpenVault
from vault.snapshots import decode_descriptor, decode_record

SAMPLE_BLOBS = 64
SAMPLE_SHARE = 0.01
"""A sample reads at least that many data blobs, and at least that share of them up to ``SAMPLE_LIMIT``."""
SAMPLE_LIMIT = 1024
BATCH_BLOBS = 1024


@dataclass(frozen=True)
class Verified:
    """What was read, and found to be what was sealed. A folder that stands in several places is counted once."""

    trees: int
    files: int
    file_bytes: int
    blobs: int
    blobs_read: int
    bytes_read: int

    def __str__(self) -> str:
        read = "all" if self.blobs_read == self.blobs else f"{self.blobs_read} of"
        return (
            f"{self.trees} trees, {self.files} files of {self.file_bytes} bytes; "
            f"{read} {self.blobs} data blobs read, {self.bytes_read} bytes"
        )


def verify(vault: OpenVault, sealed: CataloguedPoint, *, level: Literal["sample", "full"]) -> Verified:
    """Read a point back.

    Raises:
        IntegrityError: Something is not what was sealed; the message names it and the point.
    """
    try:
        _verify_record(vault, sealed)
        work = _Verification(vault)
        work.structure(bytes.fromhex(sealed.tree))
        _verify_descriptor(work.reader, sealed)
        manifests(vault, sealed)
        work.packs()
        if level == "full":
            work.headers()
        work.data(all_of_it=level == "full")
    except IntegrityError as wrong:
        raise IntegrityError(f"recovery point {sealed.point.id} is damaged: {wrong}", **wrong.context) from wrong
    return work.verified()


def sample(used: Bits) -> Iterator[int]:
    """A random share of the data blobs in use."""
    wanted = min(len(used), SAMPLE_LIMIT, max(SAMPLE_BLOBS, int(len(used) * SAMPLE_SHARE)))
    chosen = set(random.sample(range(len(used)), wanted))
    return (number for place, number in enumerate(used) if place in chosen)


def _verify_record(vault: OpenVault, sealed: CataloguedPoint) -> None:
    try:
        text = vault.files.read(FileKind.SNAPSHOT, sealed.snapshot_id)
    except NotFound as gone:
        raise IntegrityError(f"its snapshot record {sealed.snapshot_id} is gone") from gone
    record = decode_record(sealed.snapshot_id, text)
    if record is None or record.tree.hex() != sealed.tree:
        raise IntegrityError(f"its snapshot record {sealed.snapshot_id} names another tree")


def _verify_descriptor(reader: BlobReader, sealed: CataloguedPoint) -> None:
    top = {node.name: node for node in reader.tree(bytes.fromhex(sealed.tree))}
    node = top.get(DESCRIPTOR.encode())
    if node is None:
        raise IntegrityError(f"it holds no {DESCRIPTOR}")
    text = b"".join(reader.read(BlobKind.DATA, blob_id) for blob_id in node.blobs)
    if decode_descriptor(text, f"its {DESCRIPTOR}") != sealed.point:
        raise IntegrityError(f"its {DESCRIPTOR} says something else than was sealed")
    for volume in sealed.point.volumes:
        if _subtree(reader, bytes.fromhex(sealed.tree), volume.path) != bytes.fromhex(volume.tree):
            raise IntegrityError(f"{volume.path} is another tree than its {DESCRIPTOR} says")


def _subtree(reader: BlobReader, tree: bytes, path: str) -> bytes | None:
    for name in path.encode().split(b"/"):
        found = next((node for node in reader.tree(tree) if node.name == name and node.type == DIR), None)
        if found is None:
            return None
        tree = found.subtree
    return tree


class _Verification:
    """One run of ``verify``. One bit per blob of the index remembers what the point uses."""

    def __init__(self, vault: OpenVault) -> None:
        self._vault, self._index = vault, vault.index(is_fresh=True)
        self.reader = BlobReader(vault.files, self._index)
        self._findings = Findings(self._index)
        self._reach = Reach(self.reader, self._index, self._findings)
        self._used = self._reach.used[BlobKind.DATA]
        self._packs: set[bytes] = set()
        self._blobs_read = self._bytes_read = 0

    def structure(self, root: bytes) -> None:
        """Walk every tree."""
        met = self._reach.walk(root)
        for key, path in met.items():
            raise IntegrityError(f"{path}: {self._findings.objects[key].reasons[0]} ({key})", object=key)
        self._packs = {self._index.at(kind, number)[0] for kind, used in self._reach.used.items() for number in used}

    def packs(self) -> None:
        """Every pack the point needs is stored, in the size its blobs make."""
        missing = set(self._packs)
        for name, found in stored(self._vault.store, FileKind.PACK):
            pack = bytes.fromhex(name)
            if pack in missing:
                missing.discard(pack)
                expected = self._index.pack_bytes(pack)
                if found.size_bytes != expected:
                    raise IntegrityError(f"pack {found.key} has {found.size_bytes} bytes, not {expected}", pack=name)
        if missing:
            name = min(missing).hex()
            raise IntegrityError(f"{len(missing)} packs are gone, one is {key_of(FileKind.PACK, name)}", pack=name)

    def headers(self) -> None:
        """Every pack tells what is in it: from that a lost index can be made again."""
        with ThreadPoolExecutor(REQUESTS, thread_name_prefix="verify") as pool:
            for _ in pool.map(self._header, sorted(self._packs)):
                pass

    def _header(self, pack: bytes) -> None:
        start, files = self._index.blobs_end(pack), self._vault.files
        tail = files.read_part(pack, start, self._index.pack_bytes(pack) - start)
        try:
            read_header(tail, files.codec.sealer, skipped=start)
        except IntegrityError as wrong:
            raise IntegrityError(f"{key_of(FileKind.PACK, pack.hex())}: {wrong}", pack=pack.hex()) from wrong

    def data(self, *, all_of_it: bool) -> None:
        """Read data blobs."""
        numbers = iter(self._used) if all_of_it else sample(self._used)
        with ThreadPoolExecutor(REQUESTS, thread_name_prefix="verify") as pool:
            while batch := list(islice(numbers, BATCH_BLOBS)):
                places = [self._index.at(BlobKind.DATA, number) for number in batch]
                in_parallel(self._read, self.reader.ranges(places), pool)
                self._blobs_read += len(places)
                self._bytes_read += sum(blob.size_bytes for _, blob in places)

    def _read(self, wanted: Range) -> None:
        for _ in self.reader.read_range(wanted):
            pass

    def verified(self) -> Verified:
        """What was read."""
        reach = self._reach
        return Verified(
            len(reach.used[BlobKind.TREE]), reach.files, reach.file_bytes, len(self._used), self._blobs_read,
            self._bytes_read,
        )  # fmt: skip
