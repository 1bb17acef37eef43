"""The object store of this machine: a folder whose files are the objects; ``file:///path``.

A put writes a file under a name that is no legal key, syncs it, then gives it its key in one system call: link(2)
never replaces (create-if-absent has one winner), rename(2) always does. What a killed process leaves unfinished is
therefore never listed. Files whose names are no legal keys are nobody's objects here.
"""

from __future__ import annotations

import errno
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from stat import S_ISREG
from urllib.parse import unquote, urlsplit

from refloat.errors import (
    AccessDenied,
    AlreadyExists,
    ConfigError,
    NotFound,
    Permanent,
    ProviderError,
    RangeNotSatisfiable,
    StoreFull,
    TimedOut,
    Unavailable,
    Unsupported,
)
from refloat.ports.object_store import KEY, MAX_KEY, ObjectStoreCapabilities, StoredObject, validate_key

UNFINISHED = "UNFINISHED-"
"""Upper case: no key begins so."""
CONCURRENCY = 4
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)
_KINDS: dict[int, type[ProviderError]] = {
    **dict.fromkeys(_ABSENT, NotFound),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), StoreFull),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), AccessDenied),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOTCONN), Unavailable),
    **dict.fromkeys((errno.ENOMEM, errno.EHOSTDOWN, errno.EHOSTUNREACH), Unavailable),
    errno.ETIMEDOUT: TimedOut,
}


def open_store(url: str, environment: Mapping[str, str]) -> FolderObjectStore:  # noqa: ARG001 (the contract's shape)
    """The store in a folder of this machine, which need not exist yet.

    Raises:
        ConfigError: The URL does not name a folder by its absolute path, or names a file.
    """
    parts = urlsplit(url)
    path = unquote(parts.path)
    shown = "the vault's address" if "@" in parts.netloc else url
    if parts.scheme != "file" or parts.netloc or parts.query or parts.fragment or "\0" in path:
        raise ConfigError(f"{shown} is no folder's address", guidance="Write file:///path, with three slashes.")
    root = Path(path)
    if not root.is_absolute() or root == Path("/"):
        raise ConfigError(f"{url} names no folder", guidance="Write file:///path, with three slashes.")
    with suppress(OSError):  # what may not even be looked at is said by the first call
        if root.exists() and not root.is_dir():
            raise ConfigError(f"{url} is a file, not a folder")
    return FolderObjectStore(root, url)


@contextmanager
def _translated(what: str, key: str | None = None) -> Iterator[None]:
    """The one place where the system's errors become ours."""
    try:
        yield
    except OSError as error:
        kind = _KINDS.get(error.errno or 0, Permanent)
        raise kind(f"{what}: {error.strerror or error}", key=key) from error


