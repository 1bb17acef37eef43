"""Adoption: foreign snapshots are listed and read, damaged ones named, and never taken for recovery points."""

from __future__ import annotations

import json
from pathlib import Path

import orjson
import pytest

from refloat.errors import IntegrityError, NoEligibleRecoveryPoint, UnsupportedFormat
from refloat.registry import open_object_store
from tests.tools.restic import needed, restic
from tests.vault.given import PASSWORD, facts, protect, put_oddities, reopened
from vault.adoption import adopted, held_by
from vault.blobs import BlobKind
from vault.catalogue import points
from vault.files import FileKind
from vault.finding import find, restore
from vault.reading import BlobReader
from vault.repository import READABLE, OpenVault, open_vault
from vault.snapshots import moved_record, read_any_record
from vault.tally import Tally

FOREIGN = {
    "time": "2026-11-24T13:00:00.5+01:00",
    "tree": "ab" * 32,
    "paths": ["/data"],
    "hostname": "pod-0",
    "username": "root",
    "tags": ["nightly"],
    "program_version": "restic 0.16.4",
    "parent": "cd" * 32,
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder full of oddities."""
    folder = tmp_path / "source"
    folder.mkdir()
    put_oddities(folder)
    return folder


def write(vault: OpenVault, **changes: object) -> str:
    """A foreign snapshot record; its name."""
    return vault.files.write(FileKind.SNAPSHOT, orjson.dumps({**FOREIGN, **changes}))


def test_snapshots_of_both_kinds_are_listed_oldest_first(vault: OpenVault, source: Path) -> None:
    """A record says host, paths, tags and program; ours are told from others'."""
    point = protect(vault, source)
    foreign = write(vault)
    early = write(vault, time="2020-01-01T00:00:00Z", tags=None, program_version="")
    found = adopted(vault)
    assert [record.name for record in found.records] == [early, point.snapshot_id, foreign]
    assert [record.ours is None for record in found.records] == [True, False, True]
    record = found.choose(foreign[:8])
    assert (record.hostname, record.username, record.paths, record.tags) == ("pod-0", "root", ("/data",), ("nightly",))
    assert record.time.isoformat() == "2026-11-24T12:00:00.500000+00:00"
    assert found.choose("latest").name == foreign
    assert [each.snapshot_id for each in points(vault)] == [point.snapshot_id]


def test_a_damaged_record_is_named_and_the_others_are_listed(vault: OpenVault) -> None:
    """Whether its bytes or its words are wrong."""
    good = write(vault)
    wordless = vault.files.write(FileKind.SNAPSHOT, b'{"tree": 5}')
    torn = write(vault, hostname="torn")
    vault.store.put(f"snapshots/{torn}", b"x")
    found = adopted(vault)
    assert [record.name for record in found.records] == [good]
    assert set(found.damaged) == {wordless, torn}


@pytest.mark.parametrize("name", ["", "zz", "latest"])
def test_a_snapshot_that_is_not_there(vault: OpenVault, name: str) -> None:
    """Nor is there a latest of none."""
    with pytest.raises(NoEligibleRecoveryPoint, match="no snapshot begins"):
        adopted(vault).choose(name)


def test_what_is_held_and_what_is_damaged(vault: OpenVault, place: Path, source: Path) -> None:
    """Counted from trees alone; a pack that is gone is told with a path that needs it, or found when it is read."""
    point = protect(vault, source)
    reader = BlobReader(vault.files, vault.index())
    node = find(reader, point.tree, "volumes/shop/data")
    held = held_by(vault, node)
    regular = [path for path in source.rglob("*") if path.is_file() and not path.is_symlink()]
    assert held.files == len(regular)
    assert held.data_bytes == sum(path.stat().st_size for path in regular)
    assert held.folders == 4, "the volume's own, empty folder, sub and sub/deeper"
    assert not held.damaged
    one = held_by(vault, find(reader, point.tree, "volumes/shop/data/text"))
    assert (one.folders, one.files, one.data_bytes) == (0, 1, (source / "text").stat().st_size)
    pack, _ = reader.place(BlobKind.TREE, node.subtree)
    (place / "data" / pack.hex()[:2] / pack.hex()).unlink()
    assert held_by(reopened(place), node).damaged


def test_a_record_for_another_vault_keeps_its_first_name(vault: OpenVault, source: Path) -> None:
    """And everything else, but the parent; a second move keeps the first name too."""
    name = write(vault)
    record = read_any_record(name, vault.files.read(FileKind.SNAPSHOT, name))
    moved = json.loads(moved_record(record, None))
    assert moved == {**{key: value for key, value in FOREIGN.items() if key != "parent"}, "original": name}
    again = read_any_record("ef" * 32, orjson.dumps(moved))
    assert json.loads(moved_record(again, None))["original"] == name


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"tree": "00"}', b'{"tree": 1, "time": 2}', b'"x"'])
def test_what_is_no_record_is_refused(text: bytes) -> None:
    """By name."""
    with pytest.raises(IntegrityError, match="snapshots/name"):
        read_any_record("name", text)


@pytest.mark.lane("restic")
def test_a_repository_of_version_1_is_read_and_not_written(source: Path, tmp_path: Path) -> None:
    """What wants to write refuses it, and says how it becomes version 2; afterwards it does."""
    needed()
    theirs = tmp_path / "theirs"
    restic(str(theirs), PASSWORD, "init", "--repository-version", "1")
    restic(str(theirs), PASSWORD, "backup", ".", cwd=source)
    store = open_object_store(f"file://{theirs}", {})
    with pytest.raises(UnsupportedFormat, match="format version 1") as refused:
        open_vault(store, PASSWORD)
    assert "restic migrate upgrade_repo_v2" in refused.value.guidance
    vault = open_vault(store, PASSWORD, versions=READABLE)
    assert vault.version == 1
    node = find(BlobReader(vault.files, vault.index()), adopted(vault).choose("latest").tree.hex(), "")
    out = tmp_path / "out"
    out.mkdir()
    restore(vault, node, out, Tally())
    assert facts(out) == facts(source)
    restic(str(theirs), PASSWORD, "migrate", "upgrade_repo_v2")
    assert reopened(theirs).version == 2
