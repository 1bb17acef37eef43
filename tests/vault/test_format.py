"""The layers of the format: sealing, packs, index, text as Go writes it, instants, nodes. Round trips and refusals."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256

import orjson
import pytest
import zstandard
from cryptography.hazmat.primitives.poly1305 import Poly1305
from hypothesis import given
from hypothesis import strategies as st

from refloat.errors import IntegrityError
from vault.blobs import BlobCodec, BlobKind, PackedBlob
from vault.chunking import CHUNK_BYTES, LARGEST_CHUNK_BYTES, MOST_CHUNKS, chunk_bytes, is_zero, zero_id
from vault.compressing import BadFrame, Compressor
from vault.gotext import decode_name, encode_name
from vault.index import Index, encode_index
from vault.instants import format_instant, parse_instant, to_datetime, to_nanoseconds
from vault.keys import make_key_file, open_key_file
from vault.nodes import DIR, FILE, SYMLINK, Node, decode_tree, encode_node, encode_tree
from vault.packs import PackBuilder, decode_header, encode_header, read_header
from vault.polynomial import DEGREE, is_irreducible, random_polynomial
from vault.sealing import OVERHEAD, BadSeal, MasterKey, Sealer

KEY = MasterKey.random()
CODEC = BlobCodec(KEY)
AB, CD = b"ab" * 32, b"cd" * 32
IMPOSSIBLE = ("", ".", "..", "a/b", "/etc", "a\\x00b", "\\x2e\\x2e", "..\\x2f")
ids = st.binary(min_size=32, max_size=32)
names = st.binary(min_size=1, max_size=40).filter(lambda n: b"/" not in n and b"\0" not in n and n not in (b".", b".."))


@given(st.binary(max_size=5000))
def test_what_is_sealed_opens_and_never_looks_the_same_twice(plain: bytes) -> None:
    """32 bytes more than the text, another IV each time."""
    one, two = CODEC.sealer.seal(plain), CODEC.sealer.seal(plain)
    assert CODEC.sealer.open(one) == CODEC.sealer.open(two) == plain
    assert len(one) == len(plain) + OVERHEAD
    assert one[:16] != two[:16]


@given(st.binary(max_size=200), st.data())
def test_any_changed_bit_breaks_the_seal(plain: bytes, data: st.DataObject) -> None:
    """IV, text and tag alike."""
    sealed = bytearray(CODEC.sealer.seal(plain))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadSeal):
        CODEC.sealer.open(sealed)


def test_another_key_and_too_few_bytes_are_refused() -> None:
    """Both are the same to whoever asks: not sealed under this key."""
    with pytest.raises(BadSeal):
        Sealer(MasterKey.random()).open(CODEC.sealer.seal(b"text"))
    with pytest.raises(BadSeal):
        CODEC.sealer.open(bytes(OVERHEAD - 1))
    with pytest.raises(ValueError, match="zeros"):
        MasterKey(bytes(32), bytes(16), bytes(16))
    assert "encrypt" not in repr(KEY)


def test_sealing_is_restics_own() -> None:
    """The tag is Poly1305-AES: a vector of its paper (D. J. Bernstein, 2005, appendix B), which restic's tests use."""
    key = MasterKey(
        b"\1" * 32, bytes.fromhex("ec074c835580741701425b623235add6"), bytes.fromhex("851fc40c3467ac0be05cc20404f3f700")
    )
    one_time = Sealer(key)._one_time_key(bytes.fromhex("fb447350c4e868c52ac3275cf9d4327e"))
    assert Poly1305.generate_tag(one_time, bytes.fromhex("f3f6")).hex() == "f4c633c3044fc145f84f335cb81953de"


@given(st.binary(max_size=20000))
def test_compression_round_trips_and_refuses_another_size(plain: bytes) -> None:
    """A frame that becomes more or less than was recorded is damage, found before it fills memory."""
    compressor = Compressor()
    frame = compressor.compress(plain)
    assert compressor.expand(frame, len(plain)) == plain
    with pytest.raises(BadFrame):
        compressor.expand(frame, len(plain) + 1)
    assert compressor.decode_unpacked(compressor.encode_unpacked(plain)) == plain


def test_a_bomb_is_refused() -> None:
    """1 GiB of zeros in 100 KB: neither a blob nor an index file is allowed to become that."""
    bomb = zstandard.ZstdCompressor(level=19).compressobj()
    frame = b"".join(bomb.compress(bytes(1 << 24)) for _ in range(64)) + bomb.flush()
    compressor = Compressor()
    with pytest.raises(BadFrame):
        compressor.decode_unpacked(b"\x02" + frame)
    with pytest.raises(BadFrame):
        compressor.expand(frame, 1000)
    with pytest.raises(BadFrame, match="unknown encoding"):
        compressor.decode_unpacked(b"\x03" + frame)


