"""The fuzzed process of bar 7: `python -m tests.torture.fuzzing SEED COUNT FOLDER`, one line of JSON per case.

Two ways of being wrong: bytes as they lie in the store (hashes and seals must tell), and what somebody with the key
could have sealed (every decoder must tell). After each change everything that reads a vault is called.
"""

from __future__ import annotations

import json
import random
import re
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson

from refloat.errors import RefloatError
from refloat.recovery_point import DESCRIPTOR
from tests.torture.in_memory import MemoryStore, seen_anew, vault_of_points
from tests.vault.given import PASSWORD
from vault.blobs import BlobKind, PackedBlob
from vault.catalogue import manifests, points
from vault.extract import extract
from vault.files import CONFIG, FileKind, key_of
from vault.index import encode_index
from vault.locks import refuse_conflicts
from vault.packs import encode_header
from vault.repository import OpenVault, open_vault
from vault.survey import survey
from vault.surveyed import Level
from vault.tally import Tally
from vault.verify import verify
from vault.writing import BlobWriter

MEMORY_LIMIT_BYTES = 4 << 30
"""Only so that a bomb ends this process and not the machine: what was used is measured."""
NASTY: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 1 << 31, 1 << 32, (1 << 53) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64,
    1 << 2000, 1.5, 1e308, float("nan"), float("inf"), "", "x", "\x00", "\ud800", "ü" * 70000, "..", "/", "\\", "\\q",
    "0" * 64, "z" * 64, "9999-12-31T23:59:59Z", "0000-00-00T00:00:00Z", "2020-01-01T00:00:00+99:99", [], [[]], {},
    [None], [0], {"a": 1}, [[[[[[]]]]]],
)  # fmt: skip


