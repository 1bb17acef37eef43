"""Key slots: passwords come and go without anything being sealed again, and no vault ever loses its last one."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from blocks.handles import mover_secrets, open_existing_vault, open_or_init_vault
from refloat.errors import ConfigError, MissingKey, RefloatError, Unavailable, VaultMissing, WrongKey
from refloat.policy import PasswordSource, VaultLocation
from refloat.ports.key_wrapper import KeyWrapper
from refloat.registry import open_key_wrapper, open_object_store
from tests.tools.restic import needed, restic
from tests.vault.faulty import FaultyStore
from tests.vault.given import PASSWORD, reopened
from vault.repository import MOST_SLOTS, OpenVault, init, open_vault
from vault.slots import KeySlot, add, remove, rotate, slots
from vault.wrapped import FOLDER, keep_wrapped, unwrap_password, wrapped_passwords

NEW = "battery staple"


@pytest.fixture
def wrapper(tmp_path: Path) -> KeyWrapper:
    """A key file."""
    return key_in(tmp_path / "key")


def key_in(path: Path) -> KeyWrapper:
    """A wrapper by a key file made for it."""
    path.write_bytes(path.name.encode().ljust(32, b"k"))
    path.chmod(0o600)
    return open_key_wrapper(f"file://{path}", {})


def names(found: list[KeySlot]) -> list[str]:
    return [slot.name for slot in found]


def test_a_new_password_opens_and_the_old_one_too(vault: OpenVault, place: Path) -> None:
    """The slots tell who made them, when, and which is in use."""
    added = add(vault, NEW)
    for password in (PASSWORD, NEW):
        again = reopened(place, password)
        assert again.files.key == vault.files.key
        assert {slot.name for slot in slots(again) if slot.is_current} == {again.slot}
    assert reopened(place, NEW).slot == added.name
    assert added.username == "refloat"
    assert added.hostname
    assert added.created is not None
    assert names(slots(vault)) == [vault.slot, added.name]


def test_a_removed_password_opens_no_more(vault: OpenVault, place: Path) -> None:
    """Named by how its id begins; the other slot stays."""
    added = add(vault, NEW)
    assert remove(vault, added.name[:8]).name == added.name
    with pytest.raises(WrongKey):
        reopened(place, NEW)
    assert names(slots(reopened(place))) == [vault.slot]


def test_the_last_slot_and_the_one_in_use_stay(vault: OpenVault, place: Path) -> None:
    """The last one whatever is said, the one in use unless it is meant."""
    with pytest.raises(ConfigError, match="is the last key slot"):
        remove(vault, vault.slot or "", even_current=True)
    added = add(vault, NEW)
    with pytest.raises(ConfigError, match="this command opened"):
        remove(vault, vault.slot or "")
    remove(vault, vault.slot or "", even_current=True)
    assert names(slots(reopened(place, NEW))) == [added.name]
    with pytest.raises(ConfigError, match="is the last key slot"):
        remove(reopened(place, NEW), added.name, even_current=True)


def test_a_damaged_slot_is_listed_counts_for_nothing_and_can_go(vault: OpenVault, place: Path) -> None:
    """It opens nothing, so that the only sound one beside it is still the last."""
    added = add(vault, NEW)
    (place / "keys" / added.name).chmod(0o600)
    (place / "keys" / added.name).write_bytes(b'{"created": ')
    (flawed,) = [slot for slot in slots(vault) if slot.flaw]
    assert flawed.name == added.name
    with pytest.raises(ConfigError, match="is the last key slot"):
        remove(vault, vault.slot or "", even_current=True)
    remove(vault, added.name)
    assert names(slots(vault)) == [vault.slot]


@pytest.mark.parametrize("name", ["", "zz", "x" * 64])
def test_a_slot_that_is_not_there_is_named(vault: OpenVault, name: str) -> None:
    """With those that are."""
    with pytest.raises(ConfigError, match=f"there are: {(vault.slot or '')[:8]}"):
        remove(vault, name)


def test_rotating_changes_the_password_and_nothing_else(vault: OpenVault, place: Path) -> None:
    """The same master key and files; the vault object goes on working."""
    before = {path.name for path in place.rglob("*") if path.is_file() and "keys" not in path.parts}
    slot = rotate(vault, NEW)
    assert slot.is_current
    assert reopened(place, NEW).files.key == vault.files.key
    with pytest.raises(WrongKey):
        reopened(place)
    assert {path.name for path in place.rglob("*") if path.is_file() and "keys" not in path.parts} == before
    with pytest.raises(ConfigError, match="is the one in use"):
        rotate(vault, NEW)


def test_a_store_that_dies_while_rotating_leaves_a_vault_that_opens(vault: OpenVault, place: Path) -> None:
    """Whichever write it dies at: by the old password, the new one, or both."""
    died = 0
    password = PASSWORD
    for puts in range(20):
        dying = FaultyStore(open_object_store(f"file://{place}", {}), dies_at_put=puts)
        try:
            rotate(open_vault(dying, password), f"{NEW} {puts}")
        except Unavailable:
            died += 1
            assert reopened(place, password).files.key == vault.files.key
            for lock in place.glob("locks/*"):
                lock.unlink()
        else:
            password = f"{NEW} {puts}"
            break
    assert died >= 2, "the lock and the new slot"
    assert reopened(place, password).files.key == vault.files.key


def test_there_are_no_more_slots_than_restic_tries(vault: OpenVault, place: Path) -> None:
    """The twenty-first is refused, and so is a rotation that would need one."""
    text = (place / "keys" / (vault.slot or "")).read_bytes()
    for number in range(MOST_SLOTS - 1):
        body = text + b" " * (number + 1)
        (place / "keys" / sha256(body).hexdigest()).write_bytes(body)
    assert len(slots(vault)) == MOST_SLOTS
    for change in (add, rotate):
        with pytest.raises(ConfigError, match="no more than 20"):
            change(vault, NEW)
    assert len(slots(vault)) == MOST_SLOTS


def test_a_wrapper_opens_the_vault_without_a_password(vault: OpenVault, place: Path, wrapper: KeyWrapper) -> None:
    """The password lies beside the vault, wrapped; nobody else's does."""
    added = add(vault, wrapper)
    assert added.wrapped_by == ("file",)
    found = unwrap_password(vault.store, wrapper)
    assert found is not None
    assert found[1] == added.name
    assert open_vault(vault.store, found[0], slot=added.name).files.key == vault.files.key
    (kept,) = (place / FOLDER).iterdir()
    assert found[0].encode() not in kept.read_bytes()


