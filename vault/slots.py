"""Key slots of an open vault: listing, adding, removing and rotating the passwords that open it.

Restic's design document, "Keys, Encryption and MAC": every slot holds the same master key, so nothing is ever sealed
again. Who once had the master key has it for ever; only a copy with a new key shuts such a one out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from refloat.clock import now
from refloat.errors import ConfigError, IntegrityError, NotFound
from refloat.ports.key_wrapper import KeyWrapper
from refloat.recovery_point import new_id
from vault.files import FileKind, key_of, read_named, require_small, stored, write_named
from vault.instants import parse_instant, to_datetime
from vault.keys import check_key_file, make_key_file, open_key_file
from vault.locks import hold
from vault.repository import MOST_SLOTS, OpenVault
from vault.untrusted import load
from vault.wrapped import keep_wrapped, random_password, remove_wrapped, wrapped_passwords


@dataclass(frozen=True)
class KeySlot:
    """One key slot. ``flaw``: why it cannot open the vault; ``wrapped_by``: schemes of wrappers of its password."""

    name: str
    created: datetime | None
    username: str
    hostname: str
    is_current: bool
    wrapped_by: tuple[str, ...] = ()
    flaw: str | None = None


def slots(vault: OpenVault) -> list[KeySlot]:
    """Every slot, oldest first. A damaged one is listed with its flaw.

    Raises:
        IntegrityError: A wrapped password beside the vault is damaged.
    """
    wrapped: dict[str, list[str]] = {}
    for each in wrapped_passwords(vault.store):
        wrapped.setdefault(each.slot, []).append(each.scheme)
    found = []
    for name, facts in stored(vault.store, FileKind.KEY):
        try:
            found.append(_slot(vault, name, facts.size_bytes, tuple(sorted(wrapped.get(name, ())))))
        except NotFound:
            continue
    return sorted(found, key=lambda slot: (slot.created is None, slot.created, slot.name))


def _slot(vault: OpenVault, name: str, size_bytes: int, wrapped_by: tuple[str, ...]) -> KeySlot:
    is_current = name == vault.slot
    try:
        require_small(FileKind.KEY, name, size_bytes)
        text = read_named(vault.store, FileKind.KEY, name)
        check_key_file(text)
        value = load(text)
        created = to_datetime(parse_instant(value["created"]))
        return KeySlot(
            name, created, str(value.get("username", "")), str(value.get("hostname", "")), is_current, wrapped_by
        )
    except IntegrityError as wrong:
        return KeySlot(name, None, "", "", is_current, wrapped_by, wrong.message)
    except (ValueError, KeyError, TypeError, OverflowError):
        return KeySlot(name, None, "", "", is_current, wrapped_by, "a key file does not say what it must")


def add(vault: OpenVault, new: str | KeyWrapper) -> KeySlot:
    """A slot for one more password, or for a random one that the wrapper wraps; it is proved to open the vault.

    Raises:
        ConfigError: There are as many slots as restic tries, or the password is empty.
        IntegrityError: What was stored does not open the vault.
    """
    with vault.lock(new_id()):
        return _add(vault, new)


def _add(vault: OpenVault, new: str | KeyWrapper) -> KeySlot:
    count = sum(1 for _ in stored(vault.store, FileKind.KEY))
    if count >= MOST_SLOTS:
        raise ConfigError(
            f"{vault.url} has {count} key slots, and restic tries no more than {MOST_SLOTS}; nothing was changed",
            guidance="Remove one first: refloat vault key remove.",
        )
    password = new if isinstance(new, str) else random_password()
    if not password.strip():
        raise ConfigError("the new password is empty; nothing was changed")
    text = make_key_file(vault.files.key, password, now())
    name = sha256(text).hexdigest()
    if not isinstance(new, str):
        keep_wrapped(vault.store, new, password, name)
    write_named(vault.store, FileKind.KEY, name, text)
    if open_key_file(read_named(vault.store, FileKind.KEY, name), password) != vault.files.key:
        raise IntegrityError(f"the new key slot {name[:8]} does not open {vault.url}; the old ones were not changed")
    return next(slot for slot in slots(vault) if slot.name == name)


def remove(vault: OpenVault, name: str, *, even_current: bool = False) -> KeySlot:
    """Remove a slot, named by how its name begins, and its wrapped passwords.

    Raises:
        ConfigError: It is none or several, the last that can open the vault, or the one in use.
        LeaseHeld: Somebody else works with the vault.
    """
    with hold(vault.files, new_id(), is_exclusive=True):
        found = slots(vault)
        chosen = choose(found, name)
        if not any(slot.flaw is None and slot.name != chosen.name for slot in found):
            raise ConfigError(f"{chosen.name[:8]} is the last key slot that opens {vault.url}; nothing was changed")
        if chosen.is_current and not even_current:
            raise ConfigError(
                f"{chosen.name[:8]} is the key slot this command opened {vault.url} by; nothing was changed",
                guidance="Open the vault by another password, or give --force.",
            )
        _remove(vault, chosen.name)
    return chosen


def choose(found: list[KeySlot], name: str) -> KeySlot:
    """The slot whose name begins so.

    Raises:
        ConfigError: None or several do.
    """
    chosen = [slot for slot in found if name and slot.name.startswith(name)]
    if len(chosen) != 1:
        names = ", ".join(slot.name[:8] for slot in found)
        raise ConfigError(f"{'several' if chosen else 'no'} key slots begin with {name[:80]!r}; there are: {names}")
    return chosen[0]


def _remove(vault: OpenVault, name: str) -> None:
    """The slot first: a wrapped password without slot opens nothing."""
    vault.store.delete(key_of(FileKind.KEY, name))
    remove_wrapped(vault.store, name)


def rotate(vault: OpenVault, new: str | KeyWrapper) -> KeySlot:
    """Replace the slot in use: the new one is added and proved to open the vault before the old one goes.

    Raises:
        ConfigError: There is no room for one more slot, or the new password is the old one.
        LeaseHeld: Somebody else works with the vault.
    """
    old = vault.slot
    if old is None:
        raise AssertionError("a vault that was opened knows its slot")
    with hold(vault.files, new_id(), is_exclusive=True):
        if isinstance(new, str) and open_key_file(read_named(vault.store, FileKind.KEY, old), new) is not None:
            raise ConfigError("the new password is the one in use; nothing was changed")
        slot = _add(vault, new)
        vault.slot = slot.name
        _remove(vault, old)
    return next(each for each in slots(vault) if each.name == slot.name)
