"""Makes the data that is measured: database-like files and many small ones, the same for every tool."""

from __future__ import annotations

import os
import random
from pathlib import Path

MIB = 1 << 20
WORDS = [b"order", b"customer", b"shipped", b"pending", b"berlin", b"lagos", b"osaka", b"quito", b"invoice", b"total"]


def page(rng: random.Random) -> bytes:
    """One MiB of heap-like pages: random ids beside skewed text, about 3:1 compressible."""
    out = bytearray()
    while len(out) < MIB:
        out += rng.randbytes(16)
        out += b" ".join(rng.choices(WORDS, weights=range(len(WORDS), 0, -1), k=8))
    return bytes(out[:MIB])


def database(folder: Path, size_bytes: int) -> None:
    """Four files of equal size: heap pages, sorted integers, random bytes, and text with holes of zeros."""
    rng = random.Random(7)
    folder.mkdir(parents=True)
    heap = [page(rng) for _ in range(16)]
    count = max(1, size_bytes // 4 // MIB)
    with (folder / "heap").open("wb") as out:
        for number in range(count):
            out.write(heap[number % 16][: MIB - 4096] + rng.randbytes(4096))
    with (folder / "index").open("wb") as out:
        for number in range(count):
            out.write(b"".join((number * 131072 + i).to_bytes(8, "little") for i in range(131072)))
    with (folder / "random").open("wb") as out:
        for _ in range(count):
            out.write(os.urandom(MIB))
    with (folder / "text").open("wb") as out:
        for number in range(count):
            out.write(bytes(MIB) if number % 4 == 0 else page(rng))


def change(folder: Path, share: float) -> None:
    """Overwrite that share of every file in place, as whole MiB regions at 8 KiB borders."""
    rng = random.Random(11)
    for path in sorted(folder.iterdir()):
        size = path.stat().st_size
        with path.open("r+b") as out:
            for _ in range(max(1, int(size * share / MIB))):
                out.seek(rng.randrange(0, max(1, size - MIB), 8192))
                out.write(page(rng))


def small(folder: Path, count: int) -> None:
    """Files of log-normal size (median 4 KiB, at most 256 KiB) in folders of a hundred, most of them text."""
    rng = random.Random(13)
    text = page(rng)
    for number in range(count):
        parent = folder / f"{number // 100:04d}"
        parent.mkdir(parents=True, exist_ok=True)
        size = min(256 << 10, int(rng.lognormvariate(8.3, 1.2)))
        start = rng.randrange(0, MIB - size)
        body = text[start : start + size] if rng.random() < 0.8 else rng.randbytes(size)
        (parent / f"{number:06d}").write_bytes(body)