def test_rotating_a_wrapper_seals_nothing_again(
    vault: OpenVault, place: Path, wrapper: KeyWrapper, tmp_path: Path
) -> None:
    """The new key file opens the vault, the old one does not, and no other file changed."""
    add(vault, wrapper)
    password, slot = unwrap_password(vault.store, wrapper) or ("", "")
    other = key_in(tmp_path / "other")
    rotate(open_vault(vault.store, password, slot=slot), other)
    assert len(wrapped_passwords(vault.store)) == 1
    with pytest.raises(WrongKey):
        unwrap_password(vault.store, wrapper)
    password, slot = unwrap_password(vault.store, other) or ("", "")
    assert reopened(place, password).slot == slot
    assert reopened(place).files.key == vault.files.key


def test_two_wrappers_side_by_side(vault: OpenVault, wrapper: KeyWrapper, tmp_path: Path) -> None:
    """Each finds its own; a third is told that there are two, and not whose."""
    words = open_key_wrapper("passphrase://env/WORDS", {"WORDS": "horse"})
    chosen = [add(vault, each).name for each in (wrapper, words)]
    assert [(unwrap_password(vault.store, each) or ("", ""))[1] for each in (wrapper, words)] == chosen
    with pytest.raises(WrongKey, match="none of the 2 wrapped passwords"):
        unwrap_password(vault.store, key_in(tmp_path / "third"))


