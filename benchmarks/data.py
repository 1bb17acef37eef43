"""Makes the data that is measured, the same for every tool and every run: database-like files, small files, a device.

A gigabyte takes about five seconds: rows are joined from phrases drawn once.
"""

from __future__ import annotations

import os
import random
from array import array
from collections.abc import Callable
from pathlib import Path

MIB = 1 << 20
PAGE_BYTES = 8192
WORDS = [b"order", b"customer", b"shipped", b"pending", b"berlin", b"lagos", b"osaka", b"quito", b"invoice", b"total"]
_WEIGHTS = range(len(WORDS), 0, -1)
_ID_BYTES = 16
_ROWS = 16384
"""In one MiB, and some more: a row is an id, two phrases of four words, and a space; about 72 bytes."""


def _phrases() -> list[bytes]:
    rng = random.Random(5)
    return [b" ".join(rng.choices(WORDS, weights=_WEIGHTS, k=4)) + b" " for _ in range(1 << 16)]


_PHRASES = _phrases()


def page(rng: random.Random) -> bytes:
    """One MiB of heap-like rows: random ids beside skewed text, about 3:1 compressible."""
    ids = rng.randbytes(_ID_BYTES * _ROWS)
    phrases = iter(map(_PHRASES.__getitem__, array("H", rng.randbytes(4 * _ROWS))))
    rows = (ids[at : at + _ID_BYTES] + next(phrases) + next(phrases) for at in range(0, len(ids), _ID_BYTES))
    return b"".join(rows)[:MIB]


def _integers(number: int) -> bytes:
    return array("Q", range(number * MIB // 8, (number + 1) * MIB // 8)).tobytes()


def database(folder: Path, size_bytes: int) -> None:
    """Four files of equal size: heap pages, sorted integers, random bytes, and text of which a quarter is zeros."""
    rng = random.Random(7)
    folder.mkdir(parents=True)
    files: dict[str, Callable[[int], bytes]] = {
        "heap": lambda _: page(rng),
        "index": _integers,
        "random": lambda _: rng.randbytes(MIB),
        "text": lambda number: bytes(MIB) if number % 4 == 0 else page(rng),
    }
    for name, content in files.items():
        with (folder / name).open("wb") as out:
            for number in range(max(1, size_bytes // len(files) // MIB)):
                out.write(content(number))


def change(path: Path, share: float, seed: int) -> None:
    """Overwrite that share of a file or device in place, or of every file of a folder: whole MiB at 8 KiB borders.

    Another ``seed`` is another change.
    """
    rng = random.Random(seed)
    for each in sorted(path.iterdir()) if path.is_dir() else [path]:
        with each.open("r+b") as out:
            size = out.seek(0, os.SEEK_END)
            for _ in range(max(1, int(size * share / MIB))):
                out.seek(rng.randrange(0, max(1, size - MIB), PAGE_BYTES))
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


def rewrite(folder: Path, share: float, seed: int) -> None:
    """Give that share of the files below a folder 200 new bytes each, at their beginning."""
    rng = random.Random(seed)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in rng.sample(files, max(1, int(len(files) * share))):
        with path.open("r+b") as out:
            out.write(rng.randbytes(200))


def device(path: Path, size_bytes: int, share: float) -> None:
    """Fill that share of a device, or of a sparse file that is made: whole MiB, a quarter of them random bytes."""
    rng = random.Random(17)
    if not path.exists():
        path.touch()
        os.truncate(path, size_bytes)
    places = range(size_bytes // MIB)
    with path.open("r+b") as out:
        for number in sorted(rng.sample(places, max(1, int(len(places) * share)))):
            out.seek(number * MIB)
            out.write(rng.randbytes(MIB) if number % 4 == 0 else page(rng))
