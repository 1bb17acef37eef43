"""Reading and writing past the page cache: the same bytes as through it, whatever the place and the length."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from vault.chunking import PAGE_BYTES, is_zero
from vault.direct import BUFFER_BYTES, DirectFile, DirectWriter, aligned_buffer

SIZE = 2 * BUFFER_BYTES + 1234


@pytest.fixture(params=["disk", "memory"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file of random bytes, on a disk and in memory, where older kernels know no O_DIRECT."""
    shared = Path(f"/dev/shm/refloat-test-{os.getpid()}")
    path = shared if request.param == "memory" else tmp_path / "file"
    path.write_bytes(os.urandom(SIZE))
    yield path
    path.unlink()


@pytest.mark.parametrize("offset", [0, PAGE_BYTES, 100, SIZE - 1234, SIZE - 1, SIZE])
def test_what_is_read_is_what_lies_there_and_less_only_at_the_end(path: Path, offset: int) -> None:
    file, buffer = DirectFile(os.open(path, os.O_RDONLY), os.O_RDONLY), aligned_buffer()
    try:
        for length in (1, 1234, PAGE_BYTES, BUFFER_BYTES):
            read = file.read(offset, length, buffer)
            assert bytes(buffer[:read]) == path.read_bytes()[offset : offset + length]
    finally:
        file.close()


@pytest.mark.parametrize("offset", [0, PAGE_BYTES, 100])
@pytest.mark.parametrize("length", [1, PAGE_BYTES, BUFFER_BYTES, BUFFER_BYTES + 3 * PAGE_BYTES, SIZE - 100])
def test_what_is_written_lies_there_and_nothing_else_changed(path: Path, offset: int, length: int) -> None:
    before, piece = path.read_bytes(), os.urandom(length)
    wanted = before[:offset] + piece + before[offset + length :]
    file, writer = DirectFile(os.open(path, os.O_RDWR), os.O_RDWR), DirectWriter()
    try:
        writer.write(file, offset, memoryview(piece))
        writer.drain()
        assert path.read_bytes() == wanted
        path.write_bytes(before)
        file.write(offset, memoryview(piece), aligned_buffer())
        assert path.read_bytes() == wanted
    finally:
        writer.close()
        file.close()


@pytest.mark.parametrize("length", [1, 511, 512, 513, 5000])
def test_zeros_are_known_in_every_kind_of_memory(length: int) -> None:
    for place in {0, length // 2, length - 1}:
        chunk = bytearray(length)
        assert all(map(is_zero, (bytes(chunk), chunk, memoryview(chunk))))
        chunk[place] = 1
        assert not any(map(is_zero, (bytes(chunk), chunk, memoryview(chunk))))
