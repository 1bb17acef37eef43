"""Whether a restored folder holds what the source holds, byte for byte."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from benchmarks.spent import Failed

BLOCK = 1 << 20


def sizes(top: Path) -> dict[str, int | None]:
    """Of everything below a folder, by relative path: the size of a file, None for a folder."""
    found: dict[str, int | None] = {}
    for path in top.rglob("*"):
        about = path.lstat()
        found[str(path.relative_to(top))] = about.st_size if stat.S_ISREG(about.st_mode) else None
    return found


def compare_folders(source: Path, target: Path, *, is_whole: bool) -> None:
    """Names and sizes, and every byte if ``is_whole``.

    Raises:
        Failed: They differ; the message names the first path.
    """
    wanted, found = sizes(source), sizes(target)
    if wanted != found:
        odd = min(name for name in wanted.keys() | found.keys() if wanted.get(name, -1) != found.get(name, -1))
        raise Failed(f"{odd}: restored as {found.get(odd, 'absent')}, was {wanted.get(odd, 'absent')} (bytes)")
    for name, size in wanted.items():
        if is_whole and size:
            compare_bytes(source / name, target / name)


def compare_bytes(source: Path, target: Path) -> None:
    """Two files or devices.

    Raises:
        Failed: They differ; the message names the place.
    """
    at = 0
    with source.open("rb", buffering=0) as wanted, target.open("rb", buffering=0) as found:
        ends = wanted.seek(0, os.SEEK_END), found.seek(0, os.SEEK_END)
        if ends[0] != ends[1]:
            raise Failed(f"{source.name}: restored as {ends[1]} bytes, was {ends[0]}")
        wanted.seek(0)
        found.seek(0)
        while block := wanted.read(BLOCK):
            if found.read(len(block)) != block:
                raise Failed(f"{source.name}: restored with other bytes, the first in the MiB at {at}")
            at += len(block)
