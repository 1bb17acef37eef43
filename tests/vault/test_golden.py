"""Golden vaults: what restic 0.14, restic 0.19 and released refloats wrote is read, and written again byte for byte.

``python -m tests.tools.golden`` made them. None is ever made again: a version that cannot read one is wrong.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from refloat.recovery_point import CataloguedPoint
from tests.tools.golden import described
from tests.vault.given import MANIFEST, PASSWORD, reopened
from vault.blobs import BlobKind, PackedBlob
from vault.catalogue import manifests, points
from vault.extract import extract
from vault.files import CONFIG, FileKind, stored
from vault.index import Index, encode_index
from vault.keys import open_key_file
from vault.nodes import FILE, SYMLINK, Node, decode_tree, encode_node, encode_tree, walk
from vault.packs import decode_header, encode_header, read_header
from vault.reading import BlobReader
from vault.repository import OpenVault
from vault.survey import survey
from vault.surveyed import Level
from vault.tally import Tally

FOLDER = Path(__file__).parent / "golden"
NAMES = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())


@pytest.fixture(params=NAMES)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[OpenVault, list[dict[str, Any]]]]:
    """A copy of each, open, and what it holds."""
    opened = reopened(Path(shutil.copytree(FOLDER / request.param, tmp_path / "vault")))
    yield opened, json.loads((FOLDER / f"{request.param}.json").read_text())
    opened.close()


def _packs(vault: OpenVault) -> Iterator[tuple[bytes, list[PackedBlob]]]:
    for _, found in stored(vault.store, FileKind.PACK):
        body = vault.store.get(found.key)
        yield body, read_header(body, vault.files.codec.sealer)


def test_there_is_a_golden_vault_of_each_kind() -> None:
    """Of both restics and of ours; none was lost on the way here."""
    assert {"refloat-0.1.0", "restic-0.14.0", "restic-0.19.1"} <= set(NAMES)


def test_everything_in_it_is_read(golden: tuple[OpenVault, list[dict[str, Any]]]) -> None:
    """Names, types, modes, times, sizes, links, attributes and bytes, by nodes and blobs: no root needed."""
    vault, known = golden
    reader = BlobReader(vault.files, vault.index())
    for each in known:
        found = {}
        for path, node in walk(bytes.fromhex(each["tree"]), reader.tree):
            body = b"".join(reader.read(BlobKind.DATA, blob) for blob in node.blobs)
            found[os.fsdecode(b"/".join(path))] = {
                "type": node.type,
                "mode": node.mode,
                "mtime": node.mtime,
                "size": node.size if node.type == FILE else 0,
                "links": node.links if node.type == FILE else 0,
                "body": sha256(node.target if node.type == SYMLINK else body).hexdigest(),
                "xattrs": {name: base64.b64encode(value).decode() for name, value in node.xattrs},
            }
        assert found == each["content"]


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT RUN: the files in golden vaults are root's")
def test_everything_in_it_is_extracted(golden: tuple[OpenVault, list[dict[str, Any]]], tmp_path: Path) -> None:
    """Into an empty folder, then over it."""
    vault, known = golden
    out = tmp_path / "out"
    out.mkdir()
    for each in known:
        extract(vault, each["tree"], out, Tally())
        assert described(out) == each["content"]


def test_trees_are_written_again_byte_for_byte(golden: tuple[OpenVault, list[dict[str, Any]]]) -> None:
    """Of ours all; of restic's all but the names of user and group, which we leave out on purpose."""
    vault, _ = golden
    trees = 0
    for body, blobs in _packs(vault):
        for blob in blobs:
            if blob.kind is BlobKind.TREE:
                text = vault.files.codec.open(body[blob.offset : blob.offset + blob.sealed_bytes], blob)
                named = text.replace(b',"user":"root","group":"root"', b"")
                assert encode_tree(map(encode_node, decode_tree(text))) == named
                trees += 1
    assert trees >= 6


def test_headers_and_index_files_are_written_again_byte_for_byte(
    golden: tuple[OpenVault, list[dict[str, Any]]],
) -> None:
    """Compressed and raw blobs, data and trees; the index says what the headers say."""
    vault, _ = golden
    by_header, kinds = {}, set()
    for body, blobs in _packs(vault):
        length = int.from_bytes(body[-4:], "little")
        header = vault.files.codec.sealer.open(body[-4 - length : -4])
        assert encode_header(decode_header(header)) == header
        by_header[sha256(body).digest()] = blobs
        kinds |= {(blob.kind, blob.plain_bytes > 0) for blob in blobs}
    by_index = {}
    for name, _ in stored(vault.store, FileKind.INDEX):
        text = vault.files.read(FileKind.INDEX, name)
        index = Index()
        index.add_file(text)
        listed = {pack: list(index.blobs_of(pack)) for pack in index.packs()}
        assert encode_index(listed.items()) == text.rstrip(b"\n")
        by_index.update(listed)
    assert {pack: sorted(blobs, key=lambda blob: blob.offset) for pack, blobs in by_index.items()} == by_header
    assert (BlobKind.DATA, True) in kinds
    assert (BlobKind.DATA, False) in kinds


def test_key_files_and_configurations_open(golden: tuple[OpenVault, list[dict[str, Any]]]) -> None:
    """By the password and no other; every small file says what its name and seal promise."""
    vault, _ = golden
    for _, found in stored(vault.store, FileKind.KEY):
        assert open_key_file(vault.store.get(found.key), PASSWORD) == vault.files.key
        assert open_key_file(vault.store.get(found.key), "another") is None
    config = json.loads(vault.files.codec.sealer.open(vault.store.get(CONFIG)))
    assert (config["version"], config["id"]) == (2, vault.id)


def test_points_are_what_they_were(golden: tuple[OpenVault, list[dict[str, Any]]]) -> None:
    """Descriptors of every released version; a full survey with the points that must be there."""
    vault, known = golden
    expected = [CataloguedPoint.model_validate(each["point"]) for each in known if "point" in each]
    assert points(vault) == expected
    if expected:
        found = survey(vault, level=Level.FULL, expected=expected)
        assert (found.damages, found.remarks) == ((), ())
        assert [manifests(vault, each) for each in expected] == [{MANIFEST: b'{"kind": "ConfigMap"}'}] * len(expected)


def test_nodes_of_every_type_are_in_it(golden: tuple[OpenVault, list[dict[str, Any]]]) -> None:
    """A golden vault that held less would prove less."""
    vault, known = golden
    load = BlobReader(vault.files, vault.index()).tree
    nodes: list[Node] = [node for each in known for _, node in walk(bytes.fromhex(each["tree"]), load)]
    assert {node.type for node in nodes} == {"file", "dir", "symlink", "fifo"}
    assert [node for node in nodes if node.xattrs]
    assert [node for node in nodes if node.type == FILE and node.links > 1]
