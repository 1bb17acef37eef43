"""Changed-block lists: a copy by list equals a copy by reading everything, whenever the list covers what changed."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from refloat.errors import InvalidDocument
from refloat.ports.changed_blocks import ChangedList, chunks_of
from refloat.registry import open_object_store
from tests.vault.devices import MIB, attached, digest, image
from tests.vault.given import PASSWORD
from vault.blobs import BlobKind
from vault.chunking import CHUNK_BYTES
from vault.device import NAME, archive_device
from vault.device_extract import extract_device
from vault.nodes import FILE, Node, encode_node, encode_tree
from vault.repository import OpenVault, init
from vault.tally import Tally
from vault.writing import BlobWriter

STEP = 4096
CHUNKS = 24
SIZE = CHUNKS * STEP - 1000
WRITE = st.tuples(st.integers(0, SIZE - 1), st.integers(0, 3 * STEP))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenVault]:
    """One vault for many examples."""
    made = init(open_object_store(f"file://{tmp_path_factory.mktemp('vault') / 'v'}", {}), PASSWORD)
    yield made
    made.close()


def _list(since: str, extents: list[tuple[int, int]], size: int = SIZE) -> ChangedList:
    return ChangedList(since=since, size_bytes=size, extents=tuple(extents))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(writes=st.lists(WRITE, max_size=6), more=st.lists(WRITE, max_size=3), seed=st.integers(0, 5), data=st.data())
def test_a_list_that_covers_all_changes_gives_the_very_copy(
    shared: OpenVault,
    tmp_path: Path,
    writes: list[tuple[int, int]],
    more: list[tuple[int, int]],
    seed: int,
    data: st.DataObject,
) -> None:
    """Extents in any order, overlapping, naming more than changed, split anywhere: the tree is that of a full read,
    and no chunk beyond those the list touches is read.
    """
    device, rng = tmp_path / "device", random.Random(seed)
    body = bytearray(rng.randbytes(SIZE - 5 * STEP) + bytes(5 * STEP))
    device.write_bytes(body)
    first = archive_device(shared, device, Tally(), chunk_size=STEP)
    extents = []
    for offset, length in writes:
        end = min(SIZE, offset + length)
        body[offset:end] = rng.randbytes(end - offset) if rng.random() < 0.8 else bytes(end - offset)
        middle = data.draw(st.integers(offset, end))
        extents += [(offset, middle - offset), (middle, end - middle)]
    extents += [(offset, min(SIZE, offset + length) - offset) for offset, length in more]
    extents = data.draw(st.permutations(extents))
    device.write_bytes(body)
    touched = chunks_of(extents, SIZE, STEP)
    listed = archive_device(shared, device, Tally(), parent=first.tree, changed=_list(first.tree, extents))
    whole = archive_device(shared, device, Tally(), chunk_size=STEP)
    assert (listed.tree, listed.chunk_bytes, listed.why_whole) == (whole.tree, STEP, None)
    assert listed.read_bytes == sum(min(STEP, SIZE - n * STEP) for n, is_touched in enumerate(touched) if is_touched)


def test_what_the_list_leaves_out_is_not_read(shared: OpenVault, tmp_path: Path) -> None:
    """Proof by a device that fails wherever it is not meant to be read: 3 MiB of 64 are."""
    source = image(tmp_path / "source", "r" * 64)
    with attached(source) as device:
        first = archive_device(shared, device, Tally())
        with source.open("r+b") as file:
            file.write(b"changed")
            file.seek(2 * MIB - 1)
            file.write(b"xy")
        whole = source.read_bytes()
        os.truncate(source, 3 * MIB)  # from there on: EIO
        with device.open("rb") as cached:
            os.posix_fadvise(cached.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        tally = Tally()
        extents = [(2 * MIB - 1, 2), (0, 7)]
        changed = _list(first.tree, extents, 64 * MIB)
        second = archive_device(shared, device, tally, parent=first.tree, changed=changed)
    assert (second.read_bytes, tally.bytes_done) == (3 * CHUNK_BYTES, 64 * MIB)
    source.write_bytes(whole)
    out = tmp_path / "out"
    extract_device(shared, second.tree, out, Tally())
    assert digest(out) == digest(source)


def test_a_list_is_believed_only_about_its_own_parent(shared: OpenVault, tmp_path: Path) -> None:
    """Another parent, size or chunk size, or chunks that are gone: everything is read, and the result says why."""
    device = tmp_path / "device"
    device.write_bytes(random.Random(1).randbytes(SIZE))
    first = archive_device(shared, device, Tally(), chunk_size=STEP)
    device.write_bytes(random.Random(2).randbytes(SIZE))
    second = archive_device(shared, device, Tally(), chunk_size=STEP)
    node = Node(NAME, FILE, 0o600, uid=0, gid=0, mtime=0, ctime=0, size=SIZE, links=1)
    node.content = random.Random(3).randbytes(32 * CHUNKS)
    writer = BlobWriter(shared.files, shared.index())
    lost = writer.save(BlobKind.TREE, encode_tree([encode_node(node)])).hex()
    writer.finish()
    for parent, step, changed, why in (
        (first.tree, STEP, _list(second.tree, []), "begins at tree"),
        (None, STEP, _list(first.tree, []), "begins at tree"),
        ("ab" * 32, STEP, _list("ab" * 32, []), "begins at tree"),
        (first.tree, STEP, _list(first.tree, [], SIZE + 1), f"it is of {SIZE + 1} bytes"),
        (first.tree, 2 * STEP, _list(first.tree, []), "chunks of another size"),
        (lost, STEP, _list(lost, [(0, 1)]), "no longer holds every chunk"),
    ):
        done = archive_device(shared, device, Tally(), parent=parent, chunk_size=step, changed=changed)
        assert why in (done.why_whole or "")
        assert done.read_bytes == SIZE
        assert (done.tree == second.tree) == (step == STEP)
    grown = _list(second.tree, [])
    device.write_bytes(device.read_bytes() + bytes(STEP))
    done = archive_device(shared, device, Tally(), parent=second.tree, changed=grown)
    assert (done.read_bytes, done.size_bytes) == (SIZE + STEP, SIZE + STEP)
    assert f"the device of {SIZE + STEP}" in (done.why_whole or "")


def test_extents_that_cannot_be_are_refused(shared: OpenVault, tmp_path: Path) -> None:
    """A list of another volume is no list that is merely ignored: something upstream is wrong."""
    device = tmp_path / "device"
    device.write_bytes(random.Random(1).randbytes(SIZE))
    first = archive_device(shared, device, Tally(), chunk_size=STEP)
    for extent in ((SIZE, 1), (0, SIZE + 1), (1 << 60, 1 << 60)):
        with pytest.raises(InvalidDocument, match=f"{extent[1]} bytes at {extent[0]} of a volume of {SIZE} bytes"):
            archive_device(shared, device, Tally(), parent=first.tree, changed=_list(first.tree, [extent]))
    for extent in ((-1, 5), (5, -1)):
        with pytest.raises(InvalidDocument):
            chunks_of([extent], SIZE, STEP)
    for text in ("[]", "{}", '{"since": "x", "size_bytes": 1, "extents": []}', "[" * 100_000):
        with pytest.raises(ValidationError):
            ChangedList.model_validate_json(text)
    with pytest.raises(ValidationError):
        _list(first.tree, [(-1, 5)])


def test_extents_become_chunks() -> None:
    """At borders, empty, over the end of the last chunk."""
    assert chunks_of([], 10, 4) == bytes(3)
    assert chunks_of([(0, 0), (10, 0), (4, 0)], 10, 4) == bytes(3)
    assert chunks_of([(3, 1)], 10, 4) == b"\x01\x00\x00"
    assert chunks_of([(3, 2)], 10, 4) == b"\x01\x01\x00"
    assert chunks_of([(8, 2), (0, 1)], 10, 4) == b"\x01\x00\x01"
    assert chunks_of([(0, 10)], 10, 4) == b"\x01\x01\x01"