blobs = st.builds(
    PackedBlob,
    kind=st.sampled_from(BlobKind),
    id=ids,
    offset=st.just(0),
    sealed_bytes=st.integers(OVERHEAD, 1 << 24),
    plain_bytes=st.integers(0, 1 << 26),
)


@given(st.lists(blobs, max_size=40))
def test_headers_round_trip(listed: list[PackedBlob]) -> None:
    """Offsets are the running sum, whatever was claimed."""
    found = decode_header(encode_header(listed))
    assert [(b.kind, b.id, b.sealed_bytes, b.plain_bytes) for b in found] == [
        (b.kind, b.id, b.sealed_bytes, b.plain_bytes) for b in listed
    ]
    assert [b.offset for b in found] == [sum(b.sealed_bytes for b in listed[:i]) for i in range(len(listed))]


@given(st.binary(max_size=300))
def test_garbage_is_no_header_or_a_sane_one(text: bytes) -> None:
    """Nothing else than the named error."""
    with suppress(IntegrityError):
        assert all(blob.sealed_bytes >= OVERHEAD for blob in decode_header(text))
    with pytest.raises(IntegrityError):
        read_header(text, CODEC.sealer)


@given(st.lists(st.binary(min_size=1, max_size=3000), min_size=1, max_size=30))
def test_a_pack_reads_back_by_its_own_header(bodies: list[bytes]) -> None:
    """Its name is its hash; every blob opens where the header says; random data stays raw, text is compressed."""
    builder = PackBuilder(BlobKind.DATA, 1 << 20)
    for body in bodies:
        builder.add(sha256(body).digest(), body, CODEC)
    pack = builder.close(CODEC)
    assert pack.id == sha256(pack.body).digest()
    listed = read_header(pack.body, CODEC.sealer)
    assert [CODEC.open(pack.body[b.offset : b.offset + b.sealed_bytes], b) for b in listed] == bodies


def test_raw_where_compression_gains_nothing() -> None:
    """Random data is sealed as it is: restoring it decompresses nothing."""
    builder = PackBuilder(BlobKind.DATA, 1 << 20)
    for body in (os.urandom(5000), b"text" * 1000):
        builder.add(sha256(body).digest(), body, CODEC)
    raw, compressed = builder.close(CODEC).blobs
    assert (raw.plain_bytes, raw.sealed_bytes) == (0, 5000 + OVERHEAD)
    assert compressed.plain_bytes == 4000
    assert compressed.sealed_bytes < 1000


def test_a_blob_under_a_wrong_name_is_found() -> None:
    """The seal fits and the size too; only the hash tells."""
    body = b"x" * 100
    builder = PackBuilder(BlobKind.DATA, 1 << 20)
    builder.add(sha256(b"y" * 100).digest(), body, CODEC)
    pack = builder.close(CODEC)
    with pytest.raises(IntegrityError, match="other data than its name"):
        CODEC.open(pack.body[: pack.blobs[0].sealed_bytes], pack.blobs[0])


