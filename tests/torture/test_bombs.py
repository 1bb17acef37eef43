"""Bar 22: small input that asks for much: a named error or success, at most 512 MB and 10 s of processor."""

from __future__ import annotations

import base64
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard

from refloat.recovery_point import DESCRIPTOR, OBJECTS, CataloguedPoint
from refloat.registry import open_object_store
from tests.vault.given import PASSWORD, protect, reopened
from vault.blobs import BlobKind, PackedBlob
from vault.files import CONFIG, FileKind, key_of
from vault.index import encode_index
from vault.nodes import DIR, Node, encode_node, encode_tree
from vault.packs import encode_header
from vault.reading import BlobReader
from vault.repository import OpenVault, init
from vault.writing import BlobWriter

ROOT = Path(__file__).parents[2]
MOST_BYTES = 512 << 20
MOST_SECONDS = 10
MIB = 1 << 20


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CataloguedPoint]:
    """A vault with one small point."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "source").mkdir()
    (folder / "source" / "file").write_bytes(random.Random(1).randbytes(1000))
    vault = init(open_object_store(f"file://{folder / 'vault'}", {}), PASSWORD)
    return folder / "vault", protect(vault, folder / "source")


@pytest.fixture(scope="module")
def reader() -> Iterator[subprocess.Popen[str]]:
    """The process that forks a reader for each bomb."""
    words = [sys.executable, "-m", "tests.torture.bomb_reader"]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@dataclass
class Armed:
    """A vault with a bomb in it."""

    place: Path
    vault: OpenVault
    point: CataloguedPoint
    trees: list[str] = field(default_factory=list)

    def put(self, key: str, body: bytes) -> None:
        self.vault.store.put(key, body)

    def put_sealed(self, kind: FileKind, plain: bytes) -> None:
        """A small file of these bytes, encoding byte and frame included."""
        body = self.vault.files.codec.sealer.seal(plain)
        self.put(key_of(kind, sha256(body).hexdigest()), body)

    def put_pack(self, sealed: bytes, header: bytes, *, length: int | None = None) -> bytes:
        """A pack of these sealed blobs and this header; its id."""
        seal = self.vault.files.codec.sealer.seal(header)
        pack = sealed + seal + (len(seal) if length is None else length).to_bytes(4, "little")
        self.put(key_of(FileKind.PACK, sha256(pack).hexdigest()), pack)
        return sha256(pack).digest()

    def put_frame(self, kind: BlobKind, frame: bytes, claimed: int, blob_id: bytes) -> bytes:
        """A compressed blob that claims a size, in a pack and an index file; its id."""
        sealed = self.vault.files.codec.sealer.seal(frame)
        blob = PackedBlob(kind, blob_id, 0, len(sealed), claimed)
        pack = self.put_pack(sealed, encode_header([blob]))
        self.vault.files.write(FileKind.INDEX, encode_index([(pack, [blob])]))
        return blob_id

    def put_tree(self, text: bytes) -> bytes:
        """A tree that somebody with the key stored; its id."""
        return self.put_frame(BlobKind.TREE, squeezed([text]), len(text), sha256(text).digest())

    def point_at(self, tree: bytes) -> None:
        """A snapshot record of ours for a tree, which is extracted too."""
        record = orjson.loads(self.vault.files.read(FileKind.SNAPSHOT, self.point.snapshot_id))
        self.vault.files.write(FileKind.SNAPSHOT, orjson.dumps({**record, "tree": tree.hex(), "program_version": "x"}))
        self.trees.append(tree.hex())

    def slot(self, **changes: Any) -> bytes:
        """The text of its key file, changed."""
        (name,) = (path.name for path in (self.place / "keys").iterdir())
        return orjson.dumps({**orjson.loads((self.place / "keys" / name).read_bytes()), **changes})

    def put_slot(self, text: bytes) -> None:
        self.put(f"keys/{sha256(text).hexdigest()}", text)


def squeezed(pieces: list[bytes], times: int = 1) -> bytes:
    """One frame of many bytes, without their length, made without holding them."""
    writer = zstandard.ZstdCompressor(level=3).compressobj()
    return b"".join(writer.compress(piece) for _ in range(times) for piece in pieces) + writer.flush()


def unpacked(pieces: list[bytes], times: int = 1) -> bytes:
    """A small file's plaintext: the encoding byte and a frame."""
    return b"\x02" + squeezed(pieces, times)


