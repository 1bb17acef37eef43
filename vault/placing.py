"""Making things on the volume, confined to it: every call names one entry of an open folder and follows no link.

Names were checked when their tree was decoded; folders are opened one by one, so that neither a name nor a symbolic
link, met or made, leads elsewhere.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from vault.chunking import zeros
from vault.disk import names_in, path_below, write_xattrs
from vault.folders import OPEN_FOLDER
from vault.nodes import CHARDEV, DEV, FIFO, SYMLINK, Node

_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD_FILE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MADE = {FIFO: stat.S_IFIFO, DEV: stat.S_IFBLK, CHARDEV: stat.S_IFCHR}
Xattrs = tuple[tuple[str, bytes], ...]
HOLE_BYTES = 64 << 10
"""Zeros of that many bytes, at multiples of it, are left out of a new file."""


def look(folder: int, name: bytes) -> os.stat_result | None:
    """What bears the name; None when nothing does."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def is_folder(here: int, name: bytes) -> bool:
    """Whether the name is a folder, and no link to one."""
    return stat.S_ISDIR(os.stat(name, dir_fd=here, follow_symlinks=False).st_mode)


def remove(folder: int, name: bytes) -> None:
    """Remove an entry and, when it is a folder, all that is in it."""
    found = look(folder, name)
    if found is None:
        return
    if not stat.S_ISDIR(found.st_mode):
        os.unlink(name, dir_fd=folder)
        return
    stack = [(folder, name, _open_to_empty(folder, name))]
    try:
        while stack:
            above, own, here = stack[-1]
            for entry in names_in(here):
                try:
                    os.unlink(entry, dir_fd=here)
                except (IsADirectoryError, PermissionError):
                    stack.append((here, entry, _open_to_empty(here, entry)))
                    break
            else:
                stack.pop()
                os.close(here)
                os.rmdir(own, dir_fd=above)
    finally:
        for _, _, here in stack:
            os.close(here)


def _open_to_empty(folder: int, name: bytes) -> int:
    here = os.open(name, OPEN_FOLDER, dir_fd=folder)
    os.fchmod(here, 0o700)
    return here


def open_folder(folder: int, name: bytes) -> int:
    """A folder of that name, made unless it is there; what else bears the name is removed. Only we may enter it yet."""
    found = look(folder, name)
    if found is not None and not stat.S_ISDIR(found.st_mode):
        os.unlink(name, dir_fd=folder)
        found = None
    if found is None:
        os.mkdir(name, 0o700, dir_fd=folder)
    return _open_to_empty(folder, name)


def open_same(folder: int, name: bytes, size: int) -> int | None:
    """The regular file of that name, one name only and exactly that size, which is not 0; None when there is none: an
    earlier try may have written parts of it.
    """
    found = look(folder, name)
    if found is None or not stat.S_ISREG(found.st_mode) or found.st_size != size or found.st_nlink != 1 or not size:
        return None
    return os.open(name, _OLD_FILE, dir_fd=folder)


def open_file(folder: int, name: bytes, size: int) -> tuple[int, bool]:
    """A file of that name, and whether it is new and empty; ``open_same`` is kept, anything else is removed."""
    with suppress(FileExistsError):
        return os.open(name, _NEW_FILE, 0o600, dir_fd=folder), True
    same = open_same(folder, name, size)
    if same is not None:
        return same, False
    remove(folder, name)
    return os.open(name, _NEW_FILE, 0o600, dir_fd=folder), True


def open_part(folder: int, name: bytes) -> int:
    """A file that is there, for pieces to be written into."""
    return os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)


def open_to_finish(folder: int, name: bytes) -> int:
    """A regular file that is there, to be given its facts."""
    return os.open(name, _OLD_FILE, dir_fd=folder)


def link(above: int, first: bytes, folder: int, name: bytes) -> None:
    """Make the name one more of the file ``first`` in the folder ``above``."""
    known, here = look(above, first), look(folder, name)
    if known is not None and here is not None and (known.st_dev, known.st_ino) == (here.st_dev, here.st_ino):
        return
    remove(folder, name)
    os.link(first, name, src_dir_fd=above, dst_dir_fd=folder, follow_symlinks=False)


def make_special(folder: int, node: Node) -> None:
    """Make a symbolic link, a fifo or a device, with all its facts."""
    remove(folder, node.name)
    if node.type == SYMLINK:
        os.symlink(node.target, node.name, dir_fd=folder)
    else:
        os.mknod(node.name, _MADE[node.type] | 0o600, node.device, dir_fd=folder)
    path = path_below(folder, node.name)
    os.chown(node.name, node.uid, node.gid, dir_fd=folder, follow_symlinks=False)
    write_xattrs(path, node.xattrs)
    if node.type != SYMLINK:
        os.chmod(path, node.mode)  # noqa: PTH101 (bytes: names need not be UTF-8)
    os.utime(node.name, ns=(node.mtime, node.mtime), dir_fd=folder, follow_symlinks=False)


def set_facts(file: int, mode: int, uid: int, gid: int, mtime: int, xattrs: Xattrs) -> None:
    """Owner, attributes, mode and times (nanoseconds since 1970) of an open file or folder, in the order in which none
    undoes another: a new owner clears the set-id bits and capabilities, and a mode changes the mask of an access
    control list.
    """
    os.fchown(file, uid, gid)
    write_xattrs(file, xattrs)
    os.fchmod(file, mode)
    os.utime(file, ns=(mtime, mtime))


def set_node_facts(file: int, node: Node) -> None:
    """The same, of a node."""
    set_facts(file, node.mode, node.uid, node.gid, node.mtime, node.xattrs)


def runs(data: bytes) -> Iterator[tuple[int, memoryview]]:
    """What of a piece has to be written into a new file, which has its size already: all but longer zeros."""
    start, view = 0, memoryview(data)
    for place in range(0, len(data) - HOLE_BYTES + 1, HOLE_BYTES):
        end = place + HOLE_BYTES
        if not data[place] and not data[end - 1] and data[place:end] == zeros(HOLE_BYTES):
            if place > start:
                yield start, view[start:place]
            start = end
    if start < len(data):
        yield start, view[start:]


def write_new(file: int, offset: int, data: bytes) -> None:
    """Write into a new file; the file has its size already, so that zeros can be left out."""
    for start, run in runs(data):
        write_all(file, offset + start, run)


def write_all(file: int, offset: int, data: bytes | memoryview) -> None:
    """Write all of it."""
    while len(data):
        written = os.pwrite(file, data, offset)
        offset += written
        data = memoryview(data)[written:]


def sync(folder: int) -> None:
    """Bring everything on the folder's file system to its disk (syncfs(2)), and learn of writes that failed."""
    if ctypes.CDLL(None, use_errno=True).syncfs(folder) != 0:
        number = ctypes.get_errno()
        if number != errno.ENOSYS:
            raise OSError(number, os.strerror(number))
