"""Writing large files past the page cache (open(2), O_DIRECT), where the file system can; elsewhere through it.

The cache would have to find as much memory as is restored, and to be emptied before the restore may be called done:
2 GiB cost 2.4 s of system time and 0.8 s of waiting at the end that way, and 0.3 s this way.
"""

from __future__ import annotations

import errno
import mmap
import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from vault.chunking import PAGE_BYTES
from vault.placing import write_all

_BUFFER_BYTES = 1 << 20
_BUFFERS = 3


class DirectFile:
    """An open file, written in pieces; ``drain`` before anybody is told that they are written. Not thread-safe."""

    def __init__(self, folder: int, name: bytes) -> None:
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._file = os.open(name, flags, dir_fd=folder)
        self._direct = -1
        with suppress(OSError):  # this file system has no such thing
            self._direct = os.open(name, flags | os.O_DIRECT, dir_fd=folder)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._file)
        if self._direct >= 0:
            os.close(self._direct)

    def write(self, offset: int, piece: memoryview, writer: DirectWriter) -> None:
        """Write a piece now or soon.

        Raises:
            OSError: It, or an earlier one, cannot be written.
        """
        is_aligned = offset % PAGE_BYTES == 0 and len(piece) % PAGE_BYTES == 0
        if self._direct < 0 or not is_aligned or len(piece) > _BUFFER_BYTES:
            write_all(self._file, offset, piece)
        else:
            writer.submit(self, offset, piece)

    def write_aligned(self, offset: int, piece: memoryview) -> None:
        """Write from an aligned buffer; through the cache if the file system wants more than that."""
        try:
            done = os.pwrite(self._direct, piece, offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            done = 0
        if done < len(piece):
            write_all(self._file, offset + done, piece[done:])


class DirectWriter:
    """Buffers that the kernel takes from (aligned to pages), and a thread that writes them while others are filled."""

    def __init__(self) -> None:
        self._buffers = [memoryview(mmap.mmap(-1, _BUFFER_BYTES)) for _ in range(_BUFFERS)]
        self._under_way: list[Future[None] | None] = [None] * _BUFFERS
        self._next = 0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write past the cache")

    def submit(self, file: DirectFile, offset: int, piece: memoryview) -> None:
        """Copy a piece into the next buffer and have it written."""
        number, self._next = self._next, (self._next + 1) % _BUFFERS
        self._settle(number)
        buffer = self._buffers[number][: len(piece)]
        buffer[:] = piece
        self._under_way[number] = self._pool.submit(file.write_aligned, offset, buffer)

    def drain(self) -> None:
        """Wait until everything is written.

        Raises:
            OSError: Something could not be.
        """
        for number in range(_BUFFERS):
            self._settle(number)

    def _settle(self, number: int) -> None:
        earlier, self._under_way[number] = self._under_way[number], None
        if earlier is not None:
            earlier.result()

    def close(self) -> None:
        """Let go of the thread."""
        self._pool.shutdown(wait=True)
