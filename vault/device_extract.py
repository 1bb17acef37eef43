"""Extract of a file's bytes onto a raw block device or into a file: by pack, verified, sparse, and safe to begin again.

What is there already is compared by content and kept. Zeros are never written into what is known to hold zeros; on
everything else they are made by punching holes, which a block device understands as a discard that reads as zeros
(fallocate(2), Linux ``blkdev_fallocate``), or written where that cannot be done.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from refloat.errors import ConfigError, IntegrityError, StoreFull
from vault import placing
from vault.blobs import BlobKind, PackedBlob
from vault.chunking import is_zero, zero_id, zeros
from vault.direct import DirectFile, aligned_buffer
from vault.disk import translated
from vault.nodes import FILE, Node
from vault.reading import BlobReader, Range, in_parallel
from vault.repository import OpenVault
from vault.tally import Tally

BATCH_PIECES = 2048
REQUEST_BYTES = 4 << 20
REQUESTS = 8
"""In flight at once; fewer where chunks are so large that eight would take more than ``BUFFERED_BYTES``."""
BUFFERED_BYTES = 64 << 20
ZEROED_AT_ONCE = 1 << 30
"""A punched range is no longer, so that a wish to end is heard."""
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_CANNOT_PUNCH = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@dataclass(frozen=True)
class ExtractedDevice:
    """What was brought back. ``written_bytes`` and ``kept_bytes`` are of data, ``zero_bytes`` of chunks of zeros;
    ``target_bytes``: how large the target is, which may be more.
    """

    size_bytes: int
    written_bytes: int
    kept_bytes: int
    zero_bytes: int
    target_bytes: int


def extract_device(vault: OpenVault, tree: str, path: Path, tally: Tally, *, is_blank: bool = False) -> ExtractedDevice:
    """Give a block device, or a file that stands for one, the bytes of a device's copy.

    A file that is not there is made. A target that is larger keeps what lies beyond the copy's end, and the result
    tells. ``is_blank``: the caller knows that the target held nothing but zeros before the first try.

    Raises:
        ConfigError: The target is neither device nor file, or in use; or the tree is no device's.
        StoreFull: The target is smaller than the copy; nothing was written. Or the file system under it is full.
        IntegrityError: The vault does not hold the tree, or data of it is damaged.
        TransferFailed: The device failed.
        Interrupted: The tally was told to stop.
    """
    reader = BlobReader(vault.files, vault.index())
    node = device_node(reader, tree)
    places = Content(reader, node, str(path))
    file = _open(path)
    try:
        with translated(f"{path} cannot be written"):
            is_new, target = _make_room(file, path, node.size)
            work = _Filling(reader, file, path, tally, is_new=is_new, is_blank=is_new or is_blank)
            work.run(places)
            os.fsync(file)
    finally:
        os.close(file)
    return ExtractedDevice(node.size, work.written_bytes, work.kept_bytes, work.zero_bytes, target)


def fill_new_file(reader: BlobReader, node: Node, file: int, path: Path, tally: Tally) -> None:
    """Give a new, empty, open file the bytes of a node; it is on its disk on return.

    Raises:
        As ``extract_device``.
    """
    places = Content(reader, node, str(path))
    with translated(f"{path} cannot be written"):
        os.ftruncate(file, node.size)
        _Filling(reader, file, path, tally, is_new=True, is_blank=True).run(places)
        os.fsync(file)


def device_node(reader: BlobReader, tree: str) -> Node:
    """The one file of a device's copy.

    Raises:
        ConfigError: The tree is a folder's.
        IntegrityError: The vault does not hold the tree.
    """
    nodes = reader.tree(bytes.fromhex(tree))
    if len(nodes) != 1 or nodes[0].type != FILE:
        raise ConfigError(
            f"tree {tree[:16]} holds a folder and no device", guidance="Extract it into a folder: mode folder."
        )
    return nodes[0]


class Content:
    """Where the bytes of a file lie: offset and blob, one after the other. All blobs are known and add up to it."""

    def __init__(self, reader: BlobReader, node: Node, what: str) -> None:
        self._reader, self._blobs = reader, node.blobs
        size = 0
        self.largest = 0
        for blob_id in self._blobs:
            length = reader.place(BlobKind.DATA, blob_id)[1].size_bytes
            size, self.largest = size + length, max(self.largest, length)
        if size != node.size:
            raise IntegrityError(f"{what}: its {len(self._blobs)} blobs have {size} bytes, the file has {node.size}")

    def __iter__(self) -> Iterator[tuple[int, bytes, PackedBlob]]:
        """Offset, pack and blob."""
        offset = 0
        for blob_id in self._blobs:
            pack, blob = self._reader.place(BlobKind.DATA, blob_id)
            yield offset, pack, blob
            offset += blob.size_bytes


def requests_for(chunk_bytes: int) -> int:
    """How many requests may be in flight."""
    return max(2, min(REQUESTS, BUFFERED_BYTES // max(1, chunk_bytes)))


def _open(path: Path) -> int:
    try:
        mode = path.stat().st_mode if path.exists() else stat.S_IFREG
        if not stat.S_ISBLK(mode) and not stat.S_ISREG(mode):
            raise ConfigError(f"{path} is neither a block device nor a file that stands for one")
        how = os.O_EXCL if stat.S_ISBLK(mode) else os.O_CREAT  # open(2): a device that is mounted refuses O_EXCL
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | how, 0o600)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise ConfigError(f"{path} is in use: it is mounted, or another device is made of it") from error
        raise ConfigError(f"{path} is no device that can be written: {error.strerror}") from error


def _make_room(file: int, path: Path, size: int) -> tuple[bool, int]:
    """Whether the target is a new file, and its size; nothing was written yet."""
    target = os.lseek(file, 0, os.SEEK_END)
    if not target and stat.S_ISREG(os.fstat(file).st_mode):
        os.ftruncate(file, size)
        return True, size
    if target < size:
        raise StoreFull(
            f"{path} has {target} bytes and the copy {size}; nothing was written",
            guidance="Give a device or volume at least as large as the copy.",
        )
    return False, target


class _Filling:
    """One file or device being filled, batch after batch."""

    def __init__(
        self, reader: BlobReader, file: int, path: Path, tally: Tally, *, is_new: bool, is_blank: bool
    ) -> None:
        self._reader, self._file, self._path, self._tally = reader, file, path, tally
        self._is_new, self._is_blank = is_new, is_blank
        self._can_punch = True
        self._own = threading.local()
        self.written_bytes = self.kept_bytes = self.zero_bytes = 0

    def run(self, content: Content) -> None:
        """Zeros are made on the way; all else is gathered, compared, read and written by threads."""
        zero_from = zero_to = 0
        self._direct = DirectFile(os.dup(self._file), os.O_RDWR)
        with (
            closing(self._direct),
            ThreadPoolExecutor(requests_for(content.largest), thread_name_prefix="fill device") as self._pool,
        ):
            batch: list[tuple[int, bytes, PackedBlob]] = []
            for offset, pack, blob in content:
                if blob.id != zero_id(blob.size_bytes):
                    batch.append((offset, pack, blob))
                    if len(batch) >= BATCH_PIECES:
                        self._fill(batch)
                        batch = []
                    continue
                if offset != zero_to or zero_to - zero_from >= ZEROED_AT_ONCE:
                    self._zero(zero_from, zero_to - zero_from)
                    zero_from = offset
                zero_to = offset + blob.size_bytes
            self._zero(zero_from, zero_to - zero_from)
            self._fill(batch)

    def _zero(self, offset: int, length: int) -> None:
        """Make a range of the target read as zeros."""
        self.zero_bytes += length
        self._tally.add(data_bytes=length)
        if self._is_blank or not length:
            return
        if self._can_punch and _punch(self._file, offset, length):
            return
        self._can_punch = False
        step = 1 << 20
        for place in range(offset, offset + length, step):
            self._tally.add()
            placing.write_all(self._file, place, zeros(min(step, offset + length - place)))

    def _fill(self, batch: list[tuple[int, bytes, PackedBlob]]) -> None:
        self._wanted: defaultdict[bytes, list[int]] = defaultdict(list)
        there = [False] * len(batch) if self._is_new else self._compare(batch)
        places = []
        for (offset, pack, blob), is_there in zip(batch, there, strict=True):
            if is_there:
                self.kept_bytes += blob.size_bytes
            else:
                self.written_bytes += blob.size_bytes
                self._wanted[blob.id].append(offset)
                places.append((pack, blob))
        in_parallel(self._put, self._reader.ranges(places, REQUEST_BYTES), self._pool)

    def _compare(self, batch: list[tuple[int, bytes, PackedBlob]]) -> list[bool]:
        """Whether the target holds each blob's bytes already."""
        futures = [self._pool.submit(self._is_there, offset, blob) for offset, _, blob in batch]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
            wait(futures)

    def _is_there(self, offset: int, blob: PackedBlob) -> bool:
        found, buffer = sha256(), self._buffer()
        with translated(f"{self._path} cannot be read at byte {offset}"):
            for start in range(0, blob.size_bytes, len(buffer)):
                length = min(len(buffer), blob.size_bytes - start)
                part = buffer[: self._direct.read(offset + start, length, buffer)]
                if len(part) < length or (length == blob.size_bytes and is_zero(part)):
                    return False
                found.update(part)
        is_there = found.digest() == blob.id
        self._tally.add(data_bytes=blob.size_bytes if is_there else 0)
        return is_there

    def _put(self, wanted: Range) -> None:
        buffer = self._buffer()
        for blob, plain in self._reader.read_range(wanted):
            for offset in self._wanted[blob.id]:
                with translated(f"{self._path} cannot be written at byte {offset}"):
                    for start, run in placing.runs(plain) if self._is_new else [(0, memoryview(plain))]:
                        self._direct.write(offset + start, run, buffer)
                self._tally.add(data_bytes=len(plain))

    def _buffer(self) -> memoryview:
        """This thread's own."""
        found: memoryview | None = getattr(self._own, "buffer", None)
        if found is None:
            found = self._own.buffer = aligned_buffer()
        return found


def _punch(file: int, offset: int, length: int) -> bool:
    """Make a range read as zeros without writing them; False where the device or file system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    where = (ctypes.c_int64(offset), ctypes.c_int64(length))
    if libc.fallocate(file, _PUNCH_HOLE | _KEEP_SIZE, *where) == 0:
        return True
    number = ctypes.get_errno()
    if number not in _CANNOT_PUNCH:
        raise OSError(number, os.strerror(number))
    return False
