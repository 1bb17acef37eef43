"""Points: sealed completely or not at all, listed cheaply, found again from the vault alone."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from refloat.errors import ConfigError, IntegrityError
from refloat.recovery_point import DESCRIPTOR
from refloat.registry import open_object_store
from tests.vault.faulty import FaultyStore
from tests.vault.given import MANIFEST, PASSWORD, point_over, protect, put_oddities, reopened
from vault.archive import Archived, archive
from vault.catalogue import manifests, points, seal
from vault.files import FileKind
from vault.repository import OpenVault, open_vault
from vault.tally import Tally


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small folder."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "row").write_text("1")
    return folder


def _archived(vault: OpenVault, folder: Path) -> Archived:
    return archive(vault, folder, Tally())


def test_what_is_sealed_is_listed_oldest_cut_first(vault: OpenVault, place: Path, source: Path) -> None:
    """With its manifests, by another process, whatever the order of sealing."""
    late = protect(vault, source, after=timedelta(hours=2))
    early = protect(vault, source, after=timedelta(hours=1))
    again = reopened(place)
    assert points(again) == [early, late]
    assert points(again, "shop") == [early, late]
    assert points(again, "sho") == []
    assert manifests(again, early) == {MANIFEST: b'{"kind": "ConfigMap"}'}


def test_an_archive_alone_is_no_point(vault: OpenVault, source: Path) -> None:
    """Until it is sealed there is nothing to list."""
    _archived(vault, source)
    assert points(vault) == []


def test_listing_many_points_reads_two_small_objects_each(vault: OpenVault, place: Path, source: Path) -> None:
    """No index, no trees: the snapshot record tells where the descriptor lies."""
    sealed = [protect(vault, source, after=timedelta(hours=n)) for n in range(5)]
    counting = FaultyStore(open_object_store(f"file://{place}", {}))
    again = open_vault(counting, PASSWORD)
    counting.calls.clear()
    assert points(again) == sealed
    assert counting.calls["get index"] == 0
    assert counting.calls["get"] == 2 * len(sealed)


def test_a_shortcut_that_no_longer_holds_costs_time_only(vault: OpenVault, place: Path, source: Path) -> None:
    """After a prune the descriptor lies elsewhere: the index finds it."""
    point = protect(vault, source)
    record = json.loads(vault.files.read(FileKind.SNAPSHOT, point.snapshot_id))
    before, _, after = record["program_version"].partition("@")
    for version in (f"{before}@{'0' * 64}{after[64:]}", f"{before}@{after[:64]}+99999+50+0)", "refloat 9"):
        for old in (place / "snapshots").iterdir():
            old.unlink()
        name = vault.files.write(FileKind.SNAPSHOT, json.dumps({**record, "program_version": version}).encode())
        (found,) = points(reopened(place))
        assert found == point.model_copy(update={"snapshot_id": name})


def test_a_tree_nobody_stored_is_not_sealed(vault: OpenVault, place: Path, source: Path) -> None:
    """The mover's word is checked: nothing appears in the catalogue."""
    lie = _archived(vault, source)
    lie = Archived(**{**vars(lie), "tree": "ab" * 32})
    with pytest.raises(IntegrityError, match=r"shop/data.*nothing was sealed"):
        seal(vault, point_over(("data", lie)), {MANIFEST: b"{}"})
    assert points(reopened(place)) == []


def test_a_tree_another_mover_stored_since_is_sealed(vault: OpenVault, place: Path, source: Path) -> None:
    """The vault was opened, and its index read, before the mover came."""
    vault.index()
    mover = reopened(place)
    done = _archived(mover, source)
    point = seal(vault, point_over(("data", done)), {MANIFEST: b"{}"})
    assert points(mover) == [point]


@pytest.mark.parametrize("path", ["", "/", "objects//x", "../x", "objects/../../x", "objects/.", f"{DESCRIPTOR}/x"])
def test_paths_that_cannot_be_are_refused(vault: OpenVault, path: str) -> None:
    """Before anything is stored."""
    with pytest.raises(ConfigError):
        seal(vault, point_over(), {MANIFEST: b"{}", path: b""})
    assert points(vault) == []


def test_a_missing_manifest_is_not_sealed_and_not_overlooked(vault: OpenVault, source: Path) -> None:
    """Neither on the way in nor on the way out."""
    with pytest.raises(IntegrityError, match=MANIFEST):
        seal(vault, point_over(), {})
    whole = protect(vault, source)
    empty = seal(vault, point_over().model_copy(update={"objects": ()}), {})
    with pytest.raises(IntegrityError, match=MANIFEST):
        manifests(vault, whole.model_copy(update={"tree": empty.tree}))


def test_several_claims_and_namespaces_stand_side_by_side(vault: OpenVault, source: Path, tmp_path: Path) -> None:
    """And empty manifests, and ones in deep folders, come back as they were."""
    other = tmp_path / "other"
    other.mkdir()
    put_oddities(other)
    copies = point_over(("b", _archived(vault, source)), ("a", _archived(vault, other)))
    moved = copies.volumes[1].model_copy(update={"namespace": "two", "path": "volumes/two/a"})
    texts = {MANIFEST: b"{}", "objects/_cluster/x.json": b"", "objects/ü/deep/er/y.json": b"\xff"}
    point = seal(vault, copies.model_copy(update={"volumes": (copies.volumes[0], moved)}), texts)
    assert manifests(vault, point) == texts
    assert points(vault) == [point]


def test_a_seal_that_was_repeated_is_one_point(vault: OpenVault, source: Path) -> None:
    """The first answer was lost, and the step ran again with the same descriptor."""
    point = point_over(("data", _archived(vault, source)))
    records = [seal(vault, point, {MANIFEST: b"{}"}) for _ in range(2)]
    (found,) = points(vault)
    assert found in records


def test_damaged_records_are_named_never_skipped(vault: OpenVault, place: Path, source: Path) -> None:
    """A catalogue that silently lacks a point is worse than one that fails."""
    point = protect(vault, source)
    path = place / "snapshots" / point.snapshot_id
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match=point.snapshot_id):
        points(reopened(place))
    path.unlink()
    bad = vault.files.write(FileKind.SNAPSHOT, b'{"tree": 5}')
    with pytest.raises(IntegrityError, match=bad):
        points(reopened(place))
