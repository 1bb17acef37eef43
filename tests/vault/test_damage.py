"""Damage: whatever is changed, cut off, swapped or gone in a vault is found, named, and never restored as if right."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from refloat.errors import IntegrityError, NotAVault, VaultMissing
from refloat.recovery_point import CataloguedPoint
from tests.vault.given import MIB, facts, protect, reopened, tree_of
from vault.archive import archive
from vault.blobs import BlobKind
from vault.catalogue import manifests, points, seal
from vault.extract import extract
from vault.files import FileKind
from vault.index import encode_index
from vault.packs import read_header
from vault.repository import OpenVault
from vault.tally import Tally
from vault.verify import verify


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Text and random data, small."""
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "text").write_text("row\n" * 20000)
    (folder / "sub" / "random").write_bytes(random.Random(3).randbytes(300_000))
    return folder


@pytest.fixture
def sealed(vault: OpenVault, source: Path) -> CataloguedPoint:
    """A point over it."""
    return protect(vault, source)


def _everything_read(place: Path, sealed: CataloguedPoint, out: Path) -> None:
    """What a recovery does, and more: open, list, read manifests, verify in full, extract."""
    vault = reopened(place)
    try:
        if points(vault) != [sealed]:
            raise IntegrityError("the point is not listed")
        manifests(vault, sealed)
        verify(vault, sealed, level="full")
        extract(vault, tree_of(sealed), out, Tally())
    finally:
        vault.close()


Damage = Callable[[bytes, random.Random], bytes]


def _flip(body: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(body) * 8)
    changed = bytearray(body)
    changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


def _cut(body: bytes, rng: random.Random) -> bytes:
    return body[: rng.randrange(len(body))]