class FailingMemory(BlobCodec):
    """One bit of what is to be compressed and sealed is lost on the way."""

    fired = 0

    def pack(self, plain: bytes | bytearray | memoryview) -> tuple[bytes | bytearray | memoryview, int]:
        self.fired += 1
        wrong = bytearray(plain)
        wrong[len(wrong) // 2] ^= 1
        return super().pack(wrong)


@pytest.mark.parametrize("body", [b"text" * 1000, os.urandom(4000)])
def test_memory_that_fails_is_noticed_before_anything_is_stored(body: bytes) -> None:
    """What was sealed opens, and is not what was given."""
    codec, builder = FailingMemory(KEY), PackBuilder(BlobKind.DATA, 1 << 20)
    with pytest.raises(IntegrityError, match="does not read back as it was given"):
        builder.add(sha256(body).digest(), body, codec)
    assert codec.fired == 1
    assert builder.is_empty


def test_index_files_round_trip_and_know_what_a_pack_weighs() -> None:
    """The same id as data and as tree are two blobs."""
    same = sha256(b"same").digest()
    listed = (PackedBlob(BlobKind.DATA, same, 0, 100, 0), PackedBlob(BlobKind.DATA, os.urandom(32), 100, 50, 400))
    tree = (PackedBlob(BlobKind.TREE, same, 0, 80, 300),)
    index = Index()
    index.add_file(encode_index([(b"p" * 32, listed), (b"q" * 32, tree)]))
    assert len(index) == 3
    assert index.find(BlobKind.DATA, same) == (b"p" * 32, listed[0])
    assert index.find(BlobKind.TREE, same) == (b"q" * 32, tree[0])
    assert index.pack_bytes(b"p" * 32) == 150 + 37 + 41 + 36
    assert index.blobs_end(b"p" * 32) == 150


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b'{"packs":[{}]}', b'{"packs":[{"id":"zz","blobs":[]}]}', b'{"packs":7}',
        b'{"packs":[{"id":"%s","blobs":[{"id":"%s","type":"data","offset":-1,"length":40}]}]}' % (AB, CD),
        b'{"packs":[{"id":"%s","blobs":[{"id":"%s","type":"data","offset":0,"length":3}]}]}' % (AB, CD),
        b'{"packs":[{"id":"%s","blobs":[{"id":"cd","type":"data","offset":0,"length":40}]}]}' % AB,
    ],
)  # fmt: skip
def test_what_is_no_index_file_is_named(text: bytes) -> None:
    """One error for all of them."""
    with pytest.raises(IntegrityError, match="index file"):
        Index().add_file(text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"plain.txt", "plain.txt"),
        (b'q"b\\s', r"q\\\"b\\\\s"),
        (b"<a>&b", r"\u003ca\u003e\u0026b"),
        (b"\x00\x01\x7f\x1b", r"\\x00\\x01\\x7f\\x1b"),
        (b"\a\b\t\n\v\f\r", r"\\a\\b\\t\\n\\v\\f\\r"),
        (b"\xff\xc3", r"\\xff\\xc3"),
        ("ü\u2028\u00ad\u3000😀\U000e0001".encode(), r"ü\\u2028\\u00ad\\u3000😀\\U000e0001"),
        (b"\xed\xa0\x80", r"\\xed\\xa0\\x80"),
    ],
)  # fmt: skip
def test_names_are_quoted_as_go_does(name: bytes, text: str) -> None:
    """Golden: what strconv.Quote and encoding/json of Go 1.26 make of them."""
    assert encode_name(name) == text
    assert decode_name(orjson.loads(f'"{text}"')) == name


@given(st.binary(max_size=60))
def test_names_round_trip(name: bytes) -> None:
    """Any bytes."""
    assert decode_name(orjson.loads(f'"{encode_name(name)}"')) == name


@pytest.mark.parametrize("text", ["\\", "\\q", "\\x4", "\\u12", "\\ud800", "\\U00110000", "\\400"])
def test_what_go_would_not_write_is_no_name(text: str) -> None:
    """Not guessed at."""
    with pytest.raises((ValueError, OverflowError)):
        decode_name(text)


@given(st.integers(-62135596800_000000000, 253402300799_999999999))
def test_instants_round_trip(nanoseconds: int) -> None:
    """Years 1 to 9999, to the nanosecond."""
    assert parse_instant(format_instant(nanoseconds)) == nanoseconds


def test_instants_are_written_as_go_does() -> None:
    """Trailing zeros dropped, UTC as Z; zones are understood."""
    assert format_instant(1_500_000_000_120_000_000) == "2017-07-14T02:40:00.12Z"
    assert format_instant(-1) == "1969-12-31T23:59:59.999999999Z"
    assert format_instant(1 << 63) == "2262-04-11T23:47:16.854775808Z"
    assert parse_instant("2017-07-14T04:40:00.12+02:00") == 1_500_000_000_120_000_000
    assert parse_instant("0000-01-01T00:00:00Z") == parse_instant("0001-01-01T00:00:00Z")
    at = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    assert to_datetime(to_nanoseconds(at)) == at
    for text in ("", "yesterday", "2017-07-14", "2017-13-14T04:40:00Z"):
        with pytest.raises(ValueError, match=r"."):
            parse_instant(text)


attributes = st.tuples(
    st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=9), st.binary(max_size=9)
)
nodes = st.builds(
    Node,
    name=names,
    type=st.just(FILE),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 1),
    gid=st.integers(0, 2**32 - 1),
    mtime=st.integers(-(10**18), 10**19),
    ctime=st.integers(-(10**18), 10**19),
    inode=st.integers(0, 2**64 - 1),
    size=st.integers(0, 2**63 - 1),
    links=st.integers(0, 100),
    xattrs=st.lists(attributes, max_size=2).map(tuple),
    content=st.lists(ids, max_size=4).map(b"".join),
)


@given(st.lists(nodes, max_size=6, unique_by=lambda node: node.name))
def test_trees_round_trip(listed: list[Node]) -> None:
    """Every field of every node."""
    listed.sort(key=lambda node: node.name)
    assert decode_tree(encode_tree(map(encode_node, listed))) == listed


