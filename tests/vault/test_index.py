"""The index: a dictionary, whatever its size; and what is in each pack."""

from __future__ import annotations

import os
from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from vault.blobs import BlobKind, PackedBlob
from vault.index import Index, encode_index
from vault.sealing import OVERHEAD

Packs = list[tuple[bytes, list[PackedBlob]]]
SOME_IDS = [sha256(bytes([number])).digest() for number in range(60)]
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


@given(some_packs, in_memory)
def test_the_index_is_a_dictionary(listed: Packs, memory_blobs: int) -> None:
    """Pack by pack, as a writer adds them."""
    index = Index(memory_blobs)
    for pack, blobs in listed:
        index.add(pack, blobs)
    compare(index, listed)


@given(st.lists(some_packs, max_size=4), in_memory, st.booleans())
def test_index_files_say_the_same(files: list[Packs], memory_blobs: int, is_settled: bool) -> None:
    """As a reader takes them in."""
    index = Index(memory_blobs)
    for listed in files:
        index.add_file(encode_index(listed))
    if is_settled:
        index.settle()
    compare(index, [each for listed in files for each in listed])


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
