"""The index: a dictionary, whatever its size; and what is in each pack."""

from __future__ import annotations

import multiprocessing
import os
import resource
import threading
from collections.abc import Callable
from hashlib import sha256
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refloat.errors import IntegrityError, StoreFull
from tests.vault.given import reopened
from vault.blobs import BlobKind, PackedBlob
from vault.files import FileKind
from vault.index import Index, encode_index
from vault.repository import OpenVault
from vault.sealing import OVERHEAD

Packs = list[tuple[bytes, list[PackedBlob]]]
SOME_IDS = [sha256(bytes([number])).digest() for number in range(60)]
SOME_IDS += [blob_id[:8] + os.urandom(24) for blob_id in SOME_IDS[:10]]  # alike in what runs are sorted by
some_blobs = st.builds(
    PackedBlob,
    st.sampled_from(BlobKind),
    st.sampled_from(SOME_IDS),
    st.integers(0, 1 << 31),
    st.integers(OVERHEAD, 1 << 24),
    st.integers(0, 1 << 26),
)
in_memory = st.sampled_from([1, 8, 64, 1 << 20])
"""How many blobs stay in memory: from a file for every pack to none at all."""
some_packs = st.lists(st.tuples(st.sampled_from(SOME_IDS), st.lists(some_blobs, max_size=20)), max_size=30)


def compare(index: Index, listed: Packs) -> None:
    """The index says exactly what was listed, the first place of a blob and the first listing of a pack."""
    packs, places = dict[bytes, list[PackedBlob]](), dict[tuple[BlobKind, bytes], tuple[bytes, PackedBlob]]()
    for pack, blobs in listed:
        if pack not in packs:
            packs[pack] = [blob for kind in BlobKind for blob in blobs if blob.kind is kind]
            for blob in packs[pack]:
                places.setdefault((blob.kind, blob.id), (pack, blob))
    assert list(index.packs()) == list(packs)
    for pack, blobs in packs.items():
        assert index.has_pack(pack)
        assert list(index.blobs_of(pack)) == blobs
        numbered = [(kind, number) for kind in BlobKind for number in index.numbers_of(kind, pack)]
        assert [index.at(kind, number) for kind, number in numbered] == [(pack, blob) for blob in blobs]
        assert index.blobs_end(pack) == max((blob.offset + blob.sealed_bytes for blob in blobs), default=0)
        assert index.pack_bytes(pack) == 36 + sum(b.sealed_bytes + (41 if b.plain_bytes else 37) for b in blobs)
    for kind in BlobKind:
        for blob_id in [*SOME_IDS, os.urandom(32)]:
            assert index.find(kind, blob_id) == places.get((kind, blob_id))
            assert index.has(kind, blob_id) == ((kind, blob_id) in places)
        numbers = [index.number(kind, blob_id) for known, blob_id in places if known is kind]
        assert list(index.numbers(kind)) == sorted(number for number in numbers if number is not None)
        assert all(number < index.count(kind) for number in index.numbers(kind))
    assert len(index) == sum(map(len, packs.values()))
    assert not index.has_pack(os.urandom(32))


@settings(deadline=None)
@given(some_packs, in_memory)
def test_the_index_is_a_dictionary(listed: Packs, memory_blobs: int) -> None:
    """Pack by pack, as a writer adds them."""
    index = Index(memory_blobs)
    for pack, blobs in listed:
        index.add(pack, blobs)
    compare(index, listed)


@settings(deadline=None)
@given(st.lists(some_packs, max_size=4), in_memory, st.booleans())
def test_index_files_say_the_same(files: list[Packs], memory_blobs: int, is_settled: bool) -> None:
    """As a reader takes them in."""
    index = Index(memory_blobs)
    for listed in files:
        index.add_file(encode_index(listed))
    if is_settled:
        index.settle()
    compare(index, [each for listed in files for each in listed])