def test_a_node_is_written_as_restic_does() -> None:
    """Golden: order of fields, what is left out, the mode's Go bits, raw link targets."""
    folder = Node(b"d", DIR, 0o2755, uid=0, gid=5, mtime=0, ctime=10**9, inode=7, subtree=bytes(range(32)))
    assert encode_node(folder).decode() == (
        '{"name":"d","type":"dir","mode":2151678445,"mtime":"1970-01-01T00:00:00Z","atime":"1970-01-01T00:00:00Z",'
        '"ctime":"1970-01-01T00:00:01Z","uid":0,"gid":5,"inode":7,"content":null,'
        '"subtree":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"}'
    )
    link = Node(b"l", SYMLINK, 0o777, uid=1, gid=1, mtime=0, ctime=0, links=1, target=b"a\xff<")
    assert encode_node(link).decode().partition('"gid":1,')[2] == (
        '"links":1,"linktarget":"a\\ufffd\\u003c","linktarget_raw":"Yf88","content":null}'
    )
    assert decode_tree(encode_tree([encode_node(link)])) == [link]


def _tree(*nodes: dict[str, object]) -> bytes:
    whole = {"mode": 0, "mtime": "2020-01-01T00:00:00Z", "ctime": "2020-01-01T00:00:00Z", "uid": 0, "gid": 0}
    return orjson.dumps({"nodes": [{**whole, **node} for node in nodes]})


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"{}", b'{"nodes":[7]}', b'{"nodes":[{}]}',
        *(_tree({"name": name, "type": "file", "content": []}) for name in IMPOSSIBLE),
        _tree({"name": "a", "type": "file", "content": None}),
        _tree({"name": "a", "type": "file", "content": ["abcd"]}),
        _tree({"name": "a", "type": "file", "content": ["zz" * 32]}),
        _tree({"name": "a", "type": "file", "content": [], "size": -1}),
        _tree({"name": "a", "type": "file", "content": [], "uid": "root"}),
        _tree({"name": "a", "type": "dir"}),
        _tree({"name": "a", "type": "dir", "subtree": "ab"}),
        _tree({"name": "a", "type": "door", "content": []}),
        _tree({"name": "a", "type": "file", "content": [], "mtime": "never"}),
        _tree({"name": "a", "type": "file", "content": []}, {"name": "a", "type": "file", "content": []}),
        _tree({"name": "b", "type": "file", "content": []}, {"name": "a", "type": "file", "content": []}),
    ],
)  # fmt: skip
def test_what_no_folder_can_hold_is_refused(text: bytes) -> None:
    """Impossible names however they are spelt, duplicates, wrong order, missing parts: never normalised."""
    with pytest.raises(IntegrityError, match="a tree"):
        decode_tree(text)


def test_keys_open_with_their_password_only() -> None:
    """And nothing else is taken for a key file, however costly it claims to be."""
    text = make_key_file(KEY, "password", datetime(2026, 1, 1, tzinfo=UTC))
    assert open_key_file(text, "password") == KEY
    assert open_key_file(text, "passwort") is None
    assert b"password" not in text
    slot = orjson.loads(text)
    for change in (
        {"N": 1 << 30},
        {"N": 12345},
        {"p": 10**6},
        {"r": 0},
        {"kdf": "none"},
        {"salt": "YWI="},
        {"data": 5},
    ):
        with pytest.raises(IntegrityError):
            open_key_file(orjson.dumps({**slot, **change}), "password")
    for torn in (text[:100], b"", b"[]"):
        with pytest.raises(IntegrityError):
            open_key_file(torn, "password")


def test_polynomials_are_irreducible_and_never_the_same() -> None:
    """Degree 53; products of smaller ones are refused, also where they have no root."""
    found = {random_polynomial() for _ in range(8)}
    assert len(found) == 8
    assert all(value.bit_length() == DEGREE + 1 and is_irreducible(value) for value in found)
    assert is_irreducible(0x3DA3358B4DC173)  # restic's own test value
    for reducible in (0x3DA3358B4DC173 ^ 1, 0, 1, 0b101, 0x10101):
        assert not is_irreducible(reducible)


def test_chunks_grow_with_the_file_and_zeros_are_known() -> None:
    """So that no file has more chunks than a node can list."""
    assert chunk_bytes(0) == chunk_bytes(CHUNK_BYTES * MOST_CHUNKS) == CHUNK_BYTES
    assert chunk_bytes(CHUNK_BYTES * MOST_CHUNKS + 1) == 4 * CHUNK_BYTES
    assert chunk_bytes(1 << 60) == LARGEST_CHUNK_BYTES
    assert zero_id(1000) == sha256(bytes(1000)).digest()
    assert is_zero(bytes(1000))
    assert not is_zero(bytes(500) + b"\1" + bytes(499))
