"""The earlier copy of a folder, as an archive compares with it: texts of nodes, taken apart only as far as is asked.

An unchanged file keeps its node's very text. Decoding and encoding it again would cost more than all else of it.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import orjson

from refloat.errors import IntegrityError
from vault.blobs import ID_BYTES
from vault.gotext import decode_name
from vault.instants import parse_instant
from vault.nodes import DIR, FILE, Node, decode_tree, plain_file

_BEGIN = b'{"name":"'
_HEAD, _NEXT, _END = b'{"nodes":[{"name":"', b'},{"name":"', b"}]}\n"
_AFTER_NAME = b'","type":"'
"""Quotation marks inside of strings are escaped, so that none of these stands in a name or a link's target."""
_NESTED = b'"extended_attributes"'
"""What else of a node holds objects with names."""
_LIES = (ValueError, KeyError, TypeError, AttributeError)


class Same(NamedTuple):
    """A file that has not changed: its blobs' ids end to end, its attributes, and its text where that can stay."""

    content: bytes | bytearray
    xattrs: tuple[tuple[str, bytes], ...]
    text: bytes | None


class EarlierFolder:
    """The files and folders of one tree; an empty text is a folder that was not there."""

    def __init__(self, text: bytes = b"") -> None:
        """Take a tree's text apart.

        Raises:
            IntegrityError: It is no tree.
        """
        self._texts: dict[bytes, bytes] = {}
        self._nodes: dict[bytes, Node] = {}
        if text.startswith(_HEAD) and text.endswith(_END) and _NESTED not in text:
            try:
                pieces = text[len(_HEAD) : -len(_END)].split(_NEXT)
                self._texts = {_name_of(piece): piece for piece in pieces}
            except _LIES as wrong:
                raise IntegrityError(f"a tree does not say what it must: {wrong}") from wrong
        elif text:
            self._nodes = {node.name: node for node in decode_tree(text) if node.type in (FILE, DIR)}

    def subtree(self, name: bytes) -> bytes:
        """The tree of a folder of that name; nothing when there was none."""
        node = self._nodes.get(name)
        if node is not None:
            return node.subtree
        value = self._value(name)
        try:
            return _id(value["subtree"]) if value is not None and value["type"] == DIR else b""
        except _LIES:
            return b""

    def same_file(self, name: bytes, found: os.stat_result) -> Same | None:
        """The file of that name, when size, modification time, change time and inode are those that are found now."""
        now = found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
        node = self._nodes.get(name)
        if node is not None:
            is_same = node.type == FILE and (node.size, node.mtime, node.ctime, node.inode) == now
            return Same(node.content, node.xattrs, None) if is_same else None
        piece = self._texts.get(name)
        ids = _ids_after(piece, plain_file(found)) if piece is not None and found.st_nlink == 1 else None
        if ids is not None and piece is not None:
            return Same(ids, (), _BEGIN + piece + b"}")
        value = self._value(name)
        try:
            if value is None or value["type"] != FILE or value.get("size", 0) != found.st_size:
                return None
            if (found.st_size, parse_instant(value["mtime"]), parse_instant(value["ctime"]), value["inode"]) != now:
                return None
            content = b"".join(map(_id, value["content"]))
        except _LIES:
            return None  # it is read again
        keeps_text = found.st_nlink == 1 and value.get("links", 1) == 1  # others tell the file system by our number
        return Same(content, (), _BEGIN + self._texts[name] + b"}" if keeps_text else None)

    def _value(self, name: bytes) -> dict[str, Any] | None:
        piece = self._texts.get(name)
        if piece is None:
            return None
        try:
            value = orjson.loads(_BEGIN + piece + b"}")
        except ValueError:
            return None
        return value if isinstance(value, dict) else None


def _name_of(piece: bytes) -> bytes:
    name = piece[: piece.index(_AFTER_NAME)]
    return decode_name(orjson.loads(b'"%s"' % name)) if b"\\" in name else name


def _ids_after(piece: bytes, facts: bytes) -> bytes | None:
    """The ids that a node's text lists, when all that it says between them and the name is what we would write now."""
    start = piece.index(_AFTER_NAME)
    end = start + len(facts)
    if piece[start:end] != facts or piece[-1:] != b"]":
        return None
    names = piece[end:-1]
    try:
        ids = bytes.fromhex(names[1:-1].replace(b'","', b"").decode())
    except ValueError:
        return None
    count = len(ids) // ID_BYTES
    return ids if len(names) == count * (2 * ID_BYTES + 3) - (count > 0) and len(ids) == count * ID_BYTES else None


def _id(text: object) -> bytes:
    found = bytes.fromhex(text) if isinstance(text, str) else b""
    if len(found) != ID_BYTES:
        raise ValueError("an id of the wrong length")
    return found