def test_a_blob_in_very_many_packs_is_found_in_the_first() -> None:
    """More than fit a page; and so is another whose id begins the same."""
    index, common = Index(64), SOME_IDS[0]
    twin = common[:8] + bytes(24)
    for pack in range(700):
        index.add(sha256(b"%d" % pack).digest(), [PackedBlob(BlobKind.DATA, common, pack, 50, 0)])
    index.add(twin, [PackedBlob(BlobKind.DATA, twin, 3, 50, 0)])
    index.settle()
    assert index.number(BlobKind.DATA, common) == 0
    assert index.number(BlobKind.DATA, twin) == 700
    assert list(index.numbers(BlobKind.DATA)) == [0, 700]
    assert index.count(BlobKind.DATA) == 701


def test_the_index_grows_through_many_ids() -> None:
    """Beyond its first size several times over; numbers never change."""
    index, known = Index(), [sha256(number.to_bytes(4, "big")).digest() for number in range(20_000)]
    numbers = dict[bytes, int | None]()
    for number, blob_id in enumerate(known):
        index.add(blob_id, [PackedBlob(BlobKind.DATA, blob_id, number, OVERHEAD, 0)])
        numbers[blob_id] = index.number(BlobKind.DATA, blob_id)
    for number, blob_id in enumerate(known):
        assert index.number(BlobKind.DATA, blob_id) == numbers[blob_id]
        assert index.find(BlobKind.DATA, blob_id) == (blob_id, PackedBlob(BlobKind.DATA, blob_id, number, OVERHEAD, 0))


def numbered(first: int, packs: int) -> Packs:
    """Packs of ten blobs each, told apart by a number."""
    return [
        (
            sha256(f"pack {pack}".encode()).digest(),
            [PackedBlob(BlobKind.DATA, blob_id(pack, place), place * 50, 50, 60) for place in range(10)],
        )
        for pack in range(first, first + packs)
    ]


def blob_id(pack: int, place: int) -> bytes:
    """The id of a blob of ``numbered``."""
    return sha256(f"{pack} {place}".encode()).digest()


def holds(index: Index, listed: Packs) -> bool:
    """Whether it finds all of them at their places."""
    return all(index.find(blob.kind, blob.id) == (pack, blob) for pack, blobs in listed for blob in blobs)


def in_a_fork(work: Callable[[], Any]) -> Any:
    """What the work says in a process that shares all there is."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)

    def tell(pipe: Connection) -> None:
        pipe.send(work())

    process = context.Process(target=tell, args=(there,))
    process.start()
    there.close()
    try:
        return here.recv()
    finally:
        process.join()


def test_threads_read_while_one_adds_and_spills() -> None:
    """Every blob is found from the moment it was added, whatever is being sorted and merged."""
    index, listed, added, wrong, reads = Index(64), numbered(0, 1500), [0], list[object](), [0]
    is_over = threading.Event()

    def read() -> None:
        while not is_over.is_set():
            end = added[0]
            for pack, blobs in listed[max(0, end - 20) : end] + listed[: min(20, end)]:
                reads[0] += 1
                if index.find(BlobKind.DATA, blobs[3].id) != (pack, blobs[3]) or list(index.blobs_of(pack)) != blobs:
                    wrong.append(pack)
            if index.has(BlobKind.DATA, os.urandom(32)):
                wrong.append("found what is not there")

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number, (pack, blobs) in enumerate(listed):
        index.add(pack, blobs)
        added[0] = number + 1
    is_over.set()
    for thread in threads:
        thread.join()
    assert reads[0] > 100
    assert not wrong
    assert holds(index, listed)


def test_forked_workers_add_to_indexes_of_their_own() -> None:
    """What lay on disk before is shared, what each one adds is not, and nobody writes into another's file."""
    index, common, mine, theirs = Index(16), numbered(0, 30), numbered(30, 40), numbered(70, 40)
    for pack, blobs in common:
        index.add(pack, blobs)

    def work() -> tuple[bool, bool, bool]:
        for pack, blobs in theirs:
            index.add(pack, blobs)
        index.settle()
        found = holds(index, common + theirs), any(index.has_pack(pack) for pack, _ in mine)
        return (*found, list(index.packs()) == [pack for pack, _ in common + theirs])

    first = in_a_fork(work)
    for pack, blobs in mine:
        index.add(pack, blobs)
    second = in_a_fork(lambda: holds(index, common + mine))
    assert first == (True, False, True)
    assert second is True
    assert holds(index, common + mine)
    assert not any(index.has_pack(pack) for pack, _ in theirs)
    for pack, blobs in common + mine:
        assert list(index.blobs_of(pack)) == blobs


