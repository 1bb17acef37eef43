"""Nodes and trees: what a folder holds, as JSON byte for byte like restic's own encoder writes it.

Restic's design document, "Trees and Data"; field order and omissions of ``internal/data/node.go``. No field of ours is
ever added: ``restic rewrite`` would refuse the tree. User and group names are left out: a mover could only tell its
own image's.
"""

from __future__ import annotations

import base64
import os
import re
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from refloat.errors import IntegrityError
from vault.blobs import ID_BYTES
from vault.gotext import decode_name, encode_name, json_inner
from vault.instants import format_instant, parse_instant
from vault.untrusted import load

FILE, DIR, SYMLINK, FIFO, DEV, CHARDEV, SOCKET = "file", "dir", "symlink", "fifo", "dev", "chardev", "socket"
TYPES = {
    stat.S_IFREG: FILE, stat.S_IFDIR: DIR, stat.S_IFLNK: SYMLINK, stat.S_IFIFO: FIFO, stat.S_IFBLK: DEV,
    stat.S_IFCHR: CHARDEV, stat.S_IFSOCK: SOCKET,
}  # fmt: skip
_GO_TYPES = {
    FILE: 0, DIR: 1 << 31, SYMLINK: 1 << 27, FIFO: 1 << 25, DEV: 1 << 26, CHARDEV: 1 << 26 | 1 << 21, SOCKET: 1 << 24,
}  # fmt: skip
_GO_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))
_NAMES_OF_NOTHING = (b"", b".", b"..")
_HEX = 2 * ID_BYTES
LARGE_TREE_BYTES = 4 << 20
NODE_LIMIT_BYTES = 384 << 20
"""Most memory that the JSON of one node may need: a file of two million chunks."""
_NEXT_NODE = re.compile(rb'\},(?=\{"name":"(?:[^"\\]|\\.)*","type":)')
"""Between two nodes; an extended attribute begins with its name too, but its value follows."""
_LARGEST_OWNER, _LARGEST_SIZE = (1 << 32) - 1, (1 << 63) - 1
"""uid_t and off_t of Linux; restic's own decoder refuses larger owners."""
_NUMBERS = ("inode", "device_id", "size", "links", "device")


@dataclass(slots=True)
class Node:
    """One entry of a folder. ``mode`` holds the permission bits of stat(2), 0o7777; times are nanoseconds since 1970.

    ``content``: the data blobs' ids end to end; only of a file. ``subtree``: a tree's id; only of a folder.
    """

    name: bytes
    type: str
    mode: int
    uid: int
    gid: int
    mtime: int
    ctime: int
    inode: int = 0
    device_id: int = 0
    size: int = 0
    links: int = 0
    target: bytes = b""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    device: int = 0
    content: bytes | bytearray = b""
    subtree: bytes = b""

    @property
    def blobs(self) -> list[bytes]:
        """The data blobs' ids in order."""
        content = self.content
        return [bytes(content[i : i + ID_BYTES]) for i in range(0, len(content), ID_BYTES)]


def encode_node(node: Node) -> bytes:
    """The node's JSON. The access time is the modification time, or every reading would change every tree."""
    text = f'{{"name":"{encode_name(node.name)}' + _encode_facts(
        node.type, node.mode, node.mtime, node.ctime, node.uid, node.gid, node.inode, node.device_id, node.size,
        node.links,
    )  # fmt: skip
    if node.target:
        text += _encode_target(node.target)
    if node.xattrs:
        text += ',"extended_attributes":[' + ",".join(map(_encode_xattr, node.xattrs)) + "]"
    if node.device:
        text += f',"device":{node.device}'
    text += ',"content":' + (_encode_ids(node.content) if node.type == FILE else "null")
    if node.type == DIR:
        text += f',"subtree":"{node.subtree.hex()}"'
    return (text + "}").encode()


def plain_file(found: os.stat_result) -> bytes:
    """What ``encode_node`` writes between the name of a regular file that has no other name and no attributes, and the
    ids of its blobs.
    """
    text = _encode_facts(
        FILE, found.st_mode & 0o7777, found.st_mtime_ns, found.st_ctime_ns, found.st_uid, found.st_gid, found.st_ino, 0,
        found.st_size, 1,
    )  # fmt: skip
    return (text + ',"content":[').encode()


def _encode_facts(
    kind: str, mode: int, mtime: int, ctime: int, uid: int, gid: int, inode: int, device_id: int, size: int, links: int
) -> str:
    go_mode, modified = _go_mode(kind, mode), format_instant(mtime)
    changed = modified if ctime == mtime else format_instant(ctime)
    text = f'","type":"{kind}",' + (f'"mode":{go_mode},' if go_mode else "")
    text += f'"mtime":"{modified}","atime":"{modified}","ctime":"{changed}","uid":{uid},"gid":{gid}'
    if inode:
        text += f',"inode":{inode}'
    if device_id:
        text += f',"device_id":{device_id}'
    if size:
        text += f',"size":{size}'
    return text + f',"links":{links}' if links else text


@lru_cache(maxsize=1024)
def _go_mode(kind: str, mode: int) -> int:
    """Go's bits of a mode."""
    return mode & 0o777 | _GO_TYPES[kind] | sum(go for bit, go in _GO_BITS if mode & bit)


@lru_cache(maxsize=1024)
def _our_mode(mode: int) -> int:
    """The permission bits of stat(2), of Go's."""
    return mode & 0o777 | sum(bit for bit, go in _GO_BITS if mode & go)


