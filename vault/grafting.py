"""Grafting: files put into a tree that is stored already; what is new is the trees on the way, and the root's id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from refloat.errors import IntegrityError
from refloat.folder_facts import FolderFacts
from vault.blobs import BlobKind
from vault.instants import to_nanoseconds
from vault.nodes import DIR, FILE, Node, encode_node, encode_tree
from vault.reading import BlobReader
from vault.repository import OpenVault
from vault.writing import BlobWriter

_MODE = 0o600


def graft(
    vault: OpenVault, tree: str, files: Mapping[str, bytes], *, at: datetime, top: FolderFacts | None = None
) -> str:
    """The id of the tree with these files in it, which replace what bore their names.

    They are readable by their owner alone, who is the owner of the folder that each lies in.

    Args:
        vault: It holds the tree.
        tree: Its id.
        files: Contents by path, slashes between names. The folders must be there.
        at: When they are said to have been written.
        top: The facts of the root folder, which its tree does not hold.

    Raises:
        IntegrityError: There is no such folder, or the tree cannot be read.
    """
    index = vault.index(is_fresh=True)
    reader, writer = BlobReader(vault.files, index), BlobWriter(vault.files, index)
    try:
        split = {tuple(path.encode().split(b"/")): content for path, content in files.items()}
        owner = (top.uid, top.gid) if top else (0, 0)
        root = _with(reader, writer, bytes.fromhex(tree), split, to_nanoseconds(at), owner)
        writer.finish()
        return root.hex()
    finally:
        writer.close()


def _with(
    reader: BlobReader,
    writer: BlobWriter,
    tree: bytes,
    files: Mapping[tuple[bytes, ...], bytes],
    at: int,
    owner: tuple[int, int],
) -> bytes:
    """A tree's new id, with the files in it and below it; ``owner`` is its folder's."""
    nodes = {node.name: node for node in reader.tree(tree)}
    for name in {path[0] for path in files}:
        below = {path[1:]: content for path, content in files.items() if path[0] == name and path[1:]}
        if below:
            folder = nodes.get(name)
            if folder is None or folder.type != DIR:
                raise IntegrityError(f"the copy has no folder {name.decode(errors='replace')!r} for what belongs there")
            subtree = _with(reader, writer, folder.subtree, below, at, (folder.uid, folder.gid))
            nodes[name] = replace(folder, subtree=subtree)
            continue
        content = files[(name,)]
        nodes[name] = Node(
            name, FILE, _MODE, *owner, at, at,
            size=len(content), links=1, content=writer.save(BlobKind.DATA, content) if content else b"",
        )  # fmt: skip
    return writer.save(BlobKind.TREE, encode_tree(encode_node(nodes[each]) for each in sorted(nodes)))
