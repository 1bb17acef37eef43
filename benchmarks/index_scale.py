"""The index at scale: what a lookup costs and what a blob takes, in memory and spilled to disk.

Usage: python -m benchmarks.index_scale [--blobs N ...] [--json FILE]. Each size in a process of its own; the index is
fed with index files as the vault stores them, made on the fly.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import operator
import random
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256, shake_128
from pathlib import Path
from time import perf_counter
from typing import Any

from vault.blob_table import MEMORY_BLOBS
from vault.blobs import ID_BYTES, BlobKind
from vault.index import Index, join_packs

FILE_BLOBS = 50_000
"""A full index file, as restic and we close them."""
LOOKUPS = 20_000
_REST = '","type":"%s","offset":%d,"length":%d,"uncompressed_length":%d}'


@dataclass(frozen=True)
class Shape:
    """What a simulated vault holds. One pack of ``trees_each`` holds trees; 0: none does."""

    blobs: int
    blobs_each_pack: int
    blob_bytes: int
    trees_each: int = 0
    memory_blobs: int = MEMORY_BLOBS


@dataclass(frozen=True)
class Scaled:
    """What one process saw; memory in bytes, times in seconds, the last two in nanoseconds for each lookup."""

    blobs: int
    packs: int
    base_bytes: int
    peak_bytes: int
    disk_bytes: int
    fed_seconds: float
    made_seconds: float
    hit_ns: float
    miss_ns: float


def blob_ids(shape: Shape, pack: int) -> bytes:
    """The ids of a simulated pack's blobs, end to end: all at once, since making them must not outlast their use."""
    return shake_128(struct.pack("<Q", pack)).digest(ID_BYTES * shape.blobs_each_pack)


def blob_id(shape: Shape, number: int) -> bytes:
    """The id of a simulated blob."""
    pack, place = divmod(number, shape.blobs_each_pack)
    return blob_ids(shape, pack)[place * ID_BYTES : (place + 1) * ID_BYTES]


def pack_id(number: int) -> bytes:
    """The id of a simulated pack."""
    return sha256(struct.pack("<Q", number)).digest()


