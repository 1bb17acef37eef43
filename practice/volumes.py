"""Volumes and their snapshots as folders: made, copied whole, removed.

A copy keeps modes, owners, times, links and extended attributes; it shares blocks where the file system can.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import uuid
from pathlib import Path

DRIVER = "practice.refloat.io"


class Volumes:
    """The folders below ``root``: ``volumes/vol-…`` and ``snapshots/snap-…``; handles are the folders' names."""

    def __init__(self, root: Path) -> None:
        self._volumes, self._snapshots = root / "volumes", root / "snapshots"
        self._volumes.mkdir(parents=True, exist_ok=True)
        self._snapshots.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()

    def path(self, handle: str) -> Path:
        """The folder of a volume or snapshot handle."""
        home = self._snapshots if handle.startswith("snap-") else self._volumes
        return home / Path(handle).name

    def exists(self, handle: str) -> bool:
        """Whether the handle names a folder."""
        return self.path(handle).is_dir()

    def make(self, handle: str, *, source: str | None = None) -> None:
        """Make a volume, empty or with the content of a snapshot; making it twice is harmless."""
        with self._lock:
            if self.exists(handle):
                return
            if source is None:
                self.path(handle).mkdir(mode=0o755)
            else:
                self._copy(self.path(source), self.path(handle))

    def snapshot(self, volume: str, handle: str) -> int:
        """Copy a volume into a snapshot; returns the bytes its files hold. Cutting it twice keeps the first cut."""
        with self._lock:
            if not self.exists(handle):
                self._copy(self.path(volume), self.path(handle))
        return size_of(self.path(handle))

    def remove(self, handle: str) -> None:
        """Remove a folder; its absence is fine."""
        shutil.rmtree(self.path(handle), ignore_errors=True)

    def _copy(self, source: Path, target: Path) -> None:
        """Copy under another name first, so that what exists is whole."""
        partial = target.with_name(f".{target.name}-{uuid.uuid4().hex[:8]}")
        partial.mkdir()
        words = ["cp", "-a", "--reflink=auto", "--sparse=auto", f"{source}/.", f"{partial}/"]
        copied = subprocess.run(words, capture_output=True, text=True, check=False)
        if copied.returncode != 0:
            shutil.rmtree(partial, ignore_errors=True)
            raise OSError(f"copying {source} failed: {copied.stderr.strip()[-300:]}")
        partial.rename(target)


def size_of(folder: Path) -> int:
    """Bytes in the files below ``folder``."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def bytes_of(quantity: str | int) -> int:
    """A resource quantity (``1Gi``, ``500M``, ``1024``) in bytes."""
    text = str(quantity)
    number = text.rstrip("kMGTi")
    return int(float(number) * _UNITS[text[len(number) :]])
