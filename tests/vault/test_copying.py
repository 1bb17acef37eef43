"""Copying: what is listed at the far end is whole there, what is there is not copied again, damage does not travel."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from refloat.errors import (
    ConfigError,
    IntegrityError,
    LeaseHeld,
    NoEligibleRecoveryPoint,
    NotAVault,
    RefloatError,
    Unavailable,
    VaultMissing,
    WrongKey,
)
from refloat.ports.object_store import ObjectStore
from refloat.progress import Event, listening
from refloat.recovery_point import CataloguedPoint
from refloat.registry import open_object_store
from tests.tools.restic import find, restic
from tests.vault.faulty import FaultyStore
from tests.vault.given import MIB, PASSWORD, facts, protect, put_oddities, reopened, tree_of
from vault.catalogue import points
from vault.copying import Copied, copy, open_far_end
from vault.extract import extract
from vault.locks import hold
from vault.repository import OpenVault, open_vault
from vault.tally import Tally
from vault.verify import verify

OTHER = "battery staple"
HOUR = timedelta(hours=1)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder full of oddities, and data of some packs."""
    folder = tmp_path / "source"
    folder.mkdir()
    put_oddities(folder)
    (folder / "big").write_bytes(random.Random(7).randbytes(18 * MIB))
    return folder


@pytest.fixture
def far(tmp_path: Path) -> Path:
    """Where copies go."""
    return tmp_path / "far"


def store_in(place: Path) -> ObjectStore:
    return open_object_store(f"file://{place}", {})


def copied(
    vault: OpenVault, far: Path | ObjectStore, *, password: str = PASSWORD, new_key: bool = False, **choice: object
) -> Copied:
    """One copy, as the command makes it."""
    store = store_in(far) if isinstance(far, Path) else far
    end = open_far_end(
        vault, store, lambda: (password, None), with_new_key=new_key, dry_run=bool(choice.get("dry_run"))
    )
    return copy(vault, end, **choice)  # type: ignore[arg-type]


def is_whole(far: Path, password: str = PASSWORD, *, judged: bool = False) -> list[CataloguedPoint]:
    """The points of the far end; each verifies in full and, where it is asked, stock restic finds nothing wrong."""
    opened = reopened(far, password)
    found = points(opened)
    for point in found:
        verify(opened, point, level="full")
    opened.close()
    if judged and find() is not None:
        assert "no errors were found" in restic(str(far), password, "check", "--read-data", "--no-lock")
    return found


def files(place: Path) -> dict[str, bytes]:
    """Every stored file but locks and what is ours alone."""
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in place.rglob("*")
        if path.is_file() and path.relative_to(place).parts[0] not in ("locks", "refloat")
    }


