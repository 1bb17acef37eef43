"""Comparing with an earlier copy: unchanged files keep their text, whatever their names; all else is told apart."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from refloat.errors import IntegrityError
from tests.vault.given import put_oddities
from vault.archive import archive
from vault.earlier import EarlierFolder
from vault.nodes import DIR, FILE, decode_tree, encode_node, encode_tree
from vault.reading import BlobReader
from vault.repository import OpenVault
from vault.tally import Tally


def _folders(vault: OpenVault, source: Path) -> list[tuple[bytes, bytes]]:
    """Path and tree's text of every folder of a copy."""
    reader, root = BlobReader(vault.files, vault.index()), os.fsencode(source)
    found = [(root, reader.tree_text(bytes.fromhex(archive(vault, source, Tally()).tree)))]
    for path, text in found:
        found.extend(
            (path + b"/" + node.name, reader.tree_text(node.subtree)) for node in decode_tree(text) if node.type == DIR
        )
    return found


def test_an_unchanged_file_keeps_its_text(vault: OpenVault, tmp_path: Path) -> None:
    """Trees with and without attributes, names that need escapes, links of several names."""
    source = tmp_path / "source"
    source.mkdir()
    put_oddities(source)
    (source / "plain" / "below").mkdir(parents=True)
    for name in ("a", "ünï", 'quote " and \\ <&>', '","type":"dir', "empty"):
        (source / "plain" / name).write_bytes(b"" if name == "empty" else b"content")
    kept = compared = 0
    for path, text in _folders(vault, source):
        earlier = EarlierFolder(text)
        for node in decode_tree(text):
            found = os.lstat(path + b"/" + node.name)
            same = earlier.same_file(node.name, found)
            assert (same is not None) == (node.type == FILE)
            assert earlier.subtree(node.name) == (node.subtree if node.type == DIR else b"")
            if same is not None:
                assert (same.content, same.xattrs) == (node.content, node.xattrs)
                assert same.text in (None, encode_node(node))
                kept, compared = kept + (same.text is not None), compared + 1
    assert kept == 5
    assert compared > kept


@pytest.mark.parametrize("change", ["size", "mtime", "ctime", "inode", "absent"])
def test_any_change_is_seen(vault: OpenVault, tmp_path: Path, change: str) -> None:
    """Each of the four facts alone."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(b"content")
    ((_, text),) = _folders(vault, source)
    (node,) = decode_tree(text)
    if change in ("size", "mtime", "ctime", "inode"):
        setattr(node, change, getattr(node, change) + 1)
    else:
        node.name = b"other"
    assert EarlierFolder(text).same_file(b"file", (source / "file").lstat()) is not None
    assert EarlierFolder(encode_tree([encode_node(node)])).same_file(b"file", (source / "file").lstat()) is None


def test_what_is_no_tree_is_named() -> None:
    """The archive then reads everything again."""
    for text in (b"{}", b'{"nodes":[{"name":"a"}]}\n', b'{"nodes":[{"name":"a\\q","type":"file"}]}\n', b"\0"):
        with pytest.raises(IntegrityError):
            EarlierFolder(text)
    assert EarlierFolder().subtree(b"a") == b""


def test_what_another_program_wrote_is_compared_by_its_meaning(vault: OpenVault, tmp_path: Path) -> None:
    """Names of the owner, as restic writes them, or another order: the file is the same, and its text is kept."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(b"content")
    found = (source / "file").lstat()
    ((_, text),) = _folders(vault, source)
    ours = EarlierFolder(text).same_file(b"file", found)
    foreign = text.replace(b',"inode"', b',"user":"root","group":"root","inode"')
    assert foreign != text and ours is not None
    theirs = EarlierFolder(foreign).same_file(b"file", found)
    assert theirs is not None and theirs.content == ours.content
    assert theirs.text is not None and theirs.text in foreign


@pytest.mark.parametrize("lie", [b'["00"]', b'["%s",]', b'["%s" ]', b'["%s"', b'["%s"],"x":[1]', b"[1]", b'["%sg"]'])
def test_lists_of_blobs_that_are_none_make_no_file_the_same(vault: OpenVault, tmp_path: Path, lie: bytes) -> None:
    """Such a file is read again."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(b"content")
    ((_, text),) = _folders(vault, source)
    (node,) = decode_tree(text)
    name = node.content.hex().encode()
    damaged = text.replace(b'["%s"]' % name, lie % name if b"%" in lie else lie)
    assert damaged != text
    try:
        same = EarlierFolder(damaged).same_file(b"file", (source / "file").lstat())
    except IntegrityError:
        return
    assert same is None or same.content == node.content
