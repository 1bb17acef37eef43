"""What stores of keys in a bucket do alike, whichever cloud's: probes, ranges, listings in order, facts of objects."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime

from refloat.errors import AccessDenied, AlreadyExists, Immutable, Permanent, RangeNotSatisfiable, Unsupported
from refloat.ports.object_store import KEY, MAX_KEY, ObjectStore, StoredObject


def honours_conditional_create(store: ObjectStore) -> bool:
    """Whether a second conditional put of one key is refused and changes nothing.

    Where the credentials may not delete, the probe's object (16 bytes) stays under ``refloat/probe/``.
    """
    key, first = f"refloat/probe/{secrets.token_hex(16)}", secrets.token_bytes(16)
    try:
        store.put(key, first, if_absent=True)
    except Unsupported:
        return False
    try:
        store.put(key, secrets.token_bytes(16), if_absent=True)
    except AlreadyExists:
        return store.get(key) == first
    finally:
        with suppress(AccessDenied, Immutable):
            store.delete(key)
    return False


def sized(store: ObjectStore, key: str, start: int, length: int | None) -> int | None:
    """How many bytes a request means, asking for the object's size where no Range header can say it.

    None is all of it; 0 is nothing, which is not asked for.

    Raises:
        NotFound: No such key.
        RangeNotSatisfiable: Fewer bytes exist than asked for.
    """
    if start >= 0 and (length is None or length > 0) and not (start and length is None):
        return length
    size = store.stat(key).size_bytes
    wanted = size - start if length is None else length
    if start < 0 or wanted < 0 or start + wanted > size:
        raise RangeNotSatisfiable(f"{store.url}/{key} has {size} bytes, not {wanted} from {start}", key=key)
    return wanted


def in_order(store: ObjectStore, begin: str, found: Iterable[tuple[str, object, object]]) -> Iterator[StoredObject]:
    """Listed (name, size, time) as objects, each key once; names that are no key of ours are passed over.

    Raises:
        Unsupported: The server does not list in the order of keys.
    """
    previous = ""
    for name, size, at in found:
        key = name.removeprefix(begin)
        if len(key) > MAX_KEY or not KEY.match(key):
            continue
        if key <= previous:
            raise Unsupported(f"{store.url} does not list in the order of keys: {key} after {previous}", key=key)
        previous = key
        yield described(store, key, size, at)


def described(store: ObjectStore, key: str, size: object, at: object) -> StoredObject:
    """An object's size and time, which a server must have said.

    Raises:
        Permanent: It did not.
    """
    if not isinstance(size, int) or not isinstance(at, datetime):
        raise Permanent(f"{store.url}/{key}: the store does not say its size and time", key=key)
    return StoredObject(key, size, at.astimezone(UTC))
