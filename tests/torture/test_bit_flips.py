"""Bar 8: single flipped bits in every class of object: a full verify finds each, and no wrong byte is ever restored.

Every byte of a vault is covered by a hash or a seal: names of key files, packs, index files, records and locks are the
hashes of their bytes, free text in a key file included; the configuration is sealed.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from refloat.errors import IntegrityError, LeaseHeld, RefloatError
from refloat.recovery_point import CataloguedPoint
from tests.torture.in_memory import MemoryStore, seen_anew, vault_of_points
from tests.vault.given import PASSWORD, facts, tree_of
from vault.blobs import BlobKind
from vault.catalogue import manifests, points
from vault.extract import extract
from vault.files import FileKind
from vault.keys import make_key_file
from vault.repository import OpenVault, open_vault
from vault.survey import survey
from vault.surveyed import Level
from vault.tally import Tally
from vault.writing import BlobWriter

CLASSES = ("config", "keys", "locks", "snapshots", "index", "data")
Restored = tuple[dict[bytes, tuple[object, ...]], dict[str, bytes]]


def _vault(ram: Path, rng: random.Random) -> tuple[OpenVault, list[CataloguedPoint], MemoryStore]:
    """Four points, two key slots, a lock, and a pack that no index names."""
    vault, sealed = vault_of_points(ram, rng, count=4)
    store = vault.store
    assert isinstance(store, MemoryStore)
    text = make_key_file(vault.files.key, "another", datetime(2026, 1, 1, tzinfo=UTC))
    store.put(f"keys/{sha256(text).hexdigest()}", text)
    vault.files.write(FileKind.LOCK, b'{"time":"2020-01-01T00:00:00Z","exclusive":false}')
    indexes = {key for key in store.objects if key.startswith("index/")}
    writer = BlobWriter(vault.files, vault.index())
    writer.save(BlobKind.DATA, b"nobody's")
    writer.finish()
    for key in [key for key in store.objects if key.startswith("index/") and key not in indexes]:
        store.delete(key)
    return vault, sealed, store


def _flip(body: bytes, bit: int) -> bytes:
    changed = bytearray(body)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _restored(vault: OpenVault, point: CataloguedPoint, out: Path) -> Restored | None:
    """What a point restores to; None when that ended with a named error."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    try:
        extract(vault, tree_of(point), out, Tally())
        return facts(out), manifests(vault, point)
    except RefloatError:
        return None


def _found(vault: OpenVault, key: str, sealed: list[CataloguedPoint]) -> bool:
    """Whether a full verify tells that this object is damaged."""
    seen = survey(vault, level=Level.FULL, expected=sealed)
    return any(damage.object == key for damage in seen.damages)


@pytest.mark.timeout(3600)
def test_every_flipped_bit_is_found(rounds: Callable[[int, int], int], seed: int, ram: Path) -> None:
    """As many flips in each class of object as in any other, over all objects of the class in turn."""
    rng, out, told = random.Random(seed), ram / "out", Counter[str]()
    vault, sealed, store = _vault(ram, rng)
    whole = {each.point.id: _restored(seen_anew(vault), each, out) for each in sealed}
    assert None not in whole.values()
    refused = 0
    for number in range(rounds(36, 2004)):
        kind = CLASSES[number % len(CLASSES)]
        keys = sorted(key for key in store.objects if key.partition("/")[0] == kind)
        key = keys[number // len(CLASSES) % len(keys)]
        body = store.objects[key]
        bit = rng.randrange(len(body) * 8)
        store.objects[key] = _flip(body, bit)
        where = f"bit {bit} of {key}"
        try:
            opened = open_vault(store, PASSWORD) if kind in ("config", "keys") else seen_anew(vault)
        except IntegrityError as told_at_once:
            assert key in str(told_at_once), where
            refused += 1
        else:
            assert _found(opened, key, sealed), where
            for each in sealed:
                restored = _restored(opened, each, out)
                assert restored in (None, whole[each.point.id]), where
        told[kind] += 1
        store.objects[key] = body
    print(f"flipped and found: {dict(told)}, {refused} of them when the vault was opened")
    assert set(told) == set(CLASSES)
    assert survey(seen_anew(vault), level=Level.FULL, expected=sealed).is_intact


def test_listing_and_writing_never_build_on_a_flipped_bit(seed: int, ram: Path) -> None:
    """The catalogue and a new lock over damaged small files: a named error, or the right answer."""
    rng = random.Random(seed)
    vault, sealed, store = _vault(ram, rng)
    refused = 0
    for key in sorted(key for key in store.objects if key.partition("/")[0] in ("snapshots", "index", "locks")):
        body = store.objects[key]
        store.objects[key] = _flip(body, rng.randrange(len(body) * 8))
        for work in (lambda: points(seen_anew(vault)) == sealed, lambda: _locks(seen_anew(vault))):
            try:
                assert work(), key
            except (IntegrityError, LeaseHeld):
                refused += 1
        store.objects[key] = body
    assert refused >= len(sealed)


def _locks(vault: OpenVault) -> bool:
    with vault.lock("run"):
        return True
