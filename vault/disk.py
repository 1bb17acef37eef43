"""The file system beside the mover: its errors, what stat(2) says as a node, and extended attributes."""

from __future__ import annotations

import base64
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from refloat.errors import AccessDenied, RefloatError, StoreFull, TransferFailed
from refloat.folder_facts import FolderFacts
from vault.nodes import CHARDEV, DEV, FILE, SYMLINK, TYPES, Node

OF_THE_MOUNT = frozenset({"security.selinux"})
"""Attributes that the node gives a mounted volume and not the application its files: neither stored nor restored."""
_LINKED = (FILE, SYMLINK, DEV, CHARDEV)


@contextmanager
def translated(what: str) -> Iterator[None]:
    """The one place where the volume's errors become ours: ``what`` says what did not happen."""
    try:
        yield
    except OSError as error:
        raise explained(what, error) from error


def explained(what: str, error: OSError) -> RefloatError:
    """The error in words of ours."""
    text = f"{what}: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreFull(text, guidance="The volume is too small for the data: recover onto a larger one.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        guidance = "The mover must run as root, with the capabilities a container has by default, on a writable volume."
        return AccessDenied(text, guidance=guidance)
    return TransferFailed(text, guidance="Look at the volume and its node, then run again; what was done is reused.")


def shown(path: bytes) -> str:
    """A path as text for people: bytes that are no UTF-8 as ``\\xNN``."""
    return path.decode("utf-8", "backslashreplace")


def node_of(name: bytes, found: os.stat_result, device_id: int) -> Node | None:
    """The node of what stat(2) describes, without content; None for what is no file system object of a known type."""
    kind = TYPES.get(stat.S_IFMT(found.st_mode))
    if kind is None:
        return None
    return Node(
        name=name,
        type=kind,
        mode=stat.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
        mtime=found.st_mtime_ns,
        ctime=found.st_ctime_ns,
        inode=found.st_ino,
        device_id=device_id if kind == FILE and found.st_nlink > 1 else 0,
        size=found.st_size if kind == FILE else 0,
        links=found.st_nlink if kind in _LINKED else 0,
        device=found.st_rdev if kind in (DEV, CHARDEV) else 0,
    )


def facts_of(folder: int) -> FolderFacts:
    """Facts of an open folder that a tree does not hold: trees list only what is in a folder.

    Raises:
        OSError: They cannot be read.
    """
    found = os.fstat(folder)
    xattrs = {name: base64.b64encode(value).decode() for name, value in read_xattrs(folder)}
    mode = stat.S_IMODE(found.st_mode)
    return FolderFacts(mode=mode, uid=found.st_uid, gid=found.st_gid, mtime_ns=found.st_mtime_ns, xattrs=xattrs)


def apply_facts(node: Node, facts: FolderFacts) -> None:
    """Give a folder's node what the facts say."""
    node.mode, node.uid, node.gid = facts.mode, facts.uid, facts.gid
    node.mtime = node.ctime = facts.mtime_ns
    node.xattrs = tuple((name, base64.b64decode(value)) for name, value in facts.xattrs.items())


def names_in(folder: int) -> list[bytes]:
    """The names in an open folder, in the order of their bytes."""
    listed = os.listdir(folder)
    return sorted(os.fsencode("\0".join(listed)).split(b"\0")) if listed else []  # one conversion for all


def path_below(folder: int, name: bytes) -> bytes:
    """A path for the calls that take no folder descriptor; it follows no symbolic link on its way."""
    return b"/proc/self/fd/%d/%s" % (folder, name)


def read_xattrs(where: int | bytes) -> tuple[tuple[str, bytes], ...]:
    """Extended attributes of an open file or a path, access control lists among them; by name.

    Raises:
        OSError: They cannot be read. A file system without any is no error.
        UnicodeEncodeError: A name is no UTF-8: restic's format cannot hold it.
    """
    follow = isinstance(where, int)
    names = _list_xattrs(where)
    for name in names:
        name.encode()
    return tuple((name, os.getxattr(where, name, follow_symlinks=follow)) for name in sorted(names))


def write_xattrs(where: int | bytes, wanted: tuple[tuple[str, bytes], ...]) -> None:
    """Make the extended attributes these, and no others.

    Raises:
        OSError: One cannot be set or removed.
    """
    follow = isinstance(where, int)
    names = {name for name, _ in wanted}
    for name in _list_xattrs(where):
        if name not in names:
            os.removexattr(where, name, follow_symlinks=follow)
    for name, value in wanted:
        if name not in OF_THE_MOUNT:
            os.setxattr(where, name, value, follow_symlinks=follow)


def _list_xattrs(where: int | bytes) -> list[str]:
    try:
        return [n for n in os.listxattr(where, follow_symlinks=isinstance(where, int)) if n not in OF_THE_MOUNT]
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise
