"""Bar 9: every object of a vault deleted once: found each time, with exactly the points it affects; the others restore.

The oracle shares no code with the survey: it reads pack headers and trees by itself, and takes sets of them.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import orjson
import pytest

from refloat.errors import NotAVault, RefloatError, VaultMissing
from refloat.recovery_point import CataloguedPoint
from tests.torture.in_memory import MemoryStore, seen_anew, vault_of_points
from tests.vault.given import PASSWORD, facts, tree_of
from vault.blobs import BlobKind
from vault.catalogue import manifests
from vault.extract import extract
from vault.files import FileKind
from vault.keys import make_key_file
from vault.packs import read_header
from vault.repository import OpenVault, open_vault
from vault.survey import survey
from vault.surveyed import Level
from vault.tally import Tally
from vault.writing import BlobWriter

Rounds = Callable[[int, int], int]


class Oracle:
    """Which points need which packs and index files."""

    def __init__(self, vault: OpenVault, points: list[CataloguedPoint]) -> None:
        self._vault, self._objects = vault, _objects(vault)
        self._place: dict[tuple[str, str], tuple[str, bytes]] = {}
        codec = vault.files.codec
        for key, body in self._objects.items():
            if key.startswith("data/"):
                for blob in read_header(body, codec.sealer):
                    plain = codec.open(body[blob.offset : blob.offset + blob.sealed_bytes], blob)
                    assert (blob.kind.value, blob.id.hex()) not in self._place, "a blob twice: the oracle cannot tell"
                    self._place[blob.kind.value, blob.id.hex()] = (key, plain)
        self.packs_of = {point.point.id: self._packs(point.tree) for point in points}

    def _packs(self, tree: str) -> set[str]:
        pack, text = self._place["tree", tree]
        found = {pack}
        for node in orjson.loads(text)["nodes"]:
            found |= {self._place["data", blob_id][0] for blob_id in node["content"] or ()}
            if node["type"] == "dir":
                found |= self._packs(node["subtree"])
        return found

    def affected(self, key: str, points: list[CataloguedPoint]) -> set[str]:
        """Ids of the points that need an object."""
        if key.startswith("snapshots/"):
            return {each.point.id for each in points if key == f"snapshots/{each.snapshot_id}"}
        lost = {key}
        if key.startswith("index/"):
            text = self._vault.files.read(FileKind.INDEX, key.removeprefix("index/"))
            lost = {f"data/{pack['id'][:2]}/{pack['id']}" for pack in orjson.loads(text)["packs"]}
        return {point_id for point_id, packs in self.packs_of.items() if packs & lost}


def _objects(vault: OpenVault) -> dict[str, bytes]:
    assert isinstance(vault.store, MemoryStore)
    return vault.store.objects


def _restores(vault: OpenVault, point: CataloguedPoint, out: Path) -> bool:
    """Whether a point restores whole; what it restores is compared by the caller."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    try:
        extract(vault, tree_of(point), out, Tally())
        manifests(vault, point)
    except RefloatError:
        return False
    return True


def _add_bystanders(vault: OpenVault) -> dict[str, str]:
    """Objects that no point needs, by key: a second key slot, a lock, a pack that no index names."""
    before = set(_objects(vault))
    text = make_key_file(vault.files.key, "another", datetime(2026, 1, 1, tzinfo=UTC))
    vault.files.write(FileKind.LOCK, b'{"time":"2020-01-01T00:00:00Z","exclusive":false}')
    writer = BlobWriter(vault.files, vault.index())
    writer.save(BlobKind.DATA, b"nobody's")
    writer.finish()
    for key in set(_objects(vault)) - before:
        if key.startswith("index/"):
            vault.store.delete(key)
    vault.store.put(f"keys/{sha256(text).hexdigest()}", text)
    return {key: key.partition("/")[0] for key in set(_objects(vault)) - before}


@pytest.mark.timeout(1800)
def test_every_deletion_is_found_with_exactly_the_points_it_affects(rounds: Rounds, seed: int, ram: Path) -> None:
    """In the whole form 300 objects and every point restored; in the short one two points after each deletion."""
    rng = random.Random(seed)
    vault, points = vault_of_points(ram, rng, count=rounds(7, 43))
    oracle = Oracle(vault, points)
    bystanders = _add_bystanders(vault)
    objects, told = _objects(vault), Counter[str]()
    out = ram / "out"
    assert survey(seen_anew(vault), level=Level.FULL, expected=points).is_intact
    whole = {}
    for point in points:
        assert _restores(seen_anew(vault), point, out)
        whole[point.point.id] = facts(out)
    for key in sorted(objects):
        if key == "config" or key.startswith("keys/") or key in bystanders:
            continue
        expected = oracle.affected(key, points)
        body = objects.pop(key)
        level = rng.choice(list(Level))
        found = survey(seen_anew(vault), level=level, expected=points)
        assert not found.is_intact, key
        named = {each.id for damage in found.damages for each in damage.points}
        assert named == {each.id for each in found.points if not each.is_intact} == expected, (key, level)
        assert {each.id for each in found.points} == set(whole)
        if not key.startswith("index/"):
            assert [damage.object for damage in found.damages] == [key]
        for point in rng.sample(points, rounds(2, len(points))):
            is_hit = point.point.id in expected
            if is_hit and key.startswith("snapshots/"):
                continue  # its trees and data are all there
            assert _restores(seen_anew(vault), point, out) is not is_hit, (key, point.point.id)
            assert is_hit or facts(out) == whole[point.point.id]
        told[key.partition("/")[0]] += 1
        objects[key] = body
    print(f"deleted and found: {dict(told)}")
    assert survey(seen_anew(vault), level=Level.FULL, expected=points).is_intact
    assert set(told) == {"data", "index", "snapshots"}
    assert sum(told.values()) >= rounds(40, 300)


def test_what_no_point_needs_may_go(seed: int, ram: Path) -> None:
    """One of two key slots, a lock, a pack that no index names: no damage, and nobody is affected."""
    vault, points = vault_of_points(ram, random.Random(seed), count=3)
    bystanders = _add_bystanders(vault)
    assert sorted(bystanders.values()) == ["data", "keys", "locks"]
    objects = _objects(vault)
    for key in bystanders:
        body = objects.pop(key)
        opened = open_vault(vault.store, PASSWORD)
        found = survey(opened, level=Level.FULL, expected=points)
        assert found.is_intact, found.damages
        objects[key] = body


def test_config_and_the_last_key_are_named_when_they_are_gone(seed: int, ram: Path) -> None:
    """There is no vault any more to look into, and that is said."""
    vault, _ = vault_of_points(ram, random.Random(seed), count=1)
    objects = _objects(vault)
    (slot,) = [key for key in objects if key.startswith("keys/")]
    for key, error in (("config", (VaultMissing, NotAVault)), (slot, NotAVault)):
        body = objects.pop(key)
        with pytest.raises(error, match="memory://vault"):
            open_vault(vault.store, PASSWORD)
        objects[key] = body
    open_vault(vault.store, PASSWORD)
