"""Grafting: files added to a stored tree; all else is as it was, for us and for stock restic."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from refloat.errors import IntegrityError
from tests.tools.restic import needed, restic
from tests.vault.given import AT, MANIFEST, PASSWORD, facts, point_over, protect, put_oddities, reopened, tree_of
from vault.archive import archive
from vault.catalogue import seal
from vault.extract import extract
from vault.grafting import graft
from vault.repository import OpenVault
from vault.tally import Tally

ADDED = {"sub/deeper/backup_label": b"START WAL LOCATION: 0/2000028\n", "sub/zz": b"", "a first name": b"1"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder full of oddities."""
    folder = tmp_path / "source"
    folder.mkdir()
    put_oddities(folder)
    if os.geteuid() == 0:
        os.chown(folder / "sub/deeper", 70, 71)
    return folder


def brought_back(vault: OpenVault, tree: str, out: Path) -> Path:
    """The tree in a folder."""
    out.mkdir()
    extract(vault, tree, out, Tally())
    return out


def test_what_is_grafted_is_there_and_nothing_else_changed(
    vault: OpenVault, place: Path, source: Path, tmp_path: Path
) -> None:
    """In any folder, the root's too; readable by the owner of its folder, and by nobody else."""
    tree = tree_of(protect(vault, source))
    out = brought_back(reopened(place), graft(vault, tree, ADDED, at=AT), tmp_path / "out")
    for path, content in ADDED.items():
        assert (out / path).read_bytes() == content
        assert (out / path).stat().st_mode & 0o777 == 0o600
        assert (out / path).stat().st_mtime_ns == int(AT.timestamp() * 1e6) * 1000
    if os.geteuid() == 0:
        label = (out / "sub/deeper/backup_label").stat()
        assert (label.st_uid, label.st_gid) == (70, 71)
    for path in ADDED:
        (out / path).unlink()
    before, after = facts(brought_back(vault, tree, tmp_path / "as it was")), facts(out)
    for touched in (b"/sub", b"/sub/deeper"):  # by taking the files out again, here in the test
        del before[touched], after[touched]
    assert after == before


def test_what_bore_the_name_is_replaced(vault: OpenVault, source: Path, tmp_path: Path) -> None:
    """A label of another backup, left on the volume, would be the wrong one."""
    (source / "sub/backup_label").write_text("of an earlier one")
    tree = graft(vault, tree_of(protect(vault, source)), {"sub/backup_label": b"of this one"}, at=AT)
    assert (brought_back(vault, tree, tmp_path / "out") / "sub/backup_label").read_bytes() == b"of this one"


@pytest.mark.parametrize("path", ["nowhere/backup_label", "text/backup_label", "link/backup_label"])
def test_there_must_be_a_folder_for_it(vault: OpenVault, source: Path, path: str) -> None:
    """Neither none, nor a file, nor a link that may lead anywhere."""
    tree = tree_of(protect(vault, source))
    with pytest.raises(IntegrityError, match="no folder"):
        graft(vault, tree, {path: b"x"}, at=AT)


@pytest.mark.lane("restic")
def test_stock_restic_takes_a_grafted_tree_for_any_other(
    vault: OpenVault, place: Path, source: Path, tmp_path: Path
) -> None:
    """Sealed into a point, checked with all data, restored, and the file is where an engine looks for it."""
    needed()
    done = archive(vault, source, Tally())
    whole = replace(done, tree=graft(vault, done.tree, ADDED, at=AT))
    seal(vault, point_over(("data", whole)), {MANIFEST: b"{}"})
    assert "no errors were found" in restic(str(place), PASSWORD, "check", "--read-data")
    restic(str(place), PASSWORD, "restore", "latest", "--target", str(tmp_path / "out"))
    volume = tmp_path / "out/volumes/shop/data"
    assert {path: (volume / path).read_bytes() for path in ADDED} == ADDED