def _chain(armed: Armed, depth: int, width: int) -> bytes:
    """Folders in folders; each stands ``width`` times in the one above."""
    writer = BlobWriter(armed.vault.files, armed.vault.index())
    tree = writer.save(BlobKind.TREE, encode_tree([]))
    for _ in range(depth):
        nodes = [
            Node(b"%d" % number, DIR, 0o700, uid=0, gid=0, mtime=0, ctime=0, subtree=tree) for number in range(width)
        ]
        tree = writer.save(BlobKind.TREE, encode_tree(map(encode_node, nodes)))
    writer.finish()
    return tree


def _node(name: str, **fields: Any) -> bytes:
    times = dict.fromkeys(("mtime", "atime", "ctime"), "2020-01-01T00:00:00Z")
    return orjson.dumps(
        {"name": name, "type": "file", "mode": 0o600, **times, "uid": 0, "gid": 0, "content": [], **fields}
    )


def zstd_index(armed: Armed) -> None:
    armed.put_sealed(FileKind.INDEX, unpacked([b'{"packs":['], 1) + squeezed([bytes(MIB)], 1024))


def zstd_record(armed: Armed) -> None:
    armed.put_sealed(FileKind.SNAPSHOT, unpacked([bytes(MIB)], 1024))


def zstd_lock(armed: Armed) -> None:
    armed.put_sealed(FileKind.LOCK, unpacked([bytes(MIB)], 1024))


def zstd_data_that_claims_little(armed: Armed) -> None:
    armed.put_frame(BlobKind.DATA, squeezed([bytes(MIB)], 1024), 1000, bytes(32))


def zstd_data_that_claims_all(armed: Armed) -> None:
    armed.put_frame(BlobKind.DATA, squeezed([bytes(MIB)], 2048), 2 << 30, bytes(32))


def zstd_window(armed: Armed) -> None:
    """A frame that wants 2 GiB to look back into."""
    made = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=31, enable_ldm=0, hash_log=6, chain_log=6,
                                                               search_log=1, strategy=1)
    )  # fmt: skip
    frame = made.compressobj()
    armed.put_sealed(FileKind.INDEX, b"\x02" + frame.compress(b'{"packs":[]}') + frame.flush())


def tree_of_spaces(armed: Armed) -> None:
    """Half a GiB of JSON that says nothing."""
    size = 500 * MIB
    armed.point_at(armed.put_frame(BlobKind.TREE, squeezed([b" " * MIB], 500), size, bytes(31) + b"\1"))


def tree_of_nothings(armed: Armed) -> None:
    """Many small values, each of which is far larger in memory."""
    armed.point_at(armed.put_tree(b'{"nodes":[' + b"{}," * (20 * MIB) + b"{}]}"))


def tree_of_a_deep_value(armed: Armed) -> None:
    armed.point_at(armed.put_tree(b"[" * (20 * MIB)))


def tree_of_a_huge_name(armed: Armed) -> None:
    armed.point_at(armed.put_tree(b'{"nodes":[' + _node("n" * (50 * MIB)) + b"]}\n"))


def tree_of_huge_attributes(armed: Armed) -> None:
    many = [{"name": f"user.{number}", "value": "AAAA"} for number in range(300_000)]
    armed.point_at(armed.put_tree(b'{"nodes":[' + _node("x", extended_attributes=many) + b"]}\n"))


def tree_of_a_file_without_end(armed: Armed) -> None:
    """One blob half a million times."""
    found = next(iter(armed.vault.index().numbers(BlobKind.DATA)))
    _, blob = armed.vault.index().at(BlobKind.DATA, found)
    text = _node("x", content=[blob.id.hex()] * 500_000, size=blob.size_bytes * 500_000 + 1)
    armed.point_at(armed.put_tree(b'{"nodes":[' + text + b"]}\n"))