def test_no_room_for_what_does_not_fit_memory_is_an_error_with_a_name() -> None:
    """Nothing of what was refused is in the index, and when there is room again it goes on."""

    def work() -> Any:
        index, listed, refused, halves = Index(100), numbered(0, 60), 0, 0
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        for number, (pack, blobs) in enumerate(listed):
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000 if number % 20 == 19 else 1 << 20, hard))
            try:
                index.add(pack, blobs)
            except StoreFull as error:
                refused += 1
                said = error.as_json()
                halves += index.has(BlobKind.DATA, blobs[0].id) or index.has_pack(pack) or len(index) != number * 10
                resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
                index.add(pack, blobs)
        return refused, said["message"], said["guidance"], not halves and holds(index, listed)

    refused, message, guidance, is_whole = in_a_fork(work)
    assert refused > 0
    assert "index of the vault does not fit memory" in message
    assert "TMPDIR" in guidance
    assert is_whole


ID, PACK = "ab" * 32, "cd" * 32
BLOB = {"id": ID, "type": "data", "offset": 3, "length": 40, "uncompressed_length": 9}
FORMS = [
    orjson.dumps({"packs": [{"id": PACK, "blobs": [BLOB]}]}),
    orjson.dumps({"packs": [{"id": PACK, "blobs": [BLOB]}]}) + b"\n",
    orjson.dumps({"packs": [{"id": PACK, "blobs": [BLOB]}]}, option=orjson.OPT_INDENT_2),
    orjson.dumps({"supersedes": [ID, PACK], "packs": [{"id": PACK, "blobs": [BLOB]}]}),
    orjson.dumps({"supersedes": [{"packs": []}], "packs": [{"id": PACK, "blobs": [BLOB]}]}),
    orjson.dumps({"packs": [{"blobs": [BLOB], "id": PACK}]}),
    orjson.dumps({"packs": [{"id": PACK, "blobs": [BLOB], "more": {"a": [1]}}], "more": {"packs": [1]}}),
    orjson.dumps({"packs": [{"id": PACK, "blobs": [{**BLOB, "note": "]},"}]}, {"id": PACK, "blobs": []}]}),
    orjson.dumps({"packs": [{"id": PACK, "blobs": [BLOB]}, {"id": PACK, "blobs": [{**BLOB, "id": PACK}]}]}),
    b'{"packs":[1],"packs":%s}' % orjson.dumps([{"id": PACK, "blobs": [BLOB]}]),
    b'{"a":{"packs":[{}]},"packs":%s}' % orjson.dumps([{"id": PACK, "blobs": [BLOB]}]),
]


@pytest.mark.parametrize("text", FORMS)
def test_every_way_of_writing_an_index_file_says_the_same(text: bytes) -> None:
    """Ours and restic's is read pack by pack, any other at once."""
    index = Index()
    index.add_file(text)
    expected = PackedBlob(BlobKind.DATA, bytes.fromhex(ID), 3, 40, 9)
    assert list(index.packs()) == [bytes.fromhex(PACK)]
    assert index.find(BlobKind.DATA, bytes.fromhex(ID)) == (bytes.fromhex(PACK), expected)
    assert len(index) == 1


