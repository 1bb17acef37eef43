"""Archive of a raw block device: its bytes, in chunks counted from its start, as the one file of a tree.

Chunks of one size make a copy comparable with the one before: a changed-block list names the chunks to read, and the
ids of all others are taken from the parent. Threads and not processes: reading, comparing, hashing, compressing and
sealing of a large chunk all let go of the interpreter.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from refloat.errors import ConfigError, IntegrityError, TransferFailed
from refloat.ports.changed_blocks import ChangedList, chunks_of
from vault.blobs import ID_BYTES, BlobKind
from vault.chunking import (
    LARGEST_CHUNK_BYTES,
    PAGE_BYTES,
    checked_chunk_bytes,
    chunk_bytes,
    holes,
    is_zero,
    zero_id,
    zeros,
)
from vault.crew import MOST_WORKERS, cores
from vault.direct import DirectFile, aligned_buffer
from vault.disk import translated
from vault.index import Index
from vault.nodes import FILE, Node, encode_node, encode_tree
from vault.reading import BlobReader
from vault.repository import OpenVault
from vault.tally import Tally
from vault.writing import BlobWriter

NAME = b"device"
"""Of the one file in a device's tree."""
PIECE_BYTES = 1 << 20
"""What is read at once, at least a chunk; every worker has one more piece read while it works."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ArchivedDevice:
    """A device's copy. ``chunk_bytes`` must be given to the next archive of it; ``read_bytes``: what was read of
    ``size_bytes``; ``added_bytes``: what was added to the store; ``why_whole``: why a changed-block list was not used.
    """

    tree: str
    size_bytes: int
    chunk_bytes: int
    read_bytes: int
    added_bytes: int
    why_whole: str | None = None


def archive_device(
    vault: OpenVault,
    path: Path,
    tally: Tally,
    *,
    parent: str | None = None,
    chunk_size: int | None = None,
    changed: ChangedList | None = None,
) -> ArchivedDevice:
    """Store the bytes of a block device, or of a regular file that stands for one.

    ``parent`` is the tree of an earlier copy, ``chunk_size`` the bytes per chunk that were recorded with it; without
    one, the parent's own chunks tell, else ``vault.chunking.chunk_bytes``. ``changed`` is believed only when it is
    about this parent, parent and device have the size it says, and the vault still holds every blob of the parent;
    otherwise everything is read. Nobody may write to the device meanwhile: it is a snapshot's.

    Raises:
        ConfigError: There is no such device, it has no bytes, or it is something else.
        InvalidDocument: The changed-block list cannot be about this device, or the chunk size is none.
        TransferFailed: The device failed to read, or became another size; the message names the place.
        Interrupted: The tally was told to stop.
        RefloatError: The store refused, or the vault is damaged.
    """
    file, is_file = _open(path)
    try:
        before = _state(file, path, is_file=is_file)
        size = before[0]
        if not size:
            raise ConfigError(f"{path} has no bytes: nothing is attached to it")
        earlier = _Earlier(vault, parent)
        step = checked_chunk_bytes(chunk_size or earlier.chunk_size or chunk_bytes(size))
        wanted, why = earlier.chunks_to_read(size, step, changed)
        writer = BlobWriter(vault.files, vault.index())
        try:
            work = _Device(file, path, size, step, writer, tally)
            node = Node(NAME, FILE, 0o600, uid=0, gid=0, mtime=0, ctime=0, size=size, links=1)
            node.content = work.run(earlier.content if wanted is not None else b"", wanted)
            if _state(file, path, is_file=is_file) != before:
                raise TransferFailed(f"{path} changed while it was read: {before[0]} bytes then, or written to since")
            tree = writer.save(BlobKind.TREE, encode_tree([encode_node(node)]))
            writer.finish()
        finally:
            writer.close()
    finally:
        os.close(file)
    return ArchivedDevice(tree.hex(), size, step, work.read_bytes, writer.added_bytes, why)


def _open(path: Path) -> tuple[int, bool]:
    """The open device, and whether it is a regular file."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"{path} is no device that can be read: {error.strerror}") from error
    mode = os.fstat(file).st_mode
    if not stat.S_ISBLK(mode) and not stat.S_ISREG(mode):
        os.close(file)
        raise ConfigError(f"{path} is neither a block device nor a file that stands for one")
    return file, stat.S_ISREG(mode)


def size_of(file: int) -> int:
    """Bytes of an open block device or file."""
    return os.lseek(file, 0, os.SEEK_END)


def _state(file: int, path: Path, *, is_file: bool) -> tuple[int, int]:
    """Size, and of a file the time of its last change too: what must be the same before and after."""
    with translated(f"{path} cannot be read"):
        return size_of(file), os.fstat(file).st_mtime_ns if is_file else 0