def test_a_wrapped_password_cannot_be_passed_off_as_another_slots(vault: OpenVault, wrapper: KeyWrapper) -> None:
    """It is bound to its slot; and a slot that went took its wrapped password along."""
    first, second = add(vault, wrapper), add(vault, "second")
    (kept,) = wrapped_passwords(vault.store)
    text = vault.store.get(kept.key).replace(first.name.encode(), second.name.encode())
    vault.store.put(kept.key, text)
    with pytest.raises(WrongKey):
        unwrap_password(vault.store, wrapper)
    remove(vault, second.name)
    assert unwrap_password(vault.store, wrapper) is None


def _location(place: Path, tmp_path: Path) -> VaultLocation:
    return VaultLocation(
        url=f"file://{place}", password=PasswordSource(env="NO_SUCH_VARIABLE"), wrapper=f"file://{tmp_path}/key"
    )


def test_every_command_opens_a_vault_by_its_wrapper(place: Path, wrapper: KeyWrapper, tmp_path: Path) -> None:
    """What has no vault yet gets one whose password nobody knows; movers get the password itself."""
    location = _location(place, tmp_path)
    with pytest.raises(VaultMissing):
        open_existing_vault(location, None)
    made, is_new = open_or_init_vault(location, None)
    assert is_new
    again, is_new = open_or_init_vault(location, None)
    assert not is_new
    assert again.id == made.id == open_existing_vault(location, None).id
    password = mover_secrets(location, None)["REFLOAT_PASSWORD"]
    assert reopened(place, password).id == made.id


def test_a_vault_without_wrapped_password_says_so(
    vault: OpenVault, place: Path, tmp_path: Path, wrapper: KeyWrapper
) -> None:
    """Neither a wrong key nor a missing vault: the guidance names the command."""
    with pytest.raises(MissingKey, match="could unwrap is kept beside") as missing:
        open_existing_vault(_location(place, tmp_path), None)
    assert "refloat vault key add" in missing.value.guidance


def test_a_store_that_dies_while_a_wrapped_vault_is_made(place: Path, wrapper: KeyWrapper, tmp_path: Path) -> None:
    """The next try finishes it: no slot is ever left whose password is lost."""
    died = 0
    for puts in range(10):
        dying = FaultyStore(open_object_store(f"file://{place}", {}), dies_at_put=puts)
        found = unwrap_password(dying, wrapper)
        password = found[0] if found else "fresh"

        def keep(slot: str, store: FaultyStore = dying, password: str = password) -> None:
            keep_wrapped(store, wrapper, password, slot)

        try:
            init(dying, password, announce=keep)
        except Unavailable:
            died += 1
        else:
            break
    assert died >= 2, "the wrapped password, and slot or configuration"
    open_existing_vault(_location(place, tmp_path), None).close()


@pytest.mark.lane("restic")
def test_stock_restic_and_we_manage_each_others_slots(vault: OpenVault, place: Path, tmp_path: Path) -> None:
    """Added by either, listed and opened by both, removed by either."""
    needed()
    ours = add(vault, NEW)
    assert ours.name[:8] in restic(str(place), NEW, "key", "list")
    (tmp_path / "theirs").write_text("made by restic\n")
    restic(str(place), NEW, "key", "add", "--new-password-file", str(tmp_path / "theirs"))
    (theirs,) = [slot for slot in slots(vault) if slot.name not in (ours.name, vault.slot)]
    assert theirs.username
    assert reopened(place, "made by restic").slot == theirs.name
    restic(str(place), PASSWORD, "key", "remove", ours.name)
    assert ours.name not in names(slots(vault))
    remove(vault, theirs.name)
    said: Callable[[], str] = lambda: restic(str(place), "made by restic", "snapshots")  # noqa: E731
    with pytest.raises(AssertionError, match="wrong password"):
        said()
    rotate(vault, NEW)
    restic(str(place), NEW, "check")


def test_an_empty_password_is_refused(vault: OpenVault) -> None:
    """Nothing is changed."""
    with pytest.raises(RefloatError, match="is empty"):
        add(vault, " ")
    assert len(slots(vault)) == 1
