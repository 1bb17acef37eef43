"""Finding: one path inside a copy, what a folder of it lists, the bytes of one file, and one path brought back."""

from __future__ import annotations

import base64
import difflib
import os
import secrets
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from refloat.errors import AlreadyExists, ConfigError, Unsupported
from refloat.folder_facts import FolderFacts
from vault import placing
from vault.blobs import PackedBlob
from vault.chunking import zero_id, zeros
from vault.device_extract import REQUEST_BYTES, REQUESTS, Content, fill_new_file
from vault.disk import apply_facts, shown, translated
from vault.extract import extract
from vault.files import Reopen
from vault.folders import OPEN_FOLDER
from vault.nodes import CHARDEV, DEV, DIR, FILE, SOCKET, SYMLINK, Node
from vault.reading import BlobReader, Place, Range
from vault.repository import OpenVault
from vault.tally import Tally

WINDOW_BYTES = 16 << 20
"""A file is read by windows of that size, in each by pack and offset."""
WINDOWS_AHEAD = 2
MOST_NAMED = 3


@dataclass(frozen=True)
class Restored:
    """What was brought back: regular files, the sum of their sizes, and whether owners are as they were: only root may
    give files away.
    """

    files: int
    data_bytes: int
    keeps_owner: bool


def written(name: bytes) -> str:
    """A name or path for people: what is no UTF-8, or would move a terminal's cursor, is escaped."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in shown(name))


def find(reader: BlobReader, tree: str, path: str, *, top: FolderFacts | None = None) -> Node:
    """What a path below a tree leads to; the empty path to the tree itself, a folder with the facts of ``top``.

    Each name is taken as it is, and where nothing bears it, as ``vault.disk.shown`` writes names that are no UTF-8. No
    symbolic link is followed: it may lead out of the copy.

    Raises:
        ConfigError: There is no such path; the message names the closest there is.
        IntegrityError: A tree is unknown or damaged.
    """
    here = Node(b"", DIR, 0o700, uid=0, gid=0, mtime=0, ctime=0, subtree=bytes.fromhex(tree))
    if top is not None:
        apply_facts(here, top)
    before: list[bytes] = []
    for name in (part for part in path.split("/") if part not in ("", ".")):
        where = written(b"/".join(before)) or "its top"
        if here.type == SYMLINK:
            leads = written(here.target)
            raise ConfigError(f"{where} is a symbolic link to {leads} and not followed", guidance="Give the real path.")
        if here.type != DIR:
            raise ConfigError(f"{where} is a {here.type} and holds nothing")
        here = _named(reader.tree(here.subtree), name, path, where)
        before.append(here.name)
    return here


def _named(nodes: list[Node], name: str, path: str, where: str) -> Node:
    raw = os.fsencode(name)
    found = [node for node in nodes if node.name == raw] or [node for node in nodes if shown(node.name) == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"{len(found)} names of {where} are written {name}: restore the folder instead")
    names = {shown(node.name): written(node.name) for node in nodes}
    wanted = shown(raw)
    close = [known for known in names if known.lower() == wanted.lower()]
    close += [each for each in difflib.get_close_matches(wanted, names, MOST_NAMED) if each not in close]
    said = ", ".join(names[each] for each in close[:MOST_NAMED])
    hint = f"; the closest there {'are' if len(close) > 1 else 'is'} {said}" if close else ""
    raise ConfigError(
        f"the copy holds no {written(os.fsencode(path))}: nothing in {where} is named {written(raw)}{hint}",
        guidance="List a folder with --list.",
    )


def listing(reader: BlobReader, node: Node) -> list[Node]:
    """What a folder holds, by name; of anything else, itself.

    Raises:
        IntegrityError: The tree is unknown or damaged.
    """
    return reader.tree(node.subtree) if node.type == DIR else [node]


def contents(reader: BlobReader, node: Node) -> Iterator[bytes]:
    """The bytes of one file in order, every piece verified before it is given; several requests are under way ahead.

    Close the iterator to end early.

    Raises:
        ConfigError: It is no file.
        IntegrityError: A blob is unknown, gone or damaged; what was given before is right.
    """
    if node.type != FILE:
        raise ConfigError(f"{shown(node.name) or 'the top'} is a {node.type}, and has no content to be written out")
    content = Content(reader, node, shown(node.name))
    pool = ThreadPoolExecutor(REQUESTS, thread_name_prefix="read file")
    try:
        ahead: deque[_Window] = deque()
        for blobs in _windows(content):
            ahead.append(_Window(reader, blobs, pool))
            if len(ahead) > WINDOWS_AHEAD:
                yield from ahead.popleft().pieces()
        while ahead:
            yield from ahead.popleft().pieces()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _windows(content: Content) -> Iterator[list[Place]]:
    window: list[Place] = []
    size = 0
    for _, pack, blob in content:
        window.append((pack, blob))
        size += blob.size_bytes
        if size >= WINDOW_BYTES:
            yield window
            window, size = [], 0
    if window:
        yield window


class _Window:
    """Neighbouring pieces of a file; reading begins at once."""

    def __init__(self, reader: BlobReader, blobs: list[Place], pool: ThreadPoolExecutor) -> None:
        self._blobs = blobs
        data = [(pack, blob) for pack, blob in blobs if not _is_zero(blob)]

        def read(wanted: Range) -> dict[bytes, bytes]:
            return {blob.id: plain for blob, plain in reader.read_range(wanted)}

        self._parts: list[Future[dict[bytes, bytes]]] = [
            pool.submit(read, each) for each in reader.ranges(data, REQUEST_BYTES)
        ]

    def pieces(self) -> Iterator[bytes]:
        """In order."""
        found = {blob_id: plain for part in self._parts for blob_id, plain in part.result().items()}
        for _, blob in self._blobs:
            yield zeros(blob.size_bytes) if _is_zero(blob) else found[blob.id]


def _is_zero(blob: PackedBlob) -> bool:
    return blob.id == zero_id(blob.size_bytes)


def restore(
    vault: OpenVault,
    node: Node,
    folder: Path,
    tally: Tally,
    *,
    is_overwriting: bool = False,
    reopen: Reopen | None = None,
) -> Restored:
    """Bring back what ``find`` found: a folder's content into a folder, which becomes equal to it; anything else into a
    folder under its own name, complete or not at all.

    Raises:
        ConfigError: There is no such folder.
        AlreadyExists: The name is taken, and ``is_overwriting`` is not set. Of a folder, nothing is asked: the caller
            has looked.
        Unsupported: It is a socket.
        RefloatError: As ``vault.extract.extract``.
    """
    if node.type == DIR:
        top = None if not node.name and not node.mtime else _facts(node)
        done = extract(vault, node.subtree.hex(), folder, tally, top=top, reopen=reopen)
        return Restored(done.files, done.data_bytes, keeps_owner=True)
    if node.type == SOCKET:
        raise Unsupported(f"{shown(node.name)} is a socket: it means something to its server alone")
    try:
        at = os.open(folder, OPEN_FOLDER)
    except OSError as error:
        raise ConfigError(f"{folder} is no folder that can be written to: {error.strerror}") from error
    path = folder / os.fsdecode(node.name)
    try:
        with translated(f"{shown(os.fsencode(path))} cannot be made"):
            keeps_owner = _restore_one(vault, node, at, path, tally, is_overwriting=is_overwriting)
    finally:
        os.close(at)
    return Restored(int(node.type == FILE), node.size, keeps_owner)


def _restore_one(vault: OpenVault, node: Node, folder: int, path: Path, tally: Tally, *, is_overwriting: bool) -> bool:
    """Made under a name nobody uses, then named in one step; whether the owner is as it was."""
    if not is_overwriting and placing.look(folder, node.name) is not None:
        raise AlreadyExists(f"{shown(os.fsencode(path))} exists already; nothing was changed")
    unfinished = b".refloat-" + secrets.token_hex(8).encode()
    try:
        if node.type == FILE:
            keeps_owner = _make_file(vault, node, folder, unfinished, path, tally)
        else:
            keeps_owner = _make_special(folder, replace(node, name=unfinished))
        if is_overwriting:
            os.rename(unfinished, node.name, src_dir_fd=folder, dst_dir_fd=folder)
        else:
            try:
                os.link(unfinished, node.name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            except FileExistsError as taken:
                raise AlreadyExists(f"{shown(os.fsencode(path))} has come to exist; nothing was changed") from taken
    finally:
        with suppress(FileNotFoundError):
            os.unlink(unfinished, dir_fd=folder)
    os.fsync(folder)
    return keeps_owner


def _make_file(vault: OpenVault, node: Node, folder: int, name: bytes, path: Path, tally: Tally) -> bool:
    file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        fill_new_file(BlobReader(vault.files, vault.index()), node, file, path, tally)
        keeps_owner = True
        try:
            placing.set_node_facts(file, node)
        except PermissionError:
            if os.geteuid() == 0:
                raise
            keeps_owner = False
            os.fchmod(file, node.mode & 0o777)  # set-id bits would mean another owner
            os.utime(file, ns=(node.mtime, node.mtime))
        os.fsync(file)
    finally:
        os.close(file)
    tally.add(files=1)
    return keeps_owner


def _make_special(folder: int, node: Node) -> bool:
    try:
        placing.make_special(folder, node)
    except PermissionError:
        if os.geteuid() == 0 or node.type in (DEV, CHARDEV) or placing.look(folder, node.name) is None:
            raise
        return False
    return True


def _facts(node: Node) -> FolderFacts:
    xattrs = {name: base64.b64encode(value).decode() for name, value in node.xattrs}
    return FolderFacts(mode=node.mode, uid=node.uid, gid=node.gid, mtime_ns=node.mtime, xattrs=xattrs)
