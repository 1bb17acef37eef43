"""Stock restic judges: it finds nothing wrong in what we wrote and restores it exactly; we restore what it wrote."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from refloat.errors import WrongKey
from refloat.registry import open_object_store
from tests.tools.restic import needed, restic, version
from tests.vault.given import MANIFEST, MIB, PASSWORD, facts, protect, put_oddities, reopened
from vault.catalogue import manifests, points
from vault.extract import extract
from vault.repository import OpenVault, open_vault
from vault.tally import Tally
from vault.verify import verify

pytestmark = pytest.mark.lane("restic")


@pytest.fixture(autouse=True)
def _judge() -> None:
    needed()


@pytest.fixture(scope="module")
def made_by_restic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty repository that stock restic made, with its own calibrated key derivation (which takes seconds)."""
    place = tmp_path_factory.mktemp("made") / "theirs"
    restic(str(place), PASSWORD, "init")
    return place


@pytest.fixture
def theirs(made_by_restic: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(made_by_restic, tmp_path / "theirs"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder full of oddities."""
    folder = tmp_path / "source"
    folder.mkdir()
    put_oddities(folder, for_restic=version())
    return folder


def test_stock_restic_checks_and_restores_what_we_wrote(
    vault: OpenVault, place: Path, source: Path, tmp_path: Path
) -> None:
    """No error in all data; bytes, modes, owners, times, links and attributes are identical; manifests are files."""
    source.chmod(0o2750)
    point = protect(vault, source)
    said = restic(str(place), PASSWORD, "check", "--read-data")
    assert "no errors were found" in said
    assert "unreferenced" not in said
    restic(str(place), PASSWORD, "restore", "latest", "--target", str(tmp_path / "out"))
    volume = tmp_path / "out" / "volumes" / "shop" / "data"
    assert facts(volume) == facts(source)
    assert volume.stat().st_mode == source.stat().st_mode
    assert (tmp_path / "out" / MANIFEST).read_bytes() == b'{"kind": "ConfigMap"}'
    assert json.loads((tmp_path / "out" / "recovery-point.json").read_text())["id"] == point.point.id
    listed = json.loads(restic(str(place), PASSWORD, "snapshots", "--json"))
    assert [each["tags"] for each in listed] == [["refloat", f"point={point.point.id}"]]


def test_our_trees_are_byte_for_byte_what_restic_would_write(vault: OpenVault, place: Path, source: Path) -> None:
    """`rewrite` encodes every tree again and refuses, or changes the snapshot, where the bytes differ."""
    if version() < (0, 15):
        pytest.skip("NOT RUN: this restic has no rewrite")
    protect(vault, source)
    said = restic(str(place), PASSWORD, "rewrite", "--dry-run", "--exclude", "no such name anywhere", "latest")
    assert "no snapshots would be modified" in said or "modified 0 snapshots" in said


def test_several_packs_and_a_second_point(vault: OpenVault, place: Path, source: Path) -> None:
    """Data over many packs; the next point adds only what changed, and stock restic agrees with both."""
    rng = random.Random(3)
    (source / "big").write_bytes(rng.randbytes(70 * MIB))
    first = protect(vault, source)
    with (source / "big").open("r+b") as file:
        file.seek(30 * MIB + 8192)
        file.write(rng.randbytes(8192))
    second = protect(vault, source, parent=first.point.volumes[0].tree)
    assert second.point.volumes[0].added_bytes < 2 * MIB
    assert len(list(place.glob("data/*/*"))) > 4
    assert "no errors were found" in restic(str(place), PASSWORD, "check", "--read-data")


@pytest.mark.parametrize("words", [("--compression", "auto"), ("--compression", "max"), ("--compression", "off")])
def test_we_extract_what_stock_restic_wrote(words: tuple[str, ...], source: Path, theirs: Path, tmp_path: Path) -> None:
    """Every compression mode, small packs, content-defined chunks."""
    out = tmp_path / "out"
    (source / "big").write_bytes(random.Random(4).randbytes(9 * MIB) + b"text " * MIB)
    restic(str(theirs), PASSWORD, "--pack-size", "4", *words, "backup", ".", cwd=source)
    (snapshot,) = json.loads(restic(str(theirs), PASSWORD, "snapshots", "--json"))
    out.mkdir()
    opened = reopened(theirs)
    extract(opened, snapshot["tree"], out, Tally())
    assert facts(out) == facts(source)
    assert len(list(theirs.glob("data/*/*"))) > 3
    opened.close()


def test_points_survive_what_stock_restic_does_to_a_vault(
    vault: OpenVault, place: Path, source: Path, theirs: Path, tmp_path: Path
) -> None:
    """Tags replaced, another point forgotten and pruned, copied elsewhere: listed, and whole, all the same."""
    gone, kept = protect(vault, source), protect(vault, source)
    restic(str(place), PASSWORD, "tag", "--set", "theirs", kept.snapshot_id)
    restic(str(place), PASSWORD, "forget", "--prune", "--max-unused", "0", gone.snapshot_id)
    (tmp_path / "password").write_text(PASSWORD)
    restic(str(theirs), PASSWORD, "copy", "--from-repo", str(place), "--from-password-file", str(tmp_path / "password"))
    for folder in (place, theirs):
        again = reopened(folder)
        (point,) = points(again, "shop")
        assert point.point == kept.point
        assert manifests(again, point) == {MANIFEST: b'{"kind": "ConfigMap"}'}
        assert verify(again, point, level="full").blobs_read > 0
        again.close()


def test_a_folder_that_restic_backed_up_is_no_point(vault: OpenVault, place: Path, source: Path) -> None:
    """Both share one repository; the foreign snapshot is passed over, and ours is still found."""
    restic(str(place), PASSWORD, "backup", ".", cwd=source)
    assert points(vault) == []
    point = protect(vault, source)
    assert points(vault) == [point]
    assert points(vault, "another application") == []


def test_stock_restic_shares_our_lock(vault: OpenVault, place: Path) -> None:
    """While a run holds the vault lock nobody prunes; afterwards anybody may."""
    with vault.lock("run"):
        locks = restic(str(place), PASSWORD, "list", "locks", "--no-lock").split()
        assert len(locks) == 1
        assert (
            json.loads(restic(str(place), PASSWORD, "cat", "lock", locks[0], "--no-lock"))["username"] == "refloat-run"
        )
        with pytest.raises(AssertionError, match="already locked"):
            restic(str(place), PASSWORD, "prune")
    restic(str(place), PASSWORD, "prune")


def test_what_stock_restic_made_opens_only_with_its_password(theirs: Path) -> None:
    """A key file of restic's own making."""
    with pytest.raises(WrongKey):
        open_vault(open_object_store(f"file://{theirs}", {}), "another")
    reopened(theirs).close()