class Fuzz:
    """One vault, broken and made whole again, case by case."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng = random.Random(seed)
        self.folder = folder
        self.vault, self.points = vault_of_points(folder, self.rng, count=4)
        self.vault.files.write(FileKind.LOCK, b'{"time":"2020-01-01T00:00:00Z","exclusive":false,"pid":5}')
        assert isinstance(self.vault.store, MemoryStore)
        self.store = self.vault.store
        self.whole = dict(self.store.objects)
        self.trees: list[bytes] = []
        self.reopens = False

    def case(self) -> str:
        """Break something; its name."""
        self.store.objects = dict(self.whole)
        self.trees, self.reopens = [], False
        if self.rng.random() < 0.4:
            return self._outside()
        ways = (
            self._index, self._index, self._record, self._record, self._lock, self._tree, self._tree, self._tree,
            self._descriptor, self._header, self._frame, self._key_file, self._config,
        )  # fmt: skip
        return self.rng.choice(ways)()

    # bytes in the store

    def _outside(self) -> str:
        kinds = ("config", "keys", "locks", "snapshots", "index", "data")
        kind = self.rng.choice(kinds)
        key = self.rng.choice([key for key in self.whole if key.partition("/")[0] == kind])
        ways = (_mutated, _cut, _extended, self._other, _emptied, _noise)
        way = self.rng.choice(ways)
        self.store.objects[key] = way(self.whole[key], self.rng)
        self.reopens = kind in ("config", "keys")
        return f"{way.__name__.strip('_')} {kind}"

    def _other(self, _: bytes, rng: random.Random) -> bytes:
        return self.whole[rng.choice(sorted(self.whole))]

    # what somebody with the key could seal

    def _index(self) -> str:
        return self._unpacked(FileKind.INDEX)

    def _record(self) -> str:
        return self._unpacked(FileKind.SNAPSHOT)

    def _lock(self) -> str:
        return self._unpacked(FileKind.LOCK)

    def _unpacked(self, kind: FileKind) -> str:
        key = self.rng.choice([key for key in self.whole if key.startswith(f"{kind.value}/")])
        text = self.vault.files.read(kind, key.rpartition("/")[2])
        how, text = self._wrong(text)
        self.store.delete(key)
        if self.rng.random() < 0.1:  # also the encoding byte and the frame
            codec = self.vault.files.codec
            body = codec.sealer.seal(_mutated(codec.compressor.encode_unpacked(text), self.rng))
            self.store.put(key_of(kind, sha256(body).hexdigest()), body)
        else:
            self.vault.files.write(kind, text)
        return f"sealed {kind.value}: {how}"

    def _wrong(self, text: bytes) -> tuple[str, bytes]:
        """JSON with something wrong in it."""
        way = self.rng.randrange(4)
        if way == 0:
            return "bytes", _mutated(text, self.rng)
        if way == 1:
            return "cut", _cut(text, self.rng)
        value = orjson.loads(text)
        for _ in range(self.rng.randint(1, 3)):
            self._twist(value)
        with suppress(ValueError):
            return "values", json.dumps(value).encode("utf-8", "surrogatepass")
        return "bytes", _mutated(text, self.rng)

    def _twist(self, value: Any) -> None:
        """Put a nasty value, or nothing, somewhere into lists and dictionaries."""
        here = value
        while True:
            keys: list[Any] = list(here) if isinstance(here, dict) else list(range(len(here)))
            if not keys:
                return
            key = self.rng.choice(keys)
            if isinstance(here[key], dict | list) and here[key] and self.rng.random() < 0.85:
                here = here[key]
                continue
            if self.rng.random() < 0.2:
                del here[key]
            elif self.rng.random() < 0.1 and isinstance(here, list):
                here.append(here[key])
            else:
                here[key] = self.rng.choice(NASTY)
            return

    def _tree(self) -> str:
        point = self.rng.choice(self.points)
        tree = bytes.fromhex(self.rng.choice((point.tree, point.point.volumes[0].tree)))
        how, text = self._wrong(self._read_tree(tree))
        self._point_at(self._save(BlobKind.TREE, text))
        return f"sealed tree: {how}"

    def _descriptor(self) -> str:
        point = self.rng.choice(self.points)
        root = orjson.loads(self._read_tree(bytes.fromhex(point.tree)))
        how, text = self._wrong(point.point.model_dump_json().encode())
        blob = self._save(BlobKind.DATA, text or b"{}")
        for node in root["nodes"]:
            if node["name"] == DESCRIPTOR:
                node["content"], node["size"] = [blob.hex()], len(text or b"{}")
        self._point_at(self._save(BlobKind.TREE, orjson.dumps(root)))
        return f"sealed descriptor: {how}"

    def _header(self) -> str:
        codec = self.vault.files.codec
        body = b"some plaintext"
        sealed = codec.sealer.seal(body)
        blob = PackedBlob(BlobKind.DATA, sha256(body).digest(), 0, len(sealed), 0)
        header = codec.sealer.seal(_mutated(encode_header([blob] * self.rng.randint(1, 3)), self.rng))
        length = len(header) if self.rng.random() < 0.7 else self.rng.randrange(1 << 32)
        pack = sealed + header + length.to_bytes(4, "little")
        name = sha256(pack).digest()
        self.store.put(key_of(FileKind.PACK, name.hex()), pack)
        if self.rng.random() < 0.7:
            self.vault.files.write(FileKind.INDEX, encode_index([(name, [blob])]))
        return "sealed header"

    def _frame(self) -> str:
        codec = self.vault.files.codec
        tree = self._read_tree(bytes.fromhex(self.rng.choice(self.points).tree))
        frame = _mutated(bytes(codec.pack(tree)[0]), self.rng)
        sealed = codec.sealer.seal(frame)
        plain_bytes = self.rng.choice((len(tree), 1, 1 << 20, (1 << 32) - 1))
        blob = PackedBlob(BlobKind.TREE, sha256(tree + b" ").digest(), 0, len(sealed), plain_bytes)
        header = codec.sealer.seal(encode_header([blob]))
        pack = sealed + header + len(header).to_bytes(4, "little")
        name = sha256(pack).digest()
        self.store.put(key_of(FileKind.PACK, name.hex()), pack)
        self.vault.files.write(FileKind.INDEX, encode_index([(name, [blob])]))
        self._point_at(blob.id)
        return "sealed frame"

    def _key_file(self) -> str:
        (key,) = [key for key in self.whole if key.startswith("keys/")]
        how, text = self._wrong(self.whole[key])
        if self.rng.random() < 0.7:
            self.store.delete(key)
        self.store.put(f"keys/{sha256(text).hexdigest()}", text)
        self.reopens = True
        return f"key file: {how}"

    def _config(self) -> str:
        sealer = self.vault.files.codec.sealer
        how, text = self._wrong(sealer.open(self.whole[CONFIG]))
        self.store.put(CONFIG, sealer.seal(text))
        self.reopens = True
        return f"sealed config: {how}"

    def _read_tree(self, tree: bytes) -> bytes:
        pack, blob = self.vault.index().find(BlobKind.TREE, tree) or (b"", None)
        assert blob is not None
        sealed = self.vault.files.read_part(pack, blob.offset, blob.sealed_bytes)
        return self.vault.files.codec.open(sealed, blob)

    def _save(self, kind: BlobKind, text: bytes) -> bytes:
        writer = BlobWriter(self.vault.files, seen_anew(self.vault).index())
        blob_id = writer.save(kind, text)
        writer.finish()
        return blob_id

    def _point_at(self, tree: bytes) -> None:
        """A snapshot record of ours for a tree."""
        name = self.rng.choice(self.points).snapshot_id
        record = orjson.loads(self.vault.files.read(FileKind.SNAPSHOT, name))
        record["tree"] = tree.hex()
        if self.rng.random() < 0.5:
            record["program_version"] = "refloat 1"
        self.vault.files.write(FileKind.SNAPSHOT, orjson.dumps(record))
        self.trees.append(tree)

    # what is called

    def use(self) -> list[str]:
        """Everything that reads a vault; names of what ended with a named error."""
        refused: list[str] = []
        opened = self._try("open", refused, self._opened)
        if opened is None:
            return refused
        listed = self._try("points", refused, lambda: points(seen_anew(opened))) or []
        found = self._try("survey", refused, lambda: survey(seen_anew(opened), level=Level.FULL, expected=self.points))
        if found is not None and not found.is_intact:
            refused.append("damage")
        self._try("locks", refused, lambda: refuse_conflicts(opened.files))
        for each in listed[-2:]:
            self._try("verify", refused, lambda each=each: verify(seen_anew(opened), each, level="sample"))
            self._try("manifests", refused, lambda each=each: manifests(seen_anew(opened), each))
        for tree in (*self.trees, bytes.fromhex(self.points[0].point.volumes[0].tree)):
            self._try("extract", refused, lambda tree=tree: self._extract(seen_anew(opened), tree.hex()))
        return refused

    def _opened(self) -> OpenVault:
        return open_vault(self.store, PASSWORD) if self.reopens else seen_anew(self.vault)

    def _extract(self, vault: OpenVault, tree: str) -> None:
        out = self.folder / "out"
        out.mkdir()
        try:
            extract(vault, tree, out, Tally())
        finally:
            shutil.rmtree(out)

    def _try(self, name: str, refused: list[str], work: Callable[[], Any]) -> Any:
        try:
            return work()
        except RefloatError as error:
            assert error.message, name
            refused.append(f"{name} {error.code}")
            return None


def _mutated(body: bytes, rng: random.Random) -> bytes:
    changed = bytearray(body)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _cut(body: bytes, rng: random.Random) -> bytes:
    return body[: rng.randrange(len(body) + 1)]


def _extended(body: bytes, rng: random.Random) -> bytes:
    return body + rng.randbytes(rng.choice((1, 16, 1000)))


def _emptied(_: bytes, __: random.Random) -> bytes:
    return b""


def _noise(body: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(len(body))


def main(seed: int, count: int, folder: Path) -> None:
    """Run the cases; a line each, and one with the memory used at the end."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    fuzz = Fuzz(seed, folder)
    for number in range(count):
        begun = time.monotonic()
        name, trace, refused = fuzz.case(), None, list[str]()
        print(json.dumps({"case": number, "name": name}), flush=True)
        try:
            refused = fuzz.use()
        except Exception:  # noqa: BLE001 - what is looked for
            trace = traceback.format_exc()
        seconds = round(time.monotonic() - begun, 3)
        print(json.dumps({"case": number, "refused": refused, "trace": trace, "seconds": seconds}), flush=True)
    print(json.dumps({"peak_bytes": _peak_bytes()}), flush=True)


def _peak_bytes() -> int:
    """Of this program alone: getrusage(2) would tell the size of the one it was started by, if that is larger."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