@pytest.mark.parametrize("damage", [_flip, _cut])
def test_any_damage_anywhere_is_found_and_named(
    vault: OpenVault,
    place: Path,
    sealed: CataloguedPoint,
    tmp_path: Path,
    damage: Damage,
) -> None:
    """Every object of the vault, several times: an error that names it; never a wrong byte."""
    rng, out, found = random.Random(12), tmp_path / "out", 0
    out.mkdir()
    _everything_read(place, sealed, out)
    for path in sorted(path for path in place.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        for _ in range(2):
            path.write_bytes(damage(whole, rng))
            with pytest.raises(IntegrityError) as told:
                _everything_read(place, sealed, out)
            assert path.name in str(told.value), path
            found += 1
        path.write_bytes(whole)
    assert found == 2 * len([path for path in place.rglob("*") if path.is_file()])
    _everything_read(place, sealed, out)


def test_any_missing_object_is_found(vault: OpenVault, place: Path, sealed: CataloguedPoint, tmp_path: Path) -> None:
    """Each once; a vault without configuration or keys is none any more."""
    out = tmp_path / "out"
    out.mkdir()
    for path in sorted(path for path in place.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        path.unlink()
        with pytest.raises((IntegrityError, NotAVault, VaultMissing)):
            _everything_read(place, sealed, out)
        path.write_bytes(whole)
    _everything_read(place, sealed, out)


def test_a_swapped_blob_is_found(vault: OpenVault, place: Path, sealed: CataloguedPoint, tmp_path: Path) -> None:
    """An index that sends one blob's name to another's bytes: seal and size fit, only the hash tells."""
    packs = {}
    for path in place.glob("data/*/*"):
        packs[bytes.fromhex(path.name)] = read_header(path.read_bytes(), vault.files.codec.sealer)
    for path in (place / "index").iterdir():
        path.unlink()
    trees = {pack: blobs for pack, blobs in packs.items() if blobs[0].kind is BlobKind.TREE and len(blobs) > 1}
    pack, (one, two, *_) = next(iter(trees.items()))  # files of swapped blobs would have the wrong size, too
    swapped = [one._replace(id=two.id), two._replace(id=one.id), *packs[pack][2:]]
    vault.files.write(FileKind.INDEX, encode_index([*((k, v) for k, v in packs.items() if k != pack), (pack, swapped)]))
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(IntegrityError, match=f"(?s)other data than its name says.*{pack.hex()}"):
        _everything_read(place, sealed, out)


def test_verify_names_point_file_and_pack(vault: OpenVault, place: Path, sealed: CataloguedPoint, source: Path) -> None:
    """What is broken, and which point it breaks; the point before it is still whole."""
    (source / "new").write_bytes(random.Random(8).randbytes(MIB))
    before = {path.name for path in place.glob("data/*/*")}
    second = protect(vault, source)
    (largest,) = sorted(
        (path for path in place.glob("data/*/*") if path.name not in before), key=lambda path: path.stat().st_size
    )[-1:]
    body = largest.read_bytes()
    largest.write_bytes(body[:1000] + bytes([body[1000] ^ 1]) + body[1001:])
    with pytest.raises(IntegrityError, match=f"(?s){second.point.id}.*{largest.name}"):
        verify(reopened(place), second, level="full")
    assert "all" in str(verify(reopened(place), sealed, level="full"))
    for level in ("sample", "full"):
        largest.write_bytes(body[:-1])
        with pytest.raises(IntegrityError, match=f"(?s){second.point.id}.*{largest.name}"):
            verify(reopened(place), second, level=level)  # type: ignore[arg-type]
        largest.unlink()
        with pytest.raises(IntegrityError, match=f"(?s){second.point.id}.*{largest.name}"):
            verify(reopened(place), second, level=level)  # type: ignore[arg-type]


def test_a_sample_reads_some_and_says_how_much(vault: OpenVault, tmp_path: Path) -> None:
    """Structure always in full; data by sample."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number}").write_bytes(number.to_bytes(2, "big") * 50)
    sealed = protect(vault, folder)
    some, all_of_it = verify(vault, sealed, level="sample"), verify(vault, sealed, level="full")
    assert (some.trees, some.files, some.file_bytes, some.blobs) == (
        all_of_it.trees, all_of_it.files, all_of_it.file_bytes, all_of_it.blobs,
    )  # fmt: skip
    assert 0 < some.blobs_read < some.blobs == all_of_it.blobs_read == 302
    assert f"{some.blobs_read} of 302 data blobs read" in str(some)
    assert "all 302 data blobs read" in str(all_of_it)


def test_verify_sees_what_stock_check_does_not(vault: OpenVault, source: Path, sealed: CataloguedPoint) -> None:
    """Sizes that do not add up; a descriptor that says otherwise than its tree; a record that is gone or of others."""
    other = archive(vault, source / "sub", Tally())
    mixed = sealed.point.model_copy(update={"id": "0" * 16})
    wrong = seal(vault, mixed, {"objects/shop/ConfigMap/settings.json": b"{}"})
    with pytest.raises(IntegrityError, match="says something else"):
        verify(vault, wrong.model_copy(update={"point": sealed.point}), level="sample")
    with pytest.raises(IntegrityError, match="names another tree"):
        verify(vault, sealed.model_copy(update={"tree": other.tree}), level="sample")
    with pytest.raises(IntegrityError, match="is gone"):
        verify(vault, sealed.model_copy(update={"snapshot_id": "0" * 64}), level="sample")


def test_damaged_data_never_reaches_a_file(
    vault: OpenVault, place: Path, sealed: CataloguedPoint, source: Path, tmp_path: Path
) -> None:
    """Extract fails naming the pack; once the vault is whole again, the next one finishes it."""
    out = tmp_path / "out"
    out.mkdir()
    path = max(place.glob("data/*/*"), key=lambda path: path.stat().st_size)
    whole = path.read_bytes()
    path.write_bytes(whole[:200_000] + bytes([whole[200_000] ^ 4]) + whole[200_001:])
    with pytest.raises(IntegrityError, match=path.name):
        extract(reopened(place), tree_of(sealed), out, Tally())
    path.write_bytes(whole)
    extract(reopened(place), tree_of(sealed), out, Tally())
    assert facts(out) == facts(source)
