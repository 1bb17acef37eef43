"""Making and opening vaults: every way it can go wrong has its name, and nothing foreign is ever touched."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from refloat.errors import (
    AlreadyExists,
    IntegrityError,
    NotAVault,
    RefloatError,
    UnsupportedFormat,
    VaultMissing,
    WrongKey,
)
from refloat.ports.object_store import ObjectStore
from refloat.registry import open_object_store
from tests.vault.faulty import FaultyStore
from tests.vault.given import PASSWORD, reopened
from vault.files import FileKind, SealedFiles
from vault.repository import OpenVault, init, open_vault
from vault.sealing import MasterKey, Sealer


@pytest.fixture
def store(place: Path) -> ObjectStore:
    """The empty store."""
    return open_object_store(f"file://{place}", {})


def _everything(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def test_a_vault_opens_with_its_password_only(store: ObjectStore) -> None:
    """And the password is nowhere in the store, nor in what an open vault shows of itself."""
    made = init(store, PASSWORD)
    assert open_vault(store, PASSWORD).id == made.id
    with pytest.raises(WrongKey, match="none of the 1 key slots"):
        open_vault(store, PASSWORD + "x")
    assert not [found for found in store.list() if PASSWORD.encode() in store.get(found.key)]
    assert PASSWORD not in repr(vars(made)) + repr(made)


def test_where_nothing_is_there_is_no_vault(store: ObjectStore) -> None:
    """Neither opening nor looking creates anything."""
    with pytest.raises(VaultMissing):
        open_vault(store, PASSWORD)
    assert not list(store.list())


@pytest.mark.parametrize("key", ["readme.txt", "config", "data/00/thing", "snapshots/old"])
def test_something_else_is_not_a_vault_and_stays_as_it_is(store: ObjectStore, place: Path, key: str) -> None:
    """Neither opened nor made into one."""
    store.put(key, b"precious")
    for use in (open_vault, init):
        with pytest.raises(NotAVault, match=r"config|holds"):
            use(store, PASSWORD)
    assert _everything(place) == {key: b"precious"}


def test_what_is_refloats_own_beside_a_vault_is_not_foreign(store: ObjectStore) -> None:
    """Another issue keeps facts under refloat/, and capability probes may lie there."""
    store.put("refloat/probe/1", b"")
    init(store, PASSWORD)
    open_vault(store, PASSWORD)


def test_a_vault_is_never_made_over_another(store: ObjectStore, place: Path) -> None:
    """Also not with another password, nor when its configuration is hidden or gone."""
    init(store, PASSWORD)
    before = _everything(place)
    with pytest.raises(AlreadyExists):
        init(store, "another")
    assert _everything(place) == before
    store.put("snapshots/" + "0" * 64, b"record")
    store.delete("config")
    for use in (open_vault, init):
        with pytest.raises(NotAVault, match="snapshots"):
            use(store, PASSWORD)


def test_a_making_that_broke_off_is_finished_by_the_next(store: ObjectStore) -> None:
    """At every write; there is never a second master key beside the first."""
    for puts in (0, 1):
        dying = FaultyStore(store, dies_at_put=puts)
        with pytest.raises(RefloatError, match="injected"):
            init(dying, PASSWORD)
        assert dying.faults
        with pytest.raises(VaultMissing):
            open_vault(store, PASSWORD)
    with pytest.raises(WrongKey, match="broke off"):
        init(store, "another")
    assert init(store, PASSWORD).id == open_vault(store, PASSWORD).id
    assert len(list(store.list("keys/"))) == 1


def test_a_lost_answer_to_the_last_write_is_not_taken_for_a_rival(store: ObjectStore) -> None:
    """The store repeats a request and says the key exists: the key slot of our own vault must not be withdrawn."""
    losing = FaultyStore(store)
    losing.loses_answers = lambda key: key == "config" or key.startswith("keys/")
    made = init(losing, PASSWORD)
    assert losing.faults == 2
    assert open_vault(store, PASSWORD).id == made.id


def test_two_makers_at_once_end_in_one_vault(store: ObjectStore) -> None:
    """Both have written their key before either writes the configuration: one vault comes to be, one key stays."""
    meet = threading.Barrier(2)

    def rival() -> FaultyStore:
        each = FaultyStore(store)
        each.on_put = lambda key: None if key == "config" else (meet.wait(timeout=30), None)[1]
        return each

    made: list[OpenVault] = []
    makers = [threading.Thread(target=lambda: made.append(init(rival(), PASSWORD))) for _ in range(2)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert len({vault.id for vault in made}) == 1
    assert len(made) == 2
    assert len(list(store.list("keys/"))) == 1
    assert open_vault(store, PASSWORD).id == made[0].id


@pytest.mark.parametrize(
    ("version", "error"), [(1, UnsupportedFormat), (3, UnsupportedFormat), ("two", IntegrityError)]
)
def test_other_format_versions_are_refused(
    vault: OpenVault, place: Path, version: object, error: type[RefloatError]
) -> None:
    """Older ones restic can convert; newer ones nobody knows."""
    config = {"version": version, "id": vault.id, "chunker_polynomial": "3da3358b4dc173"}
    _put_config(vault, config)
    with pytest.raises(error):
        reopened(place)


def test_a_reducible_polynomial_is_refused(vault: OpenVault, place: Path) -> None:
    """As stock restic does; it could not share the vault."""
    _put_config(vault, {"version": 2, "id": vault.id, "chunker_polynomial": "3da3358b4dc172"})
    with pytest.raises(IntegrityError, match="polynomial"):
        reopened(place)


def _put_config(vault: OpenVault, config: dict[str, object]) -> None:
    vault.store.put("config", Sealer(vault.files.key).seal(json.dumps(config).encode()))


def test_damaged_files_are_named(vault: OpenVault, place: Path) -> None:
    """A key file, the configuration: cut off or changed."""
    (key,) = (path for path in (place / "keys").iterdir())
    whole = key.read_bytes()
    key.write_bytes(whole[:50])
    with pytest.raises(IntegrityError, match=f"keys/{key.name}"):
        reopened(place)
    key.write_bytes(whole)
    config = (place / "config").read_bytes()
    for torn in (config[:20], b"", config[:-1] + bytes([config[-1] ^ 1])):
        (place / "config").write_bytes(torn)
        with pytest.raises(IntegrityError, match="config"):
            reopened(place)
    key.unlink()
    with pytest.raises(NotAVault, match="no keys"):
        reopened(place)


def test_one_damaged_slot_does_not_shut_out_another(vault: OpenVault, place: Path) -> None:
    """Several passwords may open one vault; each slot stands for itself."""
    (place / "keys" / ("0" * 64)).write_bytes(b"torn")
    (place / "keys" / "readme.txt").write_bytes(b"nobody's")
    reopened(place).close()


def test_foreign_files_beside_ours_are_passed_over(vault: OpenVault, place: Path) -> None:
    """As restic does: what bears no id is nobody's."""
    (place / "index").mkdir()
    (place / "index" / "notes.txt").write_text("hello")
    assert len(reopened(place).index()) == 0


def test_an_index_file_that_is_not_what_was_stored_is_named(vault: OpenVault, place: Path) -> None:
    """A bit flipped, cut off, or sealed under another key."""
    name = vault.files.write(FileKind.INDEX, b'{"packs":[]}')
    path = place / "index" / name
    whole = path.read_bytes()
    for damaged in (whole[:-3], bytes([whole[0] ^ 1]) + whole[1:], b""):
        path.write_bytes(damaged)
        with pytest.raises(IntegrityError, match=f"index/{name}"):
            reopened(place).index()
    path.unlink()
    foreign = SealedFiles(vault.store, MasterKey.random()).write(FileKind.INDEX, b'{"packs":[]}')
    with pytest.raises(IntegrityError, match=f"index/{foreign}"):
        reopened(place).index()
