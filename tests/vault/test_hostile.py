"""Hostile input: trees that would lead out of the target, blobs that are not what they say, targets full of traps."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import orjson
import pytest

from refloat.errors import IntegrityError, RefloatError
from tests.vault.given import facts
from vault.archive import archive
from vault.blobs import BlobKind, PackedBlob
from vault.extract import extract
from vault.files import FileKind, write_named
from vault.index import encode_index
from vault.nodes import DIR, FILE, SYMLINK, Node, encode_node, encode_tree
from vault.packs import PackBuilder
from vault.repository import OpenVault
from vault.tally import Tally
from vault.writing import BlobWriter


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What must never change."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious").write_text("precious")
    (folder / "folder").mkdir()
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The target."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def _store(vault: OpenVault, *trees: bytes, data: bytes = b"evil") -> list[str]:
    """Store trees as they are, whatever they say; their ids."""
    writer = BlobWriter(vault.files, vault.index())
    writer.save(BlobKind.DATA, data)
    ids = [writer.save(BlobKind.TREE, tree).hex() for tree in trees]
    writer.finish()
    return ids


EVIL = sha256(b"evil").hexdigest()


def _node(name: str, kind: str = "file", **fields: object) -> dict[str, object]:
    times = dict.fromkeys(("mtime", "atime", "ctime"), "2020-01-01T00:00:00Z")
    content = [EVIL] if kind == "file" else None
    return {
        "name": name,
        "type": kind,
        "mode": 511,
        **times,
        "uid": 0,
        "gid": 0,
        "size": 4,
        "content": content,
        **fields,
    }


NAMES = [
    "..", ".", "", "/", "../precious", "../../outside/precious", "/etc/passwd", "a/../../outside/precious", "a/b",
    "..\\x2fprecious", "\\x2e\\x2e", "\\x2e\\x2e\\x2foutside", "\\u002e\\u002e", "\\056\\056", "a\\x00b", "\\x2fetc",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["file", "dir", "symlink", "fifo"])
def test_names_that_lead_elsewhere_are_refused(vault: OpenVault, out: Path, outside: Path, kind: str) -> None:
    """However they are spelt, whatever they name: an error, and nothing is made."""
    (empty,) = _store(vault, encode_tree([]))
    before = facts(outside)
    for name in NAMES:
        node = _node(name, kind, subtree=empty) if kind == "dir" else _node(name, kind, linktarget="x")
        (tree,) = _store(vault, orjson.dumps({"nodes": [node]}))
        with pytest.raises(IntegrityError, match=r"impossible name|does not say"):
            extract(vault, tree, out, Tally())
        assert list(out.iterdir()) == []
    assert facts(outside) == before


def test_the_same_name_as_link_and_folder_is_refused(vault: OpenVault, out: Path, outside: Path) -> None:
    """The classic: a link outwards, then a folder of its name to write through it. In either order."""
    (inner,) = _store(vault, orjson.dumps({"nodes": [_node("precious")]}))
    link, folder = _node("a", "symlink", linktarget=str(outside)), _node("a", "dir", subtree=inner)
    for nodes in ([link, folder], [folder, link]):
        (tree,) = _store(vault, orjson.dumps({"nodes": nodes}))
        with pytest.raises(IntegrityError, match="twice"):
            extract(vault, tree, out, Tally())
    assert (outside / "precious").read_text() == "precious"


def test_traps_in_the_target_are_replaced_not_followed(vault: OpenVault, out: Path, outside: Path) -> None:
    """Links where the tree has files and folders; names of files outside where it has files of that size."""
    before = facts(outside)
    (out / "file").symlink_to(outside / "precious")
    (out / "folder").symlink_to(outside / "folder")
    (out / "link").symlink_to(outside / "folder")
    os.link(outside / "precious", out / "same size")
    (out / "gone").symlink_to(outside)
    (inner,) = _store(vault, orjson.dumps({"nodes": [_node("x")]}))
    (tree,) = _store(
        vault,
        orjson.dumps(
            {
                "nodes": [
                    _node("file"),
                    _node("folder", "dir", subtree=inner),
                    _node("link", "symlink", linktarget="../outside/precious"),
                    _node("same size", size=8, content=[EVIL, EVIL]),
                ]
            }
        ),
    )
    extract(vault, tree, out, Tally())
    assert facts(outside) == before
    assert (out / "file").read_text() == (out / "folder" / "x").read_text() == "evil"
    assert (out / "same size").read_text() == "evilevil"
    assert sorted(path.name for path in out.iterdir()) == ["file", "folder", "link", "same size"]
    extract(vault, tree, out, Tally())
    assert facts(outside) == before


def test_a_hard_link_never_joins_files_that_differ(vault: OpenVault, out: Path) -> None:
    """Two nodes claim one inode and hold different data: each keeps its own."""
    other = sha256(b"good").hexdigest()
    _store(vault, data=b"good")
    same = {"links": 2, "inode": 7, "device_id": 1}
    nodes = [_node("a", **same), _node("b", content=[other], **same), _node("c", **same)]
    (tree,) = _store(vault, orjson.dumps({"nodes": nodes}))
    extract(vault, tree, out, Tally())
    assert [(out / name).read_text() for name in "abc"] == ["evil", "good", "evil"]
    assert (out / "a").samefile(out / "c")
    assert not (out / "a").samefile(out / "b")


def test_a_file_that_is_not_as_long_as_its_blobs_is_refused(vault: OpenVault, out: Path) -> None:
    """Stock restic does not notice."""
    for size in (0, 3, 5, 1 << 60):
        (tree,) = _store(vault, orjson.dumps({"nodes": [_node("short", size=size)]}))
        with pytest.raises(IntegrityError, match=r"short.*4 bytes"):
            extract(vault, tree, out, Tally())
    assert list(out.iterdir()) == []


def test_a_file_may_hold_the_very_bytes_of_a_tree(vault: OpenVault, tmp_path: Path, out: Path) -> None:
    """Blobs are known by kind and id: a crafted file neither hides a tree nor is taken for one."""
    inner = encode_tree([encode_node(Node(b"x", FILE, 0o600, uid=0, gid=0, mtime=0, ctime=0))])
    (stored,) = _store(vault, inner)
    folder = tmp_path / "crafted"
    folder.mkdir()
    (folder / "twin").write_bytes(inner)
    first = archive(vault, folder, Tally())
    extract(vault, first.tree, out, Tally())
    assert (out / "twin").read_bytes() == inner
    data_only = sha256(b'{"nodes":[]}\n').hexdigest()
    (folder / "twin").write_bytes(b'{"nodes":[]}\n')
    archive(vault, folder, Tally())
    with pytest.raises(IntegrityError, match="tree blob"):
        extract(vault, data_only, out, Tally())
    extract(vault, stored, out, Tally())
    assert [path.name for path in out.iterdir()] == ["x"]


def test_link_targets_are_kept_as_they_are_and_never_followed(vault: OpenVault, out: Path, outside: Path) -> None:
    """A link may point anywhere; its owner, times and attributes are set on the link itself."""
    before = facts(outside)
    link = Node(b"l", SYMLINK, 0o777, uid=7, gid=7, mtime=5, ctime=5, links=1, target=os.fsencode(outside / "precious"))
    below = Node(b"d", DIR, 0o700, uid=0, gid=0, mtime=0, ctime=0)
    (inner,) = _store(vault, encode_tree([encode_node(link)]))
    below.subtree = bytes.fromhex(inner)
    (tree,) = _store(vault, encode_tree([encode_node(below)]))
    extract(vault, tree, out, Tally())
    extract(vault, tree, out, Tally())
    assert (out / "d" / "l").readlink() == outside / "precious"
    assert facts(outside) == before


def test_a_huge_claim_is_refused_before_memory_is_spent(vault: OpenVault, out: Path) -> None:
    """An index that says a blob becomes gigabytes."""
    body = b"small" * 1000
    builder = PackBuilder(BlobKind.DATA, 1 << 20)
    builder.add(sha256(body).digest(), body, vault.files.codec)
    pack = builder.close(vault.files.codec)
    write_named(vault.store, FileKind.PACK, pack.id.hex(), pack.body)
    (blob,) = pack.blobs
    lie = PackedBlob(blob.kind, blob.id, blob.offset, blob.sealed_bytes, 2 << 30)
    vault.files.write(FileKind.INDEX, encode_index([(pack.id, [lie])]))
    (tree,) = _store(vault, orjson.dumps({"nodes": [_node("a", size=lie.size_bytes, content=[blob.id.hex()])]}))
    vault.index(is_fresh=True)
    with pytest.raises(RefloatError, match="claims"):
        extract(vault, tree, out, Tally())
