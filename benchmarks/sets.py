"""The sets of data that are measured, and who is measured on each."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import data

CHANGED = 0.02
WRITTEN = 0.3
"""Share of the device that holds anything."""


@dataclass(frozen=True)
class DataSet:
    """``make`` fills a folder that is not there yet, ``change`` changes a source; the number makes it another change.

    Peers are those whose ratio the issue asks for.
    """

    name: str
    title: str
    make: Callable[[Path], None]
    change: Callable[[Path, int], None]
    peers: tuple[str, ...]
    rounds: int
    is_on_s3: bool = False
    device_bytes: int = 0
    has_many_files: bool = False


@dataclass(frozen=True)
class Sizes:
    """How large the sets are: MiB of the database and of the device, number of small files; rounds of each."""

    big: int
    small: int
    s3_big: int
    s3_small: int
    device: int
    rounds: int
    other_rounds: int


WHOLE = Sizes(big=4096, small=50_000, s3_big=4096, s3_small=50_000, device=4096, rounds=3, other_rounds=3)
QUICK = Sizes(big=256, small=3000, s3_big=128, s3_small=1500, device=256, rounds=3, other_rounds=2)


def data_sets(sizes: Sizes) -> list[DataSet]:
    """All of them, in the order in which they run."""

    def database(name: str, mib: int, peers: tuple[str, ...], rounds: int, *, is_on_s3: bool = False) -> DataSet:
        place = "S3 on loopback" if is_on_s3 else "folder on disk"
        make = partial(data.database, size_bytes=mib * data.MIB)
        title = f"{mib} MiB database-like, {place}; then {CHANGED:.0%} of every file changed in place"
        return DataSet(name, title, make, lambda at, n: data.change(at, CHANGED, n), peers, rounds, is_on_s3)

    def many(name: str, count: int, peers: tuple[str, ...], rounds: int, *, is_on_s3: bool = False) -> DataSet:
        place = "S3 on loopback" if is_on_s3 else "folder on disk"
        title = f"{count} small files, {place}; then 200 new bytes in {CHANGED:.0%} of them"
        make = partial(data.small, count=count)
        return DataSet(
            name, title, make, lambda at, n: data.rewrite(at, CHANGED, n), peers, rounds, is_on_s3, has_many_files=True
        )

    both, others = ("restic", "kopia"), sizes.other_rounds
    return [
        database("big", sizes.big, both, sizes.rounds),
        many("small", sizes.small, both, sizes.rounds),
        database("s3-big", sizes.s3_big, ("restic",), others, is_on_s3=True),
        many("s3-small", sizes.s3_small, ("restic",), others, is_on_s3=True),
        DataSet(
            "device",
            f"raw block device of {sizes.device} MiB, {WRITTEN:.0%} written; then {CHANGED:.0%} changed in place",
            lambda at: data.device(at, sizes.device * data.MIB, WRITTEN),
            lambda at, n: data.change(at, CHANGED, n),
            ("restic",),
            others,
            device_bytes=sizes.device * data.MIB,
        ),
    ]


@contextmanager
def source_of(data_set: DataSet, folder: Path) -> Iterator[tuple[Path, str | None]]:
    """The data, made: a folder, or a device; and a remark when a sparse file stands for the device."""
    path = folder / "source"
    if not data_set.device_bytes:
        data_set.make(path)
        yield path, None
        shutil.rmtree(path)
        return
    path.touch()
    os.truncate(path, data_set.device_bytes)
    found = subprocess.run(["losetup", "--find", "--show", path], capture_output=True, text=True, check=False)
    device = found.stdout.strip()
    if found.returncode:
        data_set.make(path)
        yield path, f"a sparse file stands for the device: {found.stderr.strip() or 'no loop device'}"
    else:
        try:
            data_set.make(Path(device))
            yield Path(device), None
        finally:
            subprocess.run(["losetup", "--detach", device], check=True)
    path.unlink()


def warm_up(data_set: DataSet, source: Path, folder: Path, tools: int) -> None:
    """Write and delete as much as a round writes: the restored data, and a repository of about half of it per tool.

    Memory that a virtual machine touches for the first time costs twice the CPU (``baselines.md``, last table). A few
    large files, for ext4 passes over every inode that was removed in the last minutes before it takes one.
    """
    copies = 1 + (tools + 1) // 2
    held = data_set.device_bytes or sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    paths = [folder / f"warm-{number}" for number in range(copies)]
    for path in paths:
        with path.open("wb") as out:
            for _ in range(held // data.MIB):
                out.write(bytes(data.MIB))
    for path in paths:
        path.unlink()