WRONG = [
    {"offset": -1}, {"offset": 1 << 32}, {"offset": (1 << 32) - 40}, {"offset": 1 << 63}, {"offset": 1.5},
    {"offset": "1"}, {"offset": None}, {"length": 31}, {"length": 1 << 32}, {"length": "40"}, {"length": [40]},
    {"uncompressed_length": -1}, {"uncompressed_length": 1 << 32}, {"uncompressed_length": "9"}, {"type": "date"},
    {"uncompressed_length": None}, {"type": None}, {"type": ["data"]}, {"id": ID[:-2]}, {"id": ID + "00"}, {"id": 7},
    {"id": ID[:-2] + "zz"}, {"id": ID[:-2] + "  "}, {"id": ID[:-1] + "ä"}, {"id": None},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_an_impossible_blob_is_refused_with_its_whole_file(wrong: dict[str, object]) -> None:
    """Also after others that would do; nothing of the file is taken in."""
    index, good = Index(), {"id": ID, "blobs": [BLOB]}
    for text in (
        orjson.dumps({"packs": [good, {"id": PACK, "blobs": [BLOB, {**BLOB, **wrong}]}]}),
        orjson.dumps({"packs": [good, {"id": PACK, "blobs": [{**BLOB, **wrong}]}]}, option=orjson.OPT_INDENT_2),
    ):
        with pytest.raises(IntegrityError, match="index file"):
            index.add_file(text)
    assert len(index) == 0
    assert list(index.packs()) == []
    index.add_file(orjson.dumps({"packs": [good]}))
    assert index.has(BlobKind.DATA, bytes.fromhex(ID))


@pytest.mark.parametrize("pack", ["ab", ID + "00", ID[:-2] + "zz", 7, None, [ID]])
def test_an_impossible_pack_is_refused(pack: object) -> None:
    """Its id has 64 hexadecimal digits."""
    with pytest.raises(IntegrityError, match="index file"):
        Index().add_file(orjson.dumps({"packs": [{"id": pack, "blobs": [BLOB]}]}))


@settings(deadline=None)
@given(st.binary(max_size=30), st.integers(0, 200), st.integers(0, 30))
def test_a_file_that_was_tampered_with_is_an_error_or_an_index(put: bytes, place: int, taken: int) -> None:
    """No other exception, and all of it or nothing."""
    text, index = (
        encode_index([(bytes.fromhex(PACK), [PackedBlob(BlobKind.TREE, bytes.fromhex(ID), 1, 50, 4)])]),
        Index(),
    )
    try:
        index.add_file(text[:place] + put + text[place + taken :])
    except IntegrityError:
        assert len(index) == 0
        assert list(index.packs()) == []


def test_an_index_file_that_says_nonsense_is_named_every_time(vault: OpenVault, place: Path) -> None:
    """One that was read before it is not forgotten when the next attempt succeeds."""
    good = vault.files.write(FileKind.INDEX, FORMS[0])
    bad = vault.files.write(FileKind.INDEX, b'{"packs":[{"id":"7"}]}')
    for _ in range(3):
        with pytest.raises(IntegrityError, match=f"index/{bad}"):
            vault.index()
    (place / "index" / bad).unlink()
    assert vault.index().has(BlobKind.DATA, bytes.fromhex(ID))
    assert reopened(place).index().has(BlobKind.DATA, bytes.fromhex(ID))
    assert (place / "index" / good).exists()


def test_many_index_files_are_read_whatever_their_sizes(vault: OpenVault, place: Path) -> None:
    """Small ones several at a time, large ones one by one; another that comes later is read when asked for."""
    some = [numbered(number * 40, 1 if number % 3 else 40) for number in range(25)]
    for listed in some:
        vault.files.write(FileKind.INDEX, encode_index(listed))
    index = reopened(place).index()
    assert holds(index, [each for listed in some for each in listed])
    late = numbered(5000, 2)
    known = vault.index()
    vault.files.write(FileKind.INDEX, encode_index(late))
    assert not holds(known, late)
    assert holds(vault.index(is_fresh=True), late)
