"""Content-defined chunks: the same cuts for ever, every byte once, and insertions that change little."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vault.archive import archive
from vault.content_defined import LARGEST_BYTES, PIECE_BYTES, SMALLEST_BYTES, chunks, seed_of
from vault.extract import extract
from vault.repository import OpenVault
from vault.sealing import MasterKey
from vault.tally import Tally

MIB = 1 << 20


@pytest.fixture
def cut(tmp_path: Path) -> Callable[[bytes, int], list[bytes]]:
    """Cuts bytes, and sees that the chunks are those bytes in sizes that may be."""

    def work(body: bytes, seed: int = 1) -> list[bytes]:
        path = tmp_path / "file"
        path.write_bytes(body)
        file = os.open(path, os.O_RDONLY)
        found = [bytes(chunk) for chunk in chunks(file, seed)]
        os.close(file)
        assert b"".join(found) == body
        assert all(SMALLEST_BYTES <= len(chunk) <= LARGEST_BYTES for chunk in found[:-1])
        assert all(0 < len(chunk) <= LARGEST_BYTES for chunk in found)
        return found

    return work


def _text(size: int) -> bytes:
    rng = random.Random(5)
    return b"".join(b"%d %s\n" % (n, rng.randbytes(12).hex().encode()) for n in range(size // 32))[:size]


def test_the_cuts_stay_where_they_are(cut: Callable[[bytes, int], list[bytes]]) -> None:
    """Golden: a library that cuts elsewhere would store everything again."""
    lengths = [len(chunk) for chunk in cut(_text(16 * MIB), 7)]
    assert sha256(repr(lengths).encode()).hexdigest()[:16] == "abe19d35521985be", lengths


def test_an_insertion_changes_few_chunks(cut: Callable[[bytes, int], list[bytes]]) -> None:
    """Seventeen bytes at the front and a line in the middle of 32 MiB; fixed chunks would share none."""
    body = random.Random(2).randbytes(32 * MIB)
    before = {sha256(chunk).digest() for chunk in cut(body, 1)}
    changed = b"seventeen bytes!\n" + body[: 15 * MIB] + b"a line\n" + body[15 * MIB :]
    after = {sha256(chunk).digest() for chunk in cut(changed, 1)}
    assert len(after - before) <= 4
    assert len(before) > 20


def test_each_vault_cuts_elsewhere(cut: Callable[[bytes, int], list[bytes]]) -> None:
    """By its key, and always in the same places."""
    one, other = MasterKey(b"a" * 32, b"b" * 16, b"c" * 16), MasterKey(b"d" * 32, b"b" * 16, b"c" * 16)
    body = random.Random(3).randbytes(8 * MIB)
    assert cut(body, seed_of(one)) == cut(body, seed_of(one))
    assert not set(cut(body, seed_of(one))) & set(cut(body, seed_of(other)))
    assert 0 <= seed_of(one) < 1 << 63


def test_zeros_and_small_files(cut: Callable[[bytes, int], list[bytes]]) -> None:
    """Nothing, one byte, less than the smallest chunk, and zeros."""
    assert cut(b"", 1) == []
    assert cut(b"x", 1) == [b"x"]
    assert len(cut(bytes(SMALLEST_BYTES), 1)) == 1
    assert [len(chunk) for chunk in cut(bytes(9 * MIB), 1)] == [4 * MIB, 4 * MIB, MIB]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(0, 6 * MIB), seed=st.integers(0, (1 << 63) - 1), content=st.integers(0, 3))
def test_every_byte_is_in_one_chunk(
    cut: Callable[[bytes, int], list[bytes]], size: int, seed: int, content: int
) -> None:
    """Whatever the size and seed; ``cut`` sees to it."""
    assert sum(map(len, cut(random.Random(content).randbytes(size), seed))) == size


def test_a_volume_cut_by_content(vault: OpenVault, tmp_path: Path) -> None:
    """An insertion at the front of a file of two pieces stores little, and both copies come back whole."""
    rng, source, out = random.Random(9), tmp_path / "source", tmp_path / "out"
    source.mkdir()
    body = rng.randbytes(8 * MIB) + bytes(PIECE_BYTES) + rng.randbytes(8 * MIB)
    (source / "dump").write_bytes(body)
    first = archive(vault, source, Tally(), by_content=True)
    (source / "dump").write_bytes(b"one line more\n" + body)
    second = archive(vault, source, Tally(), parent=first.tree, by_content=True)
    assert 0 < second.added_bytes < 0.4 * first.added_bytes
    for done, expected in ((first, body), (second, b"one line more\n" + body)):
        out.mkdir()
        extract(vault, done.tree, out, Tally())
        assert (out / "dump").read_bytes() == expected
        shutil.rmtree(out)
