"""Encoders and decoders as pairs, by property: what one wrote the other reads, at any size and in any amount."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refloat.errors import IntegrityError
from vault.bits import Bits
from vault.blobs import BlobKind, PackedBlob
from vault.compressing import Compressor
from vault.files import LARGEST_BYTES, FileKind, require_small
from vault.index import Index, encode_index
from vault.keys import make_key_file, open_key_file, work_of
from vault.nodes import FILE, LARGE_TREE_BYTES, Node, decode_tree, encode_node, encode_tree
from vault.packs import decode_header, encode_header
from vault.sealing import OVERHEAD, MasterKey, Sealer
from vault.untrusted import load, weigh

ids = st.binary(min_size=32, max_size=32)
bodies = st.lists(st.tuples(ids, st.integers(OVERHEAD, 1 << 20), st.integers(0, 1 << 22)), min_size=1, max_size=20)


def _packed(kind: BlobKind, listed: list[tuple[bytes, int, int]]) -> list[PackedBlob]:
    """Blobs of one pack, end to end."""
    blobs, offset = [], 0
    for blob_id, sealed, plain in listed:
        blobs.append(PackedBlob(kind, blob_id, offset, sealed, plain))
        offset += sealed
    return blobs


@given(st.dictionaries(ids, st.tuples(st.sampled_from(BlobKind), bodies), max_size=8))
def test_index_files_round_trip(packs: dict[bytes, tuple[BlobKind, list[tuple[bytes, int, int]]]]) -> None:
    """Every pack with all its blobs in order, and the size that it must have."""
    listed = {pack: _packed(kind, blobs) for pack, (kind, blobs) in packs.items()}
    index = Index()
    index.add_file(encode_index(listed.items()))
    assert {pack: list(index.blobs_of(pack)) for pack in index.packs()} == listed
    for pack, blobs in listed.items():
        assert decode_header(encode_header(blobs)) == blobs
        assert index.pack_bytes(pack) == blobs[-1].offset + blobs[-1].sealed_bytes + len(encode_header(blobs)) + 36


@settings(max_examples=8, deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=40), st.text(st.characters(codec="utf-8"), max_size=40))
def test_key_files_open_with_their_password_alone(password: str, other: str) -> None:
    """Any text is a password; another one opens nothing."""
    key = MasterKey.random()
    text = make_key_file(key, password, datetime(2026, 1, 1, tzinfo=UTC))
    assert open_key_file(text, password) == key
    assert work_of(text) == 32768 * 8
    if other != password:
        assert open_key_file(text, other) is None


@given(st.binary(max_size=3000))
def test_small_files_round_trip(text: bytes) -> None:
    """Seal, encoding byte and frame; JSON that was never compressed is read as it is."""
    sealer, compressor = Sealer(MasterKey.random()), Compressor()
    assert compressor.decode_unpacked(sealer.open(sealer.seal(compressor.encode_unpacked(text)))) == text
    assert compressor.decode_unpacked(b"{" + text) == b"{" + text


def test_large_trees_are_read_node_by_node_and_the_same() -> None:
    """Names and attributes that look like the border between two nodes; beyond the size that is parsed at once."""
    border = b'"},{"name":"x","type":"'
    nodes = [
        Node(
            b"%08d " % number + border, FILE, 0o600, uid=0, gid=0, mtime=number, ctime=0, size=1, content=bytes(32),
            xattrs=(("user.a", border), ("user.b", b"")) if number % 3 == 0 else (),
        )
        for number in range(16_000)
    ]  # fmt: skip
    text = encode_tree(map(encode_node, nodes))
    assert len(text) > LARGE_TREE_BYTES
    assert decode_tree(text) == nodes
    for wrong in (text[:-3], text + b"x", text.replace(b'{"nodes":[', b'{"nodez":[', 1), b" " + text):
        with pytest.raises(IntegrityError):
            decode_tree(wrong)


@given(st.integers(1, 500).flatmap(lambda size: st.tuples(st.just(size), st.sets(st.integers(0, size - 1)))))
def test_bits_are_a_set_of_numbers(sized: tuple[int, set[int]]) -> None:
    """Ascending, each once, counted."""
    size, numbers = sized
    bits = Bits(size)
    for number in [*numbers, *numbers]:
        bits.add(number)
    assert list(bits) == sorted(numbers)
    assert len(bits) == len(numbers)
    assert all((number in bits) == (number in numbers) for number in range(size))


def test_what_would_fill_memory_is_refused_by_its_text() -> None:
    """Before it is parsed."""
    assert load(b"[{},{}]") == [{}, {}]
    for text in (b"[" + b"{}," * 1_000_000 + b"{}]", b"[" * 1_000_000):
        with pytest.raises(ValueError, match="memory"):
            weigh(text)
    for kind, most in LARGEST_BYTES.items():
        require_small(kind, "0" * 64, most)
        with pytest.raises(IntegrityError, match=kind.value):
            require_small(kind, "0" * 64, most + 1)
    assert FileKind.PACK not in LARGEST_BYTES
