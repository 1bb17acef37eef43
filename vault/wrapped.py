"""Wrapped vault passwords: random passwords of key slots, encrypted by a key service and kept beside the repository.

One JSON file each, ``refloat/wrapped/<id>.json``: which kind of wrapper, which key slot, the wrapped password. It is
written before its slot is, so that no slot's password is ever lost; one whose slot is not there opens nothing.
"""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass

import orjson

from refloat.clock import now
from refloat.errors import IntegrityError, NotFound, WrongKey
from refloat.ports.key_wrapper import KeyWrapper
from refloat.ports.object_store import ObjectStore
from refloat.recovery_point import new_id
from vault.files import FileKind, stored
from vault.untrusted import load

FOLDER = "refloat/wrapped/"
PASSWORD_BYTES = 32
MOST_BYTES = 64 << 10
"""Most bytes of such a file that are read."""
VERSION = 1
PURPOSE = "refloat vault password"


@dataclass(frozen=True)
class WrappedPassword:
    """One wrapped password: its store key, the wrapper's URL scheme, the key slot it opens, the wrapped bytes."""

    key: str
    scheme: str
    slot: str
    body: bytes


def random_password() -> str:
    """A vault password nobody need know: 32 random bytes, as text."""
    return base64.b64encode(os.urandom(PASSWORD_BYTES)).decode()


def wrapped_passwords(store: ObjectStore) -> list[WrappedPassword]:
    """Every wrapped password beside a vault.

    Raises:
        IntegrityError: One does not say what it must; the message names it.
    """
    found = []
    for each in store.list(FOLDER):
        try:
            if each.size_bytes > MOST_BYTES:
                raise ValueError(f"{each.size_bytes} bytes")
            value = load(store.get(each.key))
            if value["version"] != VERSION:
                raise ValueError("another version")
            body = base64.b64decode(value["wrapped"], validate=True)
            found.append(WrappedPassword(each.key, str(value["wrapper"]), str(value["slot"]), body))
        except NotFound:
            continue
        except (ValueError, KeyError, TypeError) as wrong:
            raise IntegrityError(f"{each.key} of {store.url} is no wrapped password of this version") from wrong
    return found


def keep_wrapped(store: ObjectStore, wrapper: KeyWrapper, password: str, slot: str) -> None:
    """Wrap the password of a key slot, see that it unwraps, and keep it beside the vault.

    Raises:
        RefloatError: The key service or the store refused.
    """
    body = wrapper.wrap(password.encode(), _context(slot))
    if wrapper.unwrap(body, _context(slot)) != password.encode():
        raise IntegrityError(f"{wrapper.url} does not unwrap what it wrapped; nothing was changed")
    text = {
        "version": VERSION,
        "wrapper": _scheme(wrapper),
        "slot": slot,
        "created": now().isoformat(),
        "wrapped": base64.b64encode(body).decode(),
    }
    store.put(f"{FOLDER}{new_id()}.json", orjson.dumps(text), if_absent=True)


def unwrap_password(store: ObjectStore, wrapper: KeyWrapper) -> tuple[str, str] | None:
    """A password that the wrapper unwraps, and its key slot; None when no wrapped password has a slot.

    Raises:
        WrongKey: There are some, but this wrapper unwraps none.
        RefloatError: The key service or the store refused.
    """
    slots = {name for name, _ in stored(store, FileKind.KEY)}
    usable = [each for each in wrapped_passwords(store) if each.slot in slots]
    failure: WrongKey | IntegrityError | None = None
    for each in usable:
        if each.scheme != _scheme(wrapper):
            continue
        try:
            return wrapper.unwrap(each.body, _context(each.slot)).decode(), each.slot
        except (WrongKey, IntegrityError) as wrong:
            failure = failure or wrong
    if usable:
        kinds = ", ".join(sorted({each.scheme for each in usable}))
        raise WrongKey(
            f"{wrapper.url} unwraps none of the {len(usable)} wrapped passwords of {store.url} ({kinds})"
        ) from failure
    return None


def remove_wrapped(store: ObjectStore, slot: str) -> None:
    """Remove every wrapped password of a slot."""
    for each in wrapped_passwords(store):
        if each.slot == slot:
            store.delete(each.key)


def _context(slot: str) -> dict[str, str]:
    """What a wrapped password is bound to: it cannot be passed off as another vault's."""
    return {"purpose": PURPOSE, "slot": slot}


def _scheme(wrapper: KeyWrapper) -> str:
    return wrapper.url.partition("://")[0]