@pytest.fixture(params=[False, True], ids=["mirror", "another key"])
def new_key(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Both kinds of far end."""
    yield request.param


def test_a_mirror_is_the_vault_byte_for_byte(vault: OpenVault, place: Path, source: Path, far: Path) -> None:
    """Every stored file, and so every password; what was never in an index is left out."""
    sealed = [protect(vault, source), protect(vault, source, after=HOUR)]
    orphan = place / "data" / "00" / ("00" * 32)
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"nobody's")
    result = copied(vault, far)
    orphan.unlink()
    assert files(far) == files(place)
    assert is_whole(far, judged=True) == sealed
    assert [each.name for each in result.points] == [each.snapshot_id for each in sealed]
    assert result.objects == len(list(far.glob("data/*/*")))


def test_another_vault_gets_the_same_points_under_its_own_key(
    vault: OpenVault, place: Path, source: Path, far: Path, tmp_path: Path
) -> None:
    """Trees keep their ids, the old password opens nothing, and the points restore identically."""
    sealed = protect(vault, source)
    copied(vault, far, password=OTHER, new_key=True)
    with pytest.raises(WrongKey):
        reopened(far)
    (point,) = is_whole(far, OTHER, judged=True)
    assert (point.point, point.tree) == (sealed.point, sealed.tree)
    assert reopened(far, OTHER).files.key != vault.files.key
    out = tmp_path / "out"
    out.mkdir()
    extract(reopened(far, OTHER), tree_of(point), out, Tally())
    assert facts(out) == facts(source)


def test_the_second_copy_moves_only_what_is_new(vault: OpenVault, source: Path, far: Path, new_key: bool) -> None:
    """Objects that are there are neither read nor written again."""
    first = protect(vault, source)
    whole = copied(vault, far, new_key=new_key)
    (source / "text").write_text("changed\n" * 1000)
    second = protect(vault, source, parent=tree_of(first), after=HOUR)
    counting = FaultyStore(store_in(far))
    result = copied(vault, counting)
    assert (len(result.points), result.there_already) == (1, 1)
    assert result.moved_bytes < whole.moved_bytes / 10
    assert counting.calls["put data"] <= 4, "two of the mover, two of the seal"
    again = FaultyStore(store_in(far))
    nothing = copied(vault, again)
    assert (nothing.points, nothing.there_already, nothing.moved_bytes) == ([], 2, 0)
    assert again.calls["put"] == again.calls["put locks"] == 1
    assert [each.point for each in is_whole(far)] == [first.point, second.point]


def test_copies_into_another_vault_are_deduplicated(vault: OpenVault, source: Path, far: Path, tmp_path: Path) -> None:
    """What that vault stored by itself is not stored again, and its own points stay."""
    sealed = protect(vault, source)
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "big").write_bytes((source / "big").read_bytes())
    copied(vault, far, password=OTHER, new_key=True, points=[sealed.point.id])  # makes the vault
    other = reopened(far, OTHER)
    own = protect(other, tmp_path / "small", after=HOUR)
    assert own.point.volumes[0].added_bytes < MIB
    assert {each.point.id for each in is_whole(far, OTHER)} == {sealed.point.id, own.point.id}
    assert copied(vault, far, password=OTHER).points == []


def test_a_choice_of_points(vault: OpenVault, source: Path, far: Path, new_key: bool) -> None:
    """By how an id begins or by application; only what they need is moved, and the far end is consistent."""
    first = protect(vault, source)
    (source / "big").write_bytes(random.Random(8).randbytes(18 * MIB))
    second = protect(vault, source, after=HOUR)
    result = copied(vault, far, new_key=new_key, points=[first.point.id[:6]])
    assert [each.name for each in result.points] == [first.snapshot_id]
    assert [each.point for each in is_whole(far, judged=True)] == [first.point]
    assert result.moved_bytes < 30 * MIB
    with pytest.raises(NoEligibleRecoveryPoint, match="no recovery point of another"):
        copied(vault, far, application="another")
    with pytest.raises(NoEligibleRecoveryPoint, match="no recovery point 'zz'"):
        copied(vault, far, points=["zz"])
    copied(vault, far, application="shop")
    assert [each.point for each in is_whole(far)] == [first.point, second.point]


def test_a_dry_run_writes_nothing(vault: OpenVault, place: Path, source: Path, far: Path, new_key: bool) -> None:
    """And says what the run then does."""
    protect(vault, source)
    planned = copied(vault, far, new_key=new_key, dry_run=True)
    assert not far.exists() or not files(far)
    assert not list(place.glob("locks/*"))
    done = copied(vault, far, new_key=new_key)
    assert [each.name for each in planned.points] == [each.name for each in done.points]
    assert (planned.objects, planned.moved_bytes) == (done.objects, done.moved_bytes)


def test_a_far_end_that_dies_at_any_write_lists_nothing_half(
    vault: OpenVault, source: Path, far: Path, new_key: bool
) -> None:
    """Copy after copy dies some writes later; what is listed in between is whole, and the last one converges."""
    sealed = [protect(vault, source), protect(vault, source, after=HOUR)]
    died = 0
    if new_key:
        copied(vault, far, password=OTHER, new_key=True, dry_run=False, points=[sealed[0].point.id])
    password = OTHER if new_key else PASSWORD
    (source / "more").write_bytes(random.Random(9).randbytes(5 * MIB))
    sealed.append(protect(vault, source, after=2 * HOUR))
    for puts in (*range(0, 60, 2),):
        dying = FaultyStore(store_in(far), dies_at_put=puts)
        try:
            copied(vault, dying, password=password)
        except Unavailable:
            died += 1
            for lock in far.glob("locks/*"):
                lock.unlink()
            try:
                opened = reopened(far, password)
            except VaultMissing as missing:
                assert "broke off" in str(missing) or puts == 0
                continue
            for point in points(opened):
                verify(opened, point, level="full")
        else:
            break
    assert died >= 3
    assert [each.point for each in is_whole(far, password, judged=True)] == [each.point for each in sealed]
    assert copied(vault, far, password=password).moved_bytes == 0


def test_a_half_made_mirror_goes_on_where_it_broke_off(vault: OpenVault, source: Path, far: Path) -> None:
    """Packs that arrived are read back there, and not moved again."""
    protect(vault, source)
    with pytest.raises(Unavailable):
        copied(vault, FaultyStore(store_in(far), dies_at_put=3))
    arrived = len(list(far.glob("data/*/*")))
    assert arrived
    watching = FaultyStore(store_in(far))
    copied(vault, watching)
    assert watching.calls["put data"] == len(list(far.glob("data/*/*"))) - arrived
    is_whole(far)


@pytest.mark.parametrize("ends", [0, 1000])
def test_a_torn_upload_is_replaced(vault: OpenVault, source: Path, far: Path, ends: int) -> None:
    """A pack at the far end of the wrong size, or of the right size with other bytes, that no index names yet."""
    protect(vault, source)
    with pytest.raises(Unavailable):
        copied(vault, FaultyStore(store_in(far), dies_at_put=3))
    torn = next(far.glob("data/*/*"))
    body = torn.read_bytes()
    torn.chmod(0o600)
    torn.write_bytes(body[:ends] if ends else body[:-1] + bytes([body[-1] ^ 1]))
    copied(vault, far)
    assert torn.read_bytes() == body
    is_whole(far)


class Lying:
    """A store that takes one pack and keeps another byte of it."""

    def __init__(self, inner: ObjectStore) -> None:
        self._inner, self.faults = inner, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def put(self, key: str, body: bytes, *, if_absent: bool = False, sha256: bytes | None = None) -> None:
        if key.startswith("data/") and not self.faults:
            self.faults += 1
            body = bytes(body[:-9]) + bytes([body[-9] ^ 1]) + bytes(body[-8:])
        self._inner.put(key, body, if_absent=if_absent)


def test_a_store_that_keeps_other_bytes_is_found_out(vault: OpenVault, source: Path, far: Path, new_key: bool) -> None:
    """At once, before anything is listed; the next copy replaces what is wrong."""
    protect(vault, source)
    lying = Lying(store_in(far))
    with pytest.raises(IntegrityError, match="does not read back"):
        copied(vault, lying, new_key=new_key)  # type: ignore[arg-type]
    assert lying.faults == 1
    assert not list(far.glob("snapshots/*"))
    copied(vault, far)
    assert len(points(reopened(far))) == 1


def test_damage_is_named_and_does_not_travel(
    vault: OpenVault, place: Path, source: Path, far: Path, new_key: bool
) -> None:
    """A pack that is not what its name says: points that need it are not listed at the far end, others are."""
    first = protect(vault, source)
    before = set(place.glob("data/*/*"))
    (source / "more").write_bytes(random.Random(9).randbytes(3 * MIB))
    second = protect(vault, source, after=HOUR)
    bad = max(set(place.glob("data/*/*")) - before, key=lambda path: path.stat().st_size)
    body = bytearray(bad.read_bytes())
    body[1000] ^= 1
    bad.chmod(0o600)
    bad.write_bytes(body)
    result = copied(reopened(place), far, new_key=new_key)
    assert [each.name for each in result.points] == [first.snapshot_id]
    assert list(result.damaged) == [f"data/{bad.parent.name}/{bad.name}"]
    assert list(result.affected) == [f"{second.point.id} of shop"]
    assert result.affected[f"{second.point.id} of shop"] == "volumes/shop/data/more"
    with pytest.raises(IntegrityError, match=bad.name):
        result.raise_if_damaged()
    assert [each.point for each in is_whole(far)] == [first.point]
    body[1000] ^= 1
    bad.write_bytes(body)
    copied(reopened(place), far)
    assert [each.point for each in is_whole(far)] == [first.point, second.point]


def test_a_pack_that_is_gone_is_damage_too(
    vault: OpenVault, place: Path, source: Path, far: Path, new_key: bool
) -> None:
    """Whatever kind it is."""
    protect(vault, source)
    for pack in list(place.glob("data/*/*")):
        kept, end = pack.read_bytes(), far / pack.name[:8]
        pack.unlink()
        result = copied(reopened(place), end, new_key=new_key)
        assert result.points == []
        assert list(result.damaged) == [f"data/{pack.parent.name}/{pack.name}"]
        assert points(reopened(end)) == []
        pack.write_bytes(kept)
    assert copied(reopened(place), end).damaged == {}
    assert len(is_whole(end)) == 1


def test_a_mirror_that_lost_packs_gets_them_back(vault: OpenVault, source: Path, far: Path) -> None:
    """Also when its points are all listed; what cannot be given is told."""
    protect(vault, source)
    copied(vault, far)
    lost = list(far.glob("data/*/*"))[:2]
    for each in lost:
        each.unlink()
    assert copied(vault, far).objects == 2
    is_whole(far)


def test_the_vault_at_the_far_end_has_its_own_life(vault: OpenVault, place: Path, source: Path, far: Path) -> None:
    """A point that expired here stays there, and is told."""
    first, second = protect(vault, source), protect(vault, source, after=HOUR)
    copied(vault, far)
    (place / "snapshots" / first.snapshot_id).unlink()
    result = copied(reopened(place), far)
    assert result.only_there == [first.snapshot_id]
    assert [each.point for each in is_whole(far)] == [first.point, second.point]


def test_foreign_places_are_refused(vault: OpenVault, place: Path, source: Path, far: Path, tmp_path: Path) -> None:
    """Something else, a half-made copy of another vault, the vault itself; nothing is written."""
    protect(vault, source)
    far.mkdir()
    (far / "letter").write_text("mine")
    with pytest.raises(NotAVault, match="it holds letter"):
        copied(vault, far)
    assert [path.name for path in far.iterdir()] == ["letter"]
    with pytest.raises(ConfigError, match="to itself"):
        copied(vault, place)
    third = tmp_path / "third"
    copied(vault, third, new_key=True, password=OTHER)
    half = tmp_path / "half"
    with pytest.raises(Unavailable):
        copied(vault, FaultyStore(store_in(half), dies_at_put=3))
    with pytest.raises(NotAVault):
        copied(reopened(third, OTHER), half)
    with pytest.raises(VaultMissing, match="broke off"):
        reopened(half)
    copied(vault, tmp_path / "mirror")
    with pytest.raises(ConfigError, match="the same key"):
        copied(vault, tmp_path / "mirror", new_key=True)


@pytest.mark.parametrize("end", ["here", "there"])
def test_who_prunes_either_end_is_left_alone(vault: OpenVault, source: Path, far: Path, end: str) -> None:
    """An exclusive lock at either end refuses the copy; nothing is written."""
    protect(vault, source)
    copied(vault, far)
    again = protect(vault, source, after=HOUR)
    held = vault if end == "here" else reopened(far)
    with hold(held.files, "prune", is_exclusive=True), pytest.raises(LeaseHeld):
        copied(vault, far)
    assert again.point not in [each.point for each in points(reopened(far))]


def test_it_tells_how_far_it_is(vault: OpenVault, source: Path, far: Path, new_key: bool) -> None:
    """From nothing to everything."""
    protect(vault, source)
    heard: list[Event] = []
    with listening(heard.append):
        done = copied(vault, far, new_key=new_key)
    moved = [event.progress for event in heard if event.progress]
    assert moved[0].bytes_done == 0
    assert moved[-1].bytes_done == moved[-1].bytes_total == done.moved_bytes
    assert moved[-1].is_last
    assert [each.bytes_done for each in moved] == sorted(each.bytes_done for each in moved)


def test_a_source_that_does_not_answer_ends_it(vault: OpenVault, place: Path, source: Path, far: Path) -> None:
    """That is no damage: nothing is listed, and the next copy goes on."""
    protect(vault, source)

    class Silent(FaultyStore):
        def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
            if key.startswith("data/") and length is None:
                self.faults += 1
                raise Unavailable("injected: no answer")
            return super().get(key, start=start, length=length)

    silent = Silent(store_in(place))
    with pytest.raises(RefloatError, match="injected"):
        copied(open_vault(silent, PASSWORD), far)
    assert silent.faults
    assert not list(far.glob("snapshots/*"))
    copied(vault, far)
    assert len(is_whole(far)) == 1