def files(shape: Shape) -> Iterator[bytes]:
    """Index files of that many blobs, one after the other."""
    texts, listed = list[bytes](), 0
    size, each = shape.blob_bytes, shape.blobs_each_pack
    rests = {kind: [_REST % (kind.value, place * size, size, 2 * size) for place in range(each)] for kind in BlobKind}
    for pack in range(-(-shape.blobs // each)):
        count = min(each, shape.blobs - pack * each)
        ids = blob_ids(shape, pack).hex()
        named = (ids[start : start + 2 * ID_BYTES] for start in range(0, count * 2 * ID_BYTES, 2 * ID_BYTES))
        blobs = '{"id":"' + ',{"id":"'.join(map(operator.add, named, rests[kind_of(shape, pack * each)]))
        texts.append(b'{"id":"%s","blobs":[%s]}' % (pack_id(pack).hex().encode(), blobs.encode()))
        listed += count
        if listed >= FILE_BLOBS:
            yield join_packs(texts)
            texts, listed = [], 0
    yield join_packs(texts)


def kind_of(shape: Shape, number: int) -> BlobKind:
    """The kind of a simulated blob."""
    pack = number // shape.blobs_each_pack
    return BlobKind.TREE if shape.trees_each and pack % shape.trees_each == 0 else BlobKind.DATA


def measure(shape: Shape) -> Scaled:
    """Feed an index, ask it for what it holds and for what it does not, in this very process.

    Raises:
        AssertionError: It says something else than it was fed.
    """
    base = _status("VmRSS")
    index, made, began = Index(shape.memory_blobs), 0.0, perf_counter()
    source = files(shape)
    while True:
        begun = perf_counter()
        text = next(source, None)
        made += perf_counter() - begun
        if text is None:
            break
        index.add_file(text)
    index.settle()
    fed = perf_counter() - began - made
    assert len(index) == shape.blobs
    numbers = random.Random(1).choices(range(shape.blobs), k=LOOKUPS)
    known = [(kind_of(shape, number), blob_id(shape, number)) for number in numbers]
    for number, (kind, wanted) in zip(numbers, known, strict=True):
        found, place = index.find(kind, wanted) or (b"", None), number % shape.blobs_each_pack
        assert found[0] == pack_id(number // shape.blobs_each_pack)
        assert found[1] is not None
        assert (found[1].id, found[1].offset) == (wanted, place * shape.blob_bytes)
    unknown = [(kind, sha256(wanted).digest()) for kind, wanted in known]
    hits, hit_ns = _timed(index, known)
    misses, miss_ns = _timed(index, unknown)
    assert (hits, misses) == (LOOKUPS, 0)
    packs = sum(1 for _ in index.packs())
    return Scaled(shape.blobs, packs, base, _status("VmHWM"), disk_bytes(), fed, made, hit_ns, miss_ns)


def _timed(index: Index, wanted: list[tuple[BlobKind, bytes]]) -> tuple[int, float]:
    begun = perf_counter()
    found = sum(index.has(kind, wanted_id) for kind, wanted_id in wanted)
    return found, (perf_counter() - begun) * 1e9 / len(wanted)


def _status(field: str) -> int:
    """Memory of this process in bytes, as the kernel tells it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))


def disk_bytes() -> int:
    """What this process's files without names take: those the index made."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            if link.readlink().name.endswith("(deleted)"):
                found += link.stat().st_size
        except OSError:  # the one that lists the folder itself
            continue
    return found


def _send(pipe: Any, shape: Shape) -> None:
    for module in ("vault.mover", "providers.object_stores.s3"):  # as large as a mover is before it does anything
        importlib.import_module(module)
    pipe.send(measure(shape))


def in_a_child(shape: Shape) -> Scaled:
    """``measure`` in a fresh interpreter.

    Raises:
        EOFError: It failed; its traceback is on standard error.
    """
    context = multiprocessing.get_context("spawn")  # a fork would begin with this process's memory
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(there, shape))
    process.start()
    there.close()
    try:
        found: Scaled = here.recv()
    finally:
        process.join()
    return found


def show(found: Scaled) -> None:
    """Two lines."""
    peak, base, disk = (each / 1e6 for each in (found.peak_bytes, found.base_bytes, found.disk_bytes))
    print(f"{found.blobs:,} blobs in {found.packs:,} packs: peak {peak:.1f} MB, {base:.1f} of them before, ", end="")
    print(f"{(peak - base) * 1e6 / found.blobs:.2f} bytes a blob; {disk * 1e6 / found.blobs:.1f} bytes a blob on disk")
    print(f"    {found.fed_seconds:.1f} s to take in ({found.fed_seconds * 1e6 / found.blobs:.2f} us a blob), ", end="")
    print(f"a lookup {found.hit_ns:.0f} ns, of what is not there {found.miss_ns:.0f} ns", flush=True)


def main() -> None:
    """Measure several sizes; print, and write JSON when asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--blobs", type=int, nargs="+", default=[50_000, 400_000, 1_000_000, 3_000_000])
    parser.add_argument("--blobs-each-pack", type=int, default=16)
    parser.add_argument("--blob-bytes", type=int, default=1 << 19, help="as stored")
    parser.add_argument("--trees-each", type=int, default=0, help="one pack of so many holds trees")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    print(f"temporary files in {tempfile.gettempdir()}; {MEMORY_BLOBS:,} blobs of a kind stay in memory")
    results = []
    for blobs in args.blobs:
        results.append(in_a_child(Shape(blobs, args.blobs_each_pack, args.blob_bytes, args.trees_each)))
        show(results[-1])
    if args.json:
        args.json.write_text(json.dumps([asdict(each) for each in results], indent=2))


if __name__ == "__main__":
    main()
