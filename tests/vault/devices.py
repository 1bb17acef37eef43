"""Real block devices for tests: loop devices over files, and images with something of everything in them."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

MIB = 1 << 20


@contextmanager
def attached(file: Path) -> Iterator[Path]:
    """The loop device over a file; without the right to have one the test is reported as not run."""
    if os.geteuid() != 0 or shutil.which("losetup") is None:
        pytest.skip("NOT RUN: loop devices need root and losetup")
    made = subprocess.run(["losetup", "-f", "--show", file], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"NOT RUN: no loop device can be had here: {made.stderr.strip()}")
    try:
        yield Path(made.stdout.strip())
    finally:
        subprocess.run(["losetup", "-d", made.stdout.strip()], check=True)


def image(file: Path, chunks: str, *, seed: int = 1, tail: int = 0) -> Path:
    """A file of 1 MiB chunks: ``r`` random, ``t`` text, ``0`` zeros that are written, ``-`` a hole; then a tail."""
    rng = random.Random(seed)
    with file.open("wb") as out:
        for kind in chunks:
            if kind == "-":
                out.seek(MIB, os.SEEK_CUR)
            else:
                text = b"%d select\n" % rng.randrange(1 << 30)
                out.write({"r": rng.randbytes(MIB), "t": (text * MIB)[:MIB], "0": bytes(MIB)}[kind])
        out.truncate(len(chunks) * MIB)
        out.seek(0, os.SEEK_END)
        out.write(rng.randbytes(tail))
    return file


def digest(path: Path, size: int | None = None) -> str:
    """Of the first bytes of a device or file, or of all."""
    with path.open("rb") as file:
        return sha256(file.read() if size is None else file.read(size)).hexdigest()
