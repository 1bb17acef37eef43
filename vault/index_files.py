"""Index files as prune reads and writes them: which packs one names, and new ones with all entries of a pack in one."""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from refloat.errors import IntegrityError
from vault.blobs import ID_BYTES, PackedBlob
from vault.files import FileKind, SealedFiles
from vault.index import encode_pack, join_packs

INDEX_BLOBS = 50_000
"""restic closes an index file at that many blobs."""


def packs_named(text: bytes) -> list[bytes]:
    """The ids of the packs that an index file names.

    Raises:
        IntegrityError: It is no index file.
    """
    try:
        packs = [bytes.fromhex(pack["id"]) for pack in orjson.loads(text)["packs"] or ()]
    except (ValueError, KeyError, TypeError) as wrong:
        raise IntegrityError(f"an index file does not say what it must: {wrong!r}") from wrong
    if any(len(pack) != ID_BYTES for pack in packs):
        raise IntegrityError("an index file names a pack by an id of the wrong length")
    return packs


class IndexWriter:
    """Writes index files, all entries of a pack in one. Not thread-safe."""

    def __init__(self, files: SealedFiles) -> None:
        self._files = files
        self._texts: list[bytes] = []
        self._blobs = 0
        self.written: set[str] = set()
        """The names of the files so far."""

    def add(self, pack: bytes, blobs: Iterable[PackedBlob]) -> None:
        """Name a pack.

        Raises:
            ProviderError: The store refuses a file.
        """
        listed = list(blobs)
        self._texts.append(encode_pack(pack, listed))
        self._blobs += len(listed)
        if self._blobs >= INDEX_BLOBS:
            self.flush()

    def flush(self) -> None:
        """Write what is not written yet.

        Raises:
            ProviderError: The store refuses the file.
        """
        if self._texts:
            self.written.add(self._files.write(FileKind.INDEX, join_packs(self._texts)))
            self._texts, self._blobs = [], 0
