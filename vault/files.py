"""Stored files of a vault: their keys under the prefix, their names (the SHA-256 of their bytes), and unpacked JSON.

Restic's design document, "Repository Layout" and "Unpacked Data Format".
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import Enum
from hashlib import sha256

from refloat.errors import AlreadyExists, IntegrityError, NotFound, RangeNotSatisfiable
from refloat.ports.object_store import ObjectStore, StoredObject
from vault.blobs import BlobCodec
from vault.compressing import BadFrame
from vault.sealing import BadSeal, MasterKey

CONFIG = "config"
Reopen = Callable[[], ObjectStore]
"""Opens the vault's store once more, for a worker process: connections cannot be shared."""
NAME = re.compile(r"[0-9a-f]{64}")


class FileKind(Enum):
    """The folders of a vault."""

    KEY = "keys"
    LOCK = "locks"
    SNAPSHOT = "snapshots"
    INDEX = "index"
    PACK = "data"


LARGEST_BYTES = {
    FileKind.KEY: 1 << 20, FileKind.LOCK: 1 << 20, FileKind.SNAPSHOT: 16 << 20, FileKind.INDEX: 64 << 20,
}  # fmt: skip
"""Most bytes of a small file, stored or as text, that are read into memory."""


def key_of(kind: FileKind, name: str) -> str:
    """The store's key of a file."""
    return f"data/{name[:2]}/{name}" if kind is FileKind.PACK else f"{kind.value}/{name}"


def stored(store: ObjectStore, kind: FileKind) -> Iterator[tuple[str, StoredObject]]:
    """Name and facts of every file of a kind; what bears no name of 64 digits is nobody's, as in restic."""
    for found in store.list(f"{kind.value}/"):
        name = found.key.rpartition("/")[2]
        if NAME.fullmatch(name) and found.key == key_of(kind, name):
            yield name, found


def require_small(kind: FileKind, name: str, size_bytes: int) -> None:
    """Refuse to read a small file that is far larger than any of its kind is.

    Raises:
        IntegrityError: It is.
    """
    if size_bytes > LARGEST_BYTES[kind]:
        raise IntegrityError(f"{key_of(kind, name)} is damaged: it has {size_bytes} bytes", file=name)


def read_named(store: ObjectStore, kind: FileKind, name: str) -> bytes:
    """The bytes of a file, checked against its name.

    Raises:
        NotFound: There is none.
        IntegrityError: The bytes are not those it was stored with.
    """
    body = store.get(key_of(kind, name))
    if sha256(body).hexdigest() != name:
        raise IntegrityError(f"{key_of(kind, name)} in {store.url} is damaged: it is not what was stored", file=name)
    return body


def write_named(store: ObjectStore, kind: FileKind, name: str, body: bytes | memoryview) -> None:
    """Create a file. One of that name holds the same bytes already, and is left alone."""
    with suppress(AlreadyExists):  # also what a repeated request meets when only the first one's answer was lost
        store.put(key_of(kind, name), body, if_absent=True, sha256=bytes.fromhex(name))


class SealedFiles:
    """Reads and writes a vault's sealed files. Callable from several threads."""

    def __init__(self, store: ObjectStore, key: MasterKey) -> None:
        self.store = store
        self.key = key
        self._local = threading.local()

    @property
    def codec(self) -> BlobCodec:
        """This thread's own codec."""
        found: BlobCodec | None = getattr(self._local, "codec", None)
        if found is None:
            found = self._local.codec = BlobCodec(self.key)
        return found

    def read(self, kind: FileKind, name: str) -> bytes:
        """The JSON text of a lock, index or snapshot record.

        Raises:
            NotFound: There is no such file.
            IntegrityError: It is not what was stored, or not of this vault.
        """
        body = read_named(self.store, kind, name)
        try:
            return self.codec.compressor.decode_unpacked(self.codec.sealer.open(body), LARGEST_BYTES[kind])
        except (BadSeal, BadFrame) as wrong:
            raise IntegrityError(f"{key_of(kind, name)} in {self.store.url} is damaged: {wrong}", file=name) from wrong

    def write(self, kind: FileKind, text: bytes) -> str:
        """Store JSON text as a new file; its name."""
        body = self.codec.sealer.seal(self.codec.compressor.encode_unpacked(text))
        name = sha256(body).hexdigest()
        write_named(self.store, kind, name, body)
        return name

    def read_part(self, pack: bytes, start: int, length: int) -> bytes:
        """Bytes of a pack.

        Raises:
            IntegrityError: The pack is gone or shorter than the index says.
        """
        key = key_of(FileKind.PACK, pack.hex())
        try:
            return self.store.get(key, start=start, length=length)
        except NotFound as gone:
            raise IntegrityError(f"pack {key} of {self.store.url} is gone", pack=pack.hex()) from gone
        except RangeNotSatisfiable as short:
            raise IntegrityError(f"pack {key} of {self.store.url} is cut off", pack=pack.hex()) from short