def _encode_target(target: bytes) -> str:
    text = target.decode("utf-8", "surrogateescape")
    encoded = f',"linktarget":"{json_inner(text)}"'
    if any("\udc80" <= character <= "\udcff" for character in text):
        encoded += f',"linktarget_raw":"{base64.b64encode(target).decode()}"'
    return encoded


def _encode_xattr(xattr: tuple[str, bytes]) -> str:
    name, value = xattr
    return f'{{"name":"{json_inner(name)}","value":"{base64.b64encode(value).decode()}"}}'


def _encode_ids(ids: bytes | bytearray) -> str:
    text = ids.hex()
    if len(text) == _HEX:
        return f'["{text}"]'
    return "[" + ",".join(f'"{text[i : i + _HEX]}"' for i in range(0, len(text), _HEX)) + "]"


def encode_tree(nodes: Iterable[bytes]) -> bytes:
    """A tree's text from its nodes' texts, which must be in ascending order of raw names."""
    return b'{"nodes":[' + b",".join(nodes) + b"]}\n"


def decode_tree(text: bytes) -> list[Node]:
    """The nodes of a tree, by whatever restic wrote.

    Raises:
        IntegrityError: It is no tree, or holds what no folder can hold: names with a slash, names twice or out of
            order, unknown types, a folder without a tree.
    """
    try:
        nodes = [_decode(value) for value in _values(text)]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as wrong:
        raise IntegrityError(f"a tree does not say what it must: {wrong}") from wrong
    previous = b""
    for node in nodes:
        if node.name in _NAMES_OF_NOTHING or b"/" in node.name or b"\0" in node.name:
            raise IntegrityError(f"a tree holds the impossible name {node.name!r}")
        if node.name <= previous:
            raise IntegrityError(f"a tree holds {node.name!r} twice or out of order")
        previous = node.name
    return nodes


def _values(text: bytes) -> Iterable[dict[str, Any]]:
    """The JSON values of a tree's nodes; of a large tree one by one, since all at once are several times its size.

    Raises:
        ValueError: It is no tree, or a large one that is not written as restic and we do.
    """
    if len(text) <= LARGE_TREE_BYTES:
        yield from orjson.loads(text)["nodes"] or ()
        return
    begin, end = text.find(b"{", 1), text.rfind(b"]}")
    if text[:begin] != b'{"nodes":[' or text[end:].rstrip() != b"]}":
        raise ValueError("a large tree in another form than restic's")
    for found in _NEXT_NODE.finditer(text, begin):
        yield load(text[begin : found.start() + 1], NODE_LIMIT_BYTES)
        begin = found.end()
    yield load(text[begin:end], NODE_LIMIT_BYTES)


def _decode(value: dict[str, Any]) -> Node:
    kind, get = value["type"], value.get
    if kind not in _GO_TYPES:
        raise ValueError(f"unknown type {kind!r}")
    content, subtree, xattrs = get("content"), get("subtree"), get("extended_attributes")
    if kind == FILE and content is None:
        raise ValueError("a file without content list")
    if (kind == DIR) != (subtree is not None):
        raise ValueError("a folder without tree, or a tree without folder")
    ids = bytes.fromhex("".join(content)) if content else b""
    if content and len(ids) != ID_BYTES * len(content):
        raise ValueError("an id of the wrong length")
    numbers = [value["uid"], value["gid"], *(get(name, 0) for name in _NUMBERS)]
    for number in numbers:
        if type(number) is not int or number < 0:
            raise ValueError(f"{number!r} is no natural number")
    uid, gid, inode, device_id, size, links, device = numbers
    if uid > _LARGEST_OWNER or gid > _LARGEST_OWNER or size > _LARGEST_SIZE:
        raise ValueError("an owner or a size that no file has")
    return Node(
        decode_name(value["name"]), kind, _our_mode(get("mode", 0)), uid, gid,
        parse_instant(value["mtime"]), parse_instant(value["ctime"]), inode, device_id, size, links,
        _decode_target(value) if kind == SYMLINK else b"",
        tuple(map(_decode_xattr, xattrs)) if xattrs else (),
        device, ids, _id(subtree) if subtree is not None else b"",
    )  # fmt: skip


def _id(text: str) -> bytes:
    found = bytes.fromhex(text)
    if len(found) != ID_BYTES:
        raise ValueError("an id of the wrong length")
    return found


def _decode_target(value: dict[str, Any]) -> bytes:
    raw = value.get("linktarget_raw")
    target = base64.b64decode(raw) if raw else str(value.get("linktarget") or "").encode()
    if b"\0" in target:
        raise ValueError("a link to an impossible path")
    return target


def _decode_xattr(value: dict[str, Any]) -> tuple[str, bytes]:
    name = value["name"]
    if not isinstance(name, str) or "\0" in name:
        raise ValueError("an attribute with an impossible name")
    return name, base64.b64decode(value["value"] or "")


def walk(root: bytes, load: Callable[[bytes], list[Node]]) -> Iterable[tuple[tuple[bytes, ...], Node]]:
    """Every node below a tree, depth first, folders before what they hold; with the names that lead to it."""
    names: list[bytes] = []
    stack = [load(root)[::-1]]
    while stack:
        if not stack[-1]:
            stack.pop()
            if names:
                names.pop()
            continue
        node = stack[-1].pop()
        yield (*names, node.name), node
        if node.type == DIR:
            names.append(node.name)
            stack.append(load(node.subtree)[::-1])
