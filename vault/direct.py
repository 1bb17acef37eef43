"""Reading and writing past the page cache (open(2), O_DIRECT), where the file system can; elsewhere through it.

The cache would have to find as much memory as is moved, and to be emptied before a restore may be called done: 2 GiB
cost 2.4 s of system time and 0.8 s of waiting at the end that way, and 0.3 s this way. Reading 2 GiB of a loop device
took 4.7 s through the cache, and 0.3 s past it.
"""

from __future__ import annotations

import errno
import mmap
import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from vault.chunking import PAGE_BYTES
from vault.placing import write_all

BUFFER_BYTES = 1 << 20
_BUFFERS = 3


def aligned_buffer(size: int = BUFFER_BYTES) -> memoryview:
    """Memory that the kernel itself reads into and writes from; at least that many bytes, in whole pages."""
    return memoryview(mmap.mmap(-1, _whole_pages(size)))


def _whole_pages(size: int) -> int:
    return -(-size // PAGE_BYTES) * PAGE_BYTES


class DirectFile:
    """An open file or device of which pieces are read or written, by several threads if each has a buffer of its own.

    ``file`` was opened with one of ``os.O_RDONLY``, ``os.O_WRONLY`` and ``os.O_RDWR`` (``access``) and is taken over.
    """

    def __init__(self, file: int, access: int) -> None:
        self._file = file
        self._direct = -1
        with suppress(OSError):  # this file system has no such thing, or there is no /proc
            # the same file whatever bears its name by now (proc(5)); and O_EXCL may not be asked of a device twice
            how = access | os.O_NONBLOCK | os.O_CLOEXEC | os.O_DIRECT
            self._direct = os.open(f"/proc/self/fd/{file}", how)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._file)
        if self._direct >= 0:
            os.close(self._direct)

    def read(self, offset: int, length: int, buffer: memoryview) -> int:
        """Fill the begin of an aligned buffer; how many bytes there were, which is less only at the end.

        Raises:
            OSError: They cannot be read.
        """
        done = self._read_aligned(offset, buffer[: _whole_pages(length)])
        if done >= length:
            return length
        while done < length and (read := os.preadv(self._file, [buffer[done:length]], offset + done)):
            done += read
        if self._direct < 0:
            os.posix_fadvise(self._file, offset, length, os.POSIX_FADV_DONTNEED)  # leave the node its page cache
        return done

    def _read_aligned(self, offset: int, buffer: memoryview) -> int:
        if self._direct < 0 or offset % PAGE_BYTES:
            return 0
        try:
            return os.preadv(self._direct, [buffer], offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return 0  # it wants more than whole pages

    def is_direct(self, offset: int, piece: memoryview, buffer: memoryview) -> bool:
        """Whether a piece can be written from the buffer, past the cache."""
        is_aligned = offset % PAGE_BYTES == 0 and len(piece) % PAGE_BYTES == 0
        return self._direct >= 0 and is_aligned and len(piece) <= len(buffer)

    def write(self, offset: int, piece: memoryview, buffer: memoryview) -> None:
        """Write a piece by way of an aligned buffer.

        Raises:
            OSError: It cannot be written.
        """
        for start in range(0, len(piece), len(buffer)):
            part = piece[start : start + len(buffer)]
            if self.is_direct(offset + start, part, buffer):
                buffer[: len(part)] = part
                self.write_aligned(offset + start, buffer[: len(part)])
            else:
                write_all(self._file, offset + start, part)

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
    """Aligned buffers, and a thread that writes them while others are filled. Not thread-safe."""

    def __init__(self) -> None:
        self._buffers = [aligned_buffer() for _ in range(_BUFFERS)]
        self._under_way: list[Future[None] | None] = [None] * _BUFFERS
        self._next = 0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write past the cache")

    def write(self, file: DirectFile, offset: int, piece: memoryview) -> None:
        """Write a piece now or soon; ``drain`` before anybody is told that it is written.

        Raises:
            OSError: It, or an earlier one, cannot be written.
        """
        number = self._next
        self._settle(number)
        if not file.is_direct(offset, piece, self._buffers[number]):
            file.write(offset, piece, self._buffers[number])
            return
        self._next = (self._next + 1) % _BUFFERS
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
