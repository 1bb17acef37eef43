"""Claims: which of several worker processes stores a blob that all of them meet."""

from __future__ import annotations

import mmap
import multiprocessing
from hashlib import sha256

from vault.blobs import ID_BYTES, BlobKind

_SLOTS = 1 << 17
"""4 MiB. A claim is forgotten when another takes its slot; a blob met after that is stored twice, which is valid."""


class Claims:
    """Made before the workers are forked; each calls ``take`` on its own copy of it."""

    def __init__(self) -> None:
        self._slots = mmap.mmap(-1, _SLOTS * ID_BYTES)
        self._guard = multiprocessing.get_context("fork").Lock()

    def take(self, kind: BlobKind, blob_id: bytes) -> bool:
        """Whether the caller is the one to store the blob: nobody claimed it, as far as is remembered."""
        if kind is BlobKind.TREE:
            blob_id = sha256(blob_id).digest()  # a file may hold the very bytes of a tree
        start = int.from_bytes(blob_id[:4], "little") % _SLOTS * ID_BYTES
        with self._guard:
            if self._slots[start : start + ID_BYTES] == blob_id:
                return False
            self._slots[start : start + ID_BYTES] = blob_id
            return True