class FolderObjectStore:
    """``refloat.ports.object_store.ObjectStore`` over one folder, made on the first put."""

    def __init__(self, root: Path, url: str) -> None:
        self._root, self._url = root, url
        self._on_disk: set[Path] = set()
        """Folders whose names this process has synced, or found synced: once each, and not for every put."""

    @property
    def url(self) -> str:
        """The address it was opened with."""
        return self._url

    def capabilities(self) -> ObjectStoreCapabilities:
        """Known without a probe: link(2) refuses an existing name or fails; it never pretends (POSIX.1)."""
        return ObjectStoreCapabilities(
            conditional_create=True, is_local=True, max_object_bytes=sys.maxsize, advised_concurrency=CONCURRENCY
        )

    def put(
        self,
        key: str,
        body: bytes | bytearray | memoryview,
        *,
        if_absent: bool = False,
        sha256: bytes | None = None,  # noqa: ARG002 (the contract's shape)
    ) -> None:
        """Store ``body`` whole and on disk; a folder has no use for its digest.

        Raises:
            AlreadyExists: ``if_absent`` and the key exists.
            StoreFull: No room.
            Unsupported: The file system has no hard links, cannot hold so long a name, or a key that is the folder
                of another.
        """
        target = self._root / validate_key(key)
        unfinished = target.with_name(f"{UNFINISHED}{secrets.token_hex(12)}")
        what = f"{self._place(key)} cannot be stored"
        with _translated(what, key):
            try:
                self._make_folder(target.parent)
                _write(unfinished, body)
                if if_absent:
                    _link(unfinished, target)
                else:
                    unfinished.replace(target)
                _sync_folder(target.parent)
            except FileExistsError as taken:
                raise AlreadyExists(f"{self._place(key)} exists already", key=key) from taken
            except (NotADirectoryError, IsADirectoryError) as taken:
                raise Unsupported(f"{what}: another key is its folder, or lies in a folder of its name") from taken
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                raise Unsupported(f"{what}: too long a name for this file system", key=key) from error
            finally:
                with suppress(OSError):
                    unfinished.unlink()

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """The bytes from ``start``, exactly ``length`` of them, or all to the end.

        Raises:
            NotFound: No such key.
            RangeNotSatisfiable: Fewer bytes exist than asked for.
        """
        with (
            _translated(f"{self._place(key)} cannot be read", key),
            (self._root / validate_key(key)).open("rb") as file,
        ):
            size = os.fstat(file.fileno()).st_size
            wanted = size - start if length is None else length
            if start < 0 or wanted < 0 or start + wanted > size:
                raise RangeNotSatisfiable(f"{self._place(key)} has {size} bytes, not {wanted} from {start}", key=key)
            file.seek(start)
            found = file.read(wanted)
            if len(found) != wanted:
                raise RangeNotSatisfiable(f"{self._place(key)} gave {len(found)} bytes instead of {wanted}", key=key)
            return found

    def stat(self, key: str) -> StoredObject:
        """Size and time.

        Raises:
            NotFound: No such key.
        """
        with _translated(f"{self._place(key)} cannot be read", key):
            found = (self._root / validate_key(key)).stat()
        if not S_ISREG(found.st_mode):
            raise NotFound(f"{self._place(key)} is no object", key=key)
        return _described(key, found)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Every object whose key starts with ``prefix``, sorted by key; one folder is read at a time."""
        return self._walk(self._root, "", prefix)

    def _walk(self, folder: Path, above: str, prefix: str) -> Iterator[StoredObject]:
        with _translated(f"{folder} cannot be listed"):
            try:
                with os.scandir(folder) as entries:
                    # "-" and "." sort before "/": a folder takes its place by the keys that are in it
                    found = sorted((f"{above}{e.name}/" if e.is_dir() else f"{above}{e.name}", e) for e in entries)
            except FileNotFoundError:
                return
        for key, entry in found:
            if key.endswith("/"):
                if key.startswith(prefix) or prefix.startswith(key):
                    yield from self._walk(Path(entry.path), key, prefix)
            elif key.startswith(prefix) and len(key) <= MAX_KEY and KEY.match(key):
                with _translated(f"{self._place(key)} cannot be read", key), suppress(FileNotFoundError):
                    facts = entry.stat()
                    if S_ISREG(facts.st_mode):
                        yield _described(key, facts)

    def delete(self, key: str) -> None:
        """Remove the object, also on disk: what is deleted later is never gone before it after a power cut.

        Succeeds when it is already gone.
        """
        target = self._root / validate_key(key)
        with _translated(f"{self._place(key)} cannot be removed", key):
            try:
                target.unlink()
                _sync_folder(target.parent)
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise

    def mover_environment(self) -> Mapping[str, str]:
        """Nothing: a folder asks for no credentials."""
        return {}

    def close(self) -> None:
        """Nothing is held open."""

    def _make_folder(self, folder: Path) -> None:
        """The folder and those above it, their names on disk, also where another process has just made them."""
        missing = folder
        made: list[Path] = []
        while not missing.is_dir():
            made.append(missing)
            missing = missing.parent
        for path in reversed(made):
            try:
                path.mkdir(mode=0o700, exist_ok=True)
            except FileExistsError as taken:
                raise NotADirectoryError(errno.ENOTDIR, "is a file", str(path)) from taken
        within = [path for path in (folder, *folder.parents) if path.is_relative_to(self._root) and path != self._root]
        for path in {*made, *within} - self._on_disk if made or folder not in self._on_disk else ():
            _sync_folder(path.parent)
            self._on_disk.add(path)

    def _place(self, key: str) -> str:
        return f"{self._root}/{key}"


def _described(key: str, found: os.stat_result) -> StoredObject:
    return StoredObject(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))


def _write(path: Path, body: bytes | bytearray | memoryview) -> None:
    """A new file, complete on disk on return."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())


def _link(unfinished: Path, target: Path) -> None:
    """Give the file its key unless something has it. exFAT, some network and FUSE file systems have no links."""
    try:
        target.hardlink_to(unfinished)
    except OSError as error:
        if error.errno == errno.EEXIST and target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder", str(target)) from error
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        raise Unsupported(
            f"the file system of {target.parent} has no hard links: two writers could overwrite each other",
            guidance="Put the vault on a file system with hard links (ext4, xfs, btrfs, NFS), or use an object store.",
        ) from error


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)