class _Earlier:
    """The earlier copy: its chunks, and whether they can stand for what is not read."""

    def __init__(self, vault: OpenVault, tree: str | None) -> None:
        self._index, self._tree, self._node = vault.index(), tree, None
        if tree is not None:
            try:
                nodes = BlobReader(vault.files, self._index).tree(bytes.fromhex(tree))
            except IntegrityError as wrong:
                _log.warning("the earlier copy cannot be compared with: %s", wrong)
                nodes = []
            self._node = nodes[0] if [(node.name, node.type) for node in nodes] == [(NAME, FILE)] else None
        self.content = bytes(self._node.content) if self._node else b""

    @property
    def chunk_size(self) -> int | None:
        """Bytes per chunk, when the copy has several and they are ours."""
        size = _size(self._index, self.content[:ID_BYTES]) if len(self.content) > ID_BYTES else None
        return size if size and size % PAGE_BYTES == 0 and size <= LARGEST_CHUNK_BYTES else None

    def chunks_to_read(self, size: int, step: int, changed: ChangedList | None) -> tuple[bytearray | None, str | None]:
        """One byte per chunk, 0 where the earlier copy's id holds; None and a reason where everything is to be read."""
        if changed is None:
            return None, None
        why = self._why_not(size, step, changed)
        if why is None:
            touched = chunks_of(changed.extents, size, step)
            if self._holds(size, step, touched):
                return touched, None
            why = "the vault no longer holds every chunk of the earlier copy, or they are of another size"
        _log.warning("the changed-block list is not used, everything is read: %s", why)
        return None, why

    def _why_not(self, size: int, step: int, changed: ChangedList) -> str | None:
        if self._node is None or changed.since != self._tree:
            return f"it begins at tree {changed.since[:16]}, which is not the earlier copy given"
        if not size == self._node.size == changed.size_bytes:
            return f"it is of {changed.size_bytes} bytes, the earlier copy of {self._node.size}, the device of {size}"
        if len(self.content) != -(-size // step) * ID_BYTES:
            return f"the earlier copy has chunks of another size than {step} bytes"
        return None

    def _holds(self, size: int, step: int, touched: bytearray) -> bool:
        return all(
            _size(self._index, self.content[number * ID_BYTES : (number + 1) * ID_BYTES])
            == min(step, size - number * step)
            for number, is_touched in enumerate(touched)
            if not is_touched
        )


def _size(index: Index, blob_id: bytes) -> int | None:
    found = index.find(BlobKind.DATA, blob_id)
    return found[1].size_bytes if found else None


Piece = list[tuple[int, int]]
"""Offsets and lengths of neighbouring chunks."""


class _Device:
    """One run of ``archive_device``: workers take piece after piece, each into buffers of its own."""

    def __init__(self, file: int, path: Path, size: int, step: int, writer: BlobWriter, tally: Tally) -> None:
        self._file, self._path, self._size, self._step = file, path, size, step
        self._writer, self._tally = writer, tally
        self._guard = threading.Lock()
        self._failed = threading.Event()
        self.read_bytes = 0

    def run(self, earlier: bytes, wanted: bytearray | None) -> bytearray:
        """The ids of all chunks end to end; those that are not wanted are the earlier copy's."""
        self._ids = bytearray(earlier or bytes(-(-self._size // self._step) * ID_BYTES))
        self._pieces = _joined(self._to_read(wanted))
        self._direct = DirectFile(os.dup(self._file), os.O_RDONLY)
        workers = min(cores(), MOST_WORKERS)
        try:
            with (
                ThreadPoolExecutor(workers, thread_name_prefix="read device") as self._readers,
                ThreadPoolExecutor(workers, thread_name_prefix="store device") as pool,
            ):
                futures = [pool.submit(self._work) for _ in range(workers)]
                try:
                    wait(futures)
                except BaseException:
                    self._failed.set()
                    raise
                for future in futures:
                    future.result()
        finally:
            self._direct.close()
        return self._ids

    def _to_read(self, wanted: bytearray | None) -> Iterator[tuple[int, int]]:
        """Offset and length of every chunk that must be read; holes of a file, which are known, are dealt with here."""
        for offset, length, is_hole in holes(self._file, self._size, self._step):
            if wanted is not None and not wanted[offset // self._step]:
                self._tally.add(data_bytes=length)
            elif is_hole:
                self._put(offset, length, self._writer.save(BlobKind.DATA, zeros(length), zero_id(length)))
            else:
                yield offset, length

    def _work(self) -> None:
        buffer, other = (aligned_buffer(max(self._step, PIECE_BYTES)) for _ in range(2))
        try:
            ahead = self._begin(buffer)
            while ahead is not None:
                piece, read = ahead
                read.result()
                ahead = self._begin(other)
                self._store(piece, buffer)
                buffer, other = other, buffer
        except BaseException:
            self._failed.set()
            raise

    def _begin(self, buffer: memoryview) -> tuple[Piece, Future[None]] | None:
        """Take the next piece and have it read; None when there is none, or this run has failed elsewhere."""
        if self._failed.is_set():
            return None
        with self._guard, translated(f"{self._path} cannot be read"):
            piece = next(self._pieces, None)
        return None if piece is None else (piece, self._readers.submit(self._read, piece, buffer))

    def _read(self, piece: Piece, buffer: memoryview) -> None:
        offset, length = piece[0][0], sum(length for _, length in piece)
        with translated(f"{self._path} cannot be read at byte {offset}"):
            done = self._direct.read(offset, length, buffer)
        if done < length:
            raise TransferFailed(f"{self._path} ends at byte {offset + done}, {self._size} were there before")
        with self._guard:
            self.read_bytes += done

    def _store(self, piece: Piece, buffer: memoryview) -> None:
        first = piece[0][0]
        for offset, length in piece:
            chunk = buffer[offset - first : offset - first + length]
            known = zero_id(length) if is_zero(chunk) else None
            self._put(offset, length, self._writer.save(BlobKind.DATA, chunk, known))

    def _put(self, offset: int, length: int, blob_id: bytes) -> None:
        start = offset // self._step * ID_BYTES
        self._ids[start : start + ID_BYTES] = blob_id
        self._tally.add(data_bytes=length)


def _joined(chunks: Iterator[tuple[int, int]]) -> Iterator[Piece]:
    """Neighbouring chunks together, as many as are read at once."""
    piece, end = Piece(), 0
    for offset, length in chunks:
        if piece and (offset != end or offset + length - piece[0][0] > PIECE_BYTES):
            yield piece
            piece = []
        piece.append((offset, length))
        end = offset + length
    if piece:
        yield piece