def trees_in_trees(armed: Armed) -> None:
    armed.point_at(_chain(armed, 10_000, 1))


def manifests_in_trees_in_trees(armed: Armed) -> None:
    """A point whose manifests lie in folders in folders."""
    deep, reader = _chain(armed, 10_000, 1), BlobReader(armed.vault.files, armed.vault.index(is_fresh=True))
    nodes = reader.tree(bytes.fromhex(armed.point.tree))
    for node in nodes:
        node.subtree = deep if node.name == OBJECTS.encode() else node.subtree
    armed.point_at(armed.put_tree(encode_tree(map(encode_node, nodes))))
    armed.trees.clear()


def trees_times_trees(armed: Armed) -> None:
    """2**50 folders in 50 trees. Not extracted: nothing tells it from a volume that holds as much."""
    armed.point_at(_chain(armed, 50, 2))
    armed.trees.clear()


def index_of_nothings(armed: Armed) -> None:
    armed.put_sealed(FileKind.INDEX, unpacked([b'{"packs":[', *([b"{}," * (MIB // 3)] * 120), b"{}]}"]))


def index_of_empty_packs(armed: Armed) -> None:
    pack = b'{"id":"%s","blobs":[]},' % (b"ab" * 32)
    armed.put_sealed(FileKind.INDEX, unpacked([b'{"packs":[', *([pack * 10_000] * 130), pack[:-1] + b"]}"]))


def index_of_too_many_blobs(armed: Armed) -> None:
    """A million in one pack."""
    blobs = (b'{"id":"%064x","type":"data","offset":%d,"length":40},' % (n, n * 40) for n in range(1_000_000))
    text = b'{"packs":[{"id":"%s","blobs":[' % (b"ab" * 32) + b"".join(blobs)[:-1] + b"]}]}"
    armed.put_sealed(FileKind.INDEX, unpacked([text]))


def index_of_a_deep_value(armed: Armed) -> None:
    armed.put_sealed(FileKind.INDEX, unpacked([b'{"packs":', b"[" * (100 * MIB)]))


def record_of_many_paths(armed: Armed) -> None:
    start = b'{"time":"2020-01-01T00:00:00Z","tree":"%s","paths":[' % bytes(32).hex().encode()
    armed.put_sealed(FileKind.SNAPSHOT, unpacked([start, *([b'"",' * (MIB // 3)] * 120), b'""]}']))


def descriptor_of_a_deep_value(armed: Armed) -> None:
    _descriptor(armed, b'{"exceptions":' + b"[" * (30 * MIB))


def descriptor_of_many_objects(armed: Armed) -> None:
    text = armed.point.point.model_dump_json().encode()
    _descriptor(armed, text[:-1] + b',"exceptions":[' + b"{}," * (10 * MIB) + b"{}]}")


def _descriptor(armed: Armed, text: bytes) -> None:
    blob = armed.put_frame(BlobKind.DATA, squeezed([text]), len(text), sha256(text).digest())
    armed.point_at(armed.put_tree(b'{"nodes":[' + _node(DESCRIPTOR, content=[blob.hex()], size=len(text)) + b"]}\n"))


def header_of_many_blobs(armed: Armed) -> None:
    """As many entries as a header of 16 MiB can have, of blobs that are nothing but a seal."""
    count = (16 * MIB - 32) // 37 - 1
    blobs = [PackedBlob(BlobKind.DATA, number.to_bytes(32, "big"), 0, 32, 0) for number in range(count)]
    armed.put_pack(bytes(32 * count), encode_header(blobs))


def header_that_claims_all(armed: Armed) -> None:
    armed.put_pack(bytes(100), b"", length=0xFFFFFFFF)


def kdf_of_memory(armed: Armed) -> None:
    armed.put_slot(armed.slot(N=1 << 22))


def kdf_of_memory_by_rounds(armed: Armed) -> None:
    """Each of 16 rounds has blocks of its own."""
    armed.put_slot(armed.slot(N=2, r=1 << 20, p=16))


def kdf_of_time(armed: Armed) -> None:
    armed.put_slot(armed.slot(N=1 << 17, r=8, p=16))


def kdf_of_many_slots(armed: Armed) -> None:
    """Twenty slots, none of which opens; the one that would is gone."""
    slot = orjson.loads(armed.slot())
    next((armed.place / "keys").iterdir()).rename(armed.place / "refloat-was-here")
    for number in range(20):
        salt = base64.b64encode(number.to_bytes(64, "big")).decode()
        armed.put_slot(orjson.dumps({**slot, "N": 1 << 17, "p": 4, "salt": salt}))


def huge_key_file(armed: Armed) -> None:
    _sparse(armed.place / "keys" / ("0" * 64))


def huge_config(armed: Armed) -> None:
    _sparse(armed.place / CONFIG)


def huge_record(armed: Armed) -> None:
    _sparse(armed.place / "snapshots" / ("0" * 64))


def huge_index_file(armed: Armed) -> None:
    _sparse(armed.place / "index" / ("0" * 64))


def huge_pack(armed: Armed) -> None:
    folder = armed.place / "data" / "00"
    folder.mkdir(exist_ok=True)
    _sparse(folder / ("0" * 64))


def _sparse(path: Path) -> None:
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(2 << 30)


BOMBS: tuple[Callable[[Armed], None], ...] = (
    zstd_index, zstd_record, zstd_lock, zstd_data_that_claims_little, zstd_data_that_claims_all, zstd_window,
    tree_of_spaces, tree_of_nothings, tree_of_a_deep_value, tree_of_a_huge_name, tree_of_huge_attributes,
    tree_of_a_file_without_end, trees_in_trees, manifests_in_trees_in_trees, trees_times_trees, index_of_nothings,
    index_of_empty_packs,
    index_of_too_many_blobs, index_of_a_deep_value, record_of_many_paths, descriptor_of_a_deep_value,
    descriptor_of_many_objects, header_of_many_blobs, header_that_claims_all, kdf_of_memory, kdf_of_memory_by_rounds,
    kdf_of_time, kdf_of_many_slots, huge_key_file, huge_config, huge_record, huge_index_file, huge_pack,
)  # fmt: skip
HARMLESS = {trees_in_trees, manifests_in_trees_in_trees, trees_times_trees, header_that_claims_all, zstd_lock}
"""What need not end in an error, as long as it ends: deep trees are legal."""


def _read(reader: subprocess.Popen[str], armed: Armed) -> dict[str, Any]:
    job = {"folder": str(armed.place), "password": PASSWORD, "trees": armed.trees}
    assert reader.stdin is not None
    assert reader.stdout is not None
    print(json.dumps(job), file=reader.stdin, flush=True)
    told: dict[str, Any] = json.loads(reader.stdout.readline())
    return told


@pytest.mark.timeout(1800)
def test_bombs_are_defused(
    rounds: Callable[[int, int], int],
    seed: int,
    base: tuple[Path, CataloguedPoint],
    reader: subprocess.Popen[str],
    ram: Path,
) -> None:
    """Opening, listing, a full verify and a restore: named errors only, within memory and time."""
    for bomb in random.Random(seed).sample(BOMBS, rounds(5, len(BOMBS))):
        place = Path(shutil.copytree(base[0], ram / bomb.__name__))
        armed = Armed(place, reopened(place), base[1])
        bomb(armed)
        armed.vault.close()
        told = _read(reader, armed)
        said = f"{bomb.__name__}: {told['cpu_seconds']} s, {told['peak_bytes'] >> 20} MiB, {told['said']}"
        print(said)
        assert told["status"] == 0, said
        assert not [text for text in told["said"].values() if text.startswith("BUG")], said
        assert told["cpu_seconds"] <= MOST_SECONDS, said
        assert told["peak_bytes"] <= MOST_BYTES, said
        named = [text for text in told["said"].values() if text not in ("done", "intact")]
        assert named or bomb in HARMLESS, said
        shutil.rmtree(place)
