"""The vault as a restic repository of format version 2: making one, opening one, and what an open one offers."""

from __future__ import annotations

import secrets
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from hashlib import sha256
from itertools import islice
from typing import Any, NoReturn

import orjson

from refloat.clock import now
from refloat.errors import (
    AlreadyExists,
    IntegrityError,
    NotAVault,
    NotFound,
    UnsupportedFormat,
    VaultError,
    VaultMissing,
    WrongKey,
)
from refloat.ports.object_store import ObjectStore
from vault.files import (
    CONFIG,
    LARGEST_BYTES,
    FileKind,
    SealedFiles,
    key_of,
    read_named,
    require_small,
    stored,
    write_named,
)
from vault.index import Index
from vault.judging import KnownDead, nobody_is_known_dead
from vault.keys import MOST_WORK, make_key_file, open_key_file, work_of
from vault.locks import REFRESH, HeldLock, hold
from vault.polynomial import is_irreducible, random_polynomial
from vault.sealing import BadSeal, MasterKey, Sealer

VERSION = 2
READABLE = (1, VERSION)
"""Version 1 is version 2 without compression; what is read from it is checked the same."""
MOST_SLOTS = 20
"""restic tries no more key files than this."""
MOST_WORK_OF_ALL = 3 * MOST_WORK
"""Ceiling on the key derivations of all slots together, the cheapest tried first: some seven seconds."""
OURS = "refloat/"
"""What is refloat's and not restic's lies beside the repository under this prefix."""
COPY_OF = f"{OURS}copy-of/"
"""The first thing a copy writes, its name ending in the id of the vault it is of."""
REQUESTS = 8
"""Small files asked for at once,"""
AHEAD_BYTES = 4 << 20
"""as long as they are no larger together: a full index file has 2 or 3 MB, and its text 8."""


_Waiting = deque[tuple[str, int, Future[bytes | None]]]


def _text(waiting: _Waiting) -> tuple[str, bytes | None]:
    name, _, future = waiting.popleft()
    return name, future.result()


class OpenVault:
    """A vault that its password opened. Callable from several threads; its owner closes it, and the store with it."""

    def __init__(self, store: ObjectStore, key: MasterKey, config: dict[str, Any], slot: str | None = None) -> None:
        self.store = store
        self.id: str = config["id"]
        self.version: int = config["version"]
        self.slot = slot
        """The name of the key slot it was opened by."""
        self.files = SealedFiles(store, key)
        self._index: Index | None = None
        self._indexed: set[str] = set()
        self._guard = threading.Lock()

    @property
    def url(self) -> str:
        """The address of its store."""
        return self.store.url

    def index(self, *, is_fresh: bool = False) -> Index:
        """Every blob that an index file names; read once, and once more for new files when asked for a fresh one.

        Raises:
            IntegrityError: An index file is damaged; the message names it.
            StoreFull: The index does not fit memory, and there is no room for temporary files.
        """
        with self._guard:
            if self._index is None or is_fresh:
                found, self._index = self._index or Index(), None
                try:
                    self._read_index(found)
                except BaseException:
                    self._indexed.clear()  # what was read is dropped with it
                    raise
                self._index = found
            return self._index

    def _read_index(self, found: Index) -> None:
        sizes = {name: facts.size_bytes for name, facts in stored(self.store, FileKind.INDEX)}
        names = [name for name in sizes if name not in self._indexed]
        for name, text in self.read_many(FileKind.INDEX, names, sizes):
            if text is not None:
                try:
                    found.add_file(text)
                except IntegrityError as wrong:
                    key = key_of(FileKind.INDEX, name)
                    raise IntegrityError(f"{key} of {self.store.url} is damaged: {wrong}", file=name) from wrong
                self._indexed.add(name)
            del text  # megabytes, that would stay until the next one is there
        found.settle()

    def forget_index(self) -> None:
        """Have the next ``index`` read it anew: packs were removed, or may have been since it was read."""
        with self._guard:
            self._index, self._indexed = None, set()

    def read_many(
        self, kind: FileKind, names: Iterable[str], sizes: Mapping[str, int] | None = None
    ) -> Iterator[tuple[str, bytes | None]]:
        """JSON texts of several files, several at a time, in order; None for one that is gone. ``sizes``, in bytes as
        stored, keep it from having too much in memory.
        """

        def read(name: str) -> bytes | None:
            try:
                require_small(kind, name, sizes.get(name, 0) if sizes else 0)
                return self.files.read(kind, name)
            except NotFound:
                return None

        with ThreadPoolExecutor(REQUESTS, thread_name_prefix=f"read {kind.value}") as pool:
            waiting: _Waiting = deque()
            try:
                for name in names:
                    size = sizes.get(name, 0) if sizes else 0
                    while len(waiting) >= REQUESTS or (waiting and size + sum(e[1] for e in waiting) > AHEAD_BYTES):
                        yield _text(waiting)
                    waiting.append((name, size, pool.submit(read, name)))
                while waiting:
                    yield _text(waiting)
            finally:
                for _, _, future in waiting:
                    future.cancel()

    @contextmanager
    def lock(
        self,
        run: str,
        *,
        is_exclusive: bool = False,
        refresh: timedelta = REFRESH,
        is_dead: KnownDead = nobody_is_known_dead,
    ) -> Iterator[HeldLock]:
        """Hold the vault lock of a run while the block runs (``vault.locks.hold``).

        What was read of the index before is forgotten: until now anybody may have pruned what it names.

        Raises:
            LeaseHeld: Somebody holds a conflicting lock.
            ClocksDisagree: An exclusive lock is wanted, and this machine's clock and the store's differ.
        """
        with hold(self.files, run, is_exclusive=is_exclusive, refresh=refresh, is_dead=is_dead) as held:
            self.forget_index()
            yield held

    def close(self) -> None:
        """Let go of the store; idempotent."""
        self.store.close()


def open_vault(
    store: ObjectStore, password: str, *, slot: str | None = None, versions: Collection[int] = (VERSION,)
) -> OpenVault:
    """The vault in a store. With ``slot`` only that key slot is tried; ``versions`` are those of the format accepted.

    Raises:
        VaultMissing: There is none, or one whose making broke off before its end.
        NotAVault: Something else is there.
        WrongKey: No key slot opens with this password.
        UnsupportedFormat: It is of another format version.
        IntegrityError: Its key file or configuration is damaged.
    """
    try:
        if (size := store.stat(CONFIG).size_bytes) > LARGEST_BYTES[FileKind.KEY]:
            raise IntegrityError(f"{store.url}/{CONFIG} is damaged: it has {size} bytes")
        sealed = store.get(CONFIG)
    except NotFound as missing:
        _explain_missing(store, missing)
    slots = {name: facts.size_bytes for name, facts in stored(store, FileKind.KEY)}
    if not slots:
        raise NotAVault(f"{store.url} holds a file named config and no keys: it is no vault")
    key, opened = _unlock(store, {name: size for name, size in slots.items() if slot in (None, name)}, password, sealed)
    return OpenVault(store, key, _read_config(store, key, sealed, versions), opened)


def exists(store: ObjectStore) -> bool:
    """Whether a store holds a vault, or something that bears the name of its configuration."""
    try:
        store.stat(CONFIG)
    except NotFound:
        return False
    return True


def copied_here(store: ObjectStore) -> str | None:
    """The id of the vault that a prefix is, or was becoming, a copy of; None when no copy was ever begun there."""
    return next((found.key.removeprefix(COPY_OF) for found in store.list(COPY_OF)), None)


def _explain_missing(store: ObjectStore, missing: NotFound) -> NoReturn:
    if copied_here(store) is not None:
        raise VaultMissing(
            f"the copying of a vault to {store.url} broke off before there was a vault",
            guidance="Run refloat vault copy again: what was copied is used.",
        ) from missing
    foreign = _first(store, but=(OURS, f"{FileKind.KEY.value}/"))
    if foreign is not None:
        raise NotAVault(f"{store.url} has no configuration of a vault, but holds {foreign}") from missing
    raise VaultMissing(f"there is no vault at {store.url}") from missing


def _first(store: ObjectStore, *, but: tuple[str, ...]) -> str | None:
    return next((found.key for found in store.list() if not found.key.startswith(but)), None)


def _unlock(store: ObjectStore, slots: Mapping[str, int], password: str, sealed_config: bytes) -> tuple[MasterKey, str]:
    """The master key, and the slot that opens with the password and fits the configuration. ``slots``: sizes by name.

    Two runs that make one vault at the same moment may leave a slot of a vault that never was; it is passed over.
    """
    damaged: VaultError | None = None
    texts = list[tuple[int, str, bytes]]()
    for name, size_bytes in islice(slots.items(), MOST_SLOTS):
        try:
            require_small(FileKind.KEY, name, size_bytes)
            text = read_named(store, FileKind.KEY, name)
            texts.append((work_of(text), name, text))
        except NotFound:
            continue
        except IntegrityError as error:
            damaged = damaged or IntegrityError(f"{key_of(FileKind.KEY, name)} of {store.url} is damaged: {error}")
    work_left = MOST_WORK_OF_ALL
    for work, name, text in sorted(texts):
        if work > work_left:  # anybody who may write can add slots that take long
            damaged = damaged or IntegrityError(f"the key files of {store.url} ask for more work than is sane: {name}")
            break
        work_left -= work
        try:
            key = open_key_file(text, password)
            if key is not None:
                Sealer(key).open(sealed_config)
                return key, name
        except IntegrityError as error:
            damaged = damaged or IntegrityError(f"{key_of(FileKind.KEY, name)} of {store.url} is damaged: {error}")
        except BadSeal:
            damaged = IntegrityError(f"{store.url}/{CONFIG} is damaged, or of another vault than its keys")
    if damaged is not None:
        raise damaged
    raise WrongKey(f"the password opens none of the {len(slots)} key slots of {store.url}")


def _read_config(store: ObjectStore, key: MasterKey, sealed: bytes, versions: Collection[int]) -> dict[str, Any]:
    try:
        config: dict[str, Any] = orjson.loads(Sealer(key).open(sealed))
        version, polynomial = int(config["version"]), int(config["chunker_polynomial"], 16)
        str(config["id"])
    except (ValueError, KeyError, TypeError) as wrong:
        raise IntegrityError(f"{store.url}/{CONFIG} does not say what it must") from wrong
    if version not in versions:
        raise UnsupportedFormat(f"{store.url} is a repository of format version {version}, not {VERSION}")
    if not is_irreducible(polynomial):
        raise IntegrityError(f"{store.url}/{CONFIG} names a chunker polynomial that is none")
    return config


def _unannounced(slot: str) -> None:
    del slot


def init(store: ObjectStore, password: str, *, announce: Callable[[str], None] = _unannounced) -> OpenVault:
    """Make a vault in an empty prefix, its configuration last; open it. Finishes one whose making broke off.

    When two make one at the same moment, one of the two vaults comes to be and both open that. ``announce`` is told the
    name of a new key slot before that is stored.

    Raises:
        AlreadyExists: There is a vault.
        NotAVault: Something else is there.
        WrongKey: A half-made vault is there, and this password does not open it.
    """
    half_made = [name for name, _ in stored(store, FileKind.KEY)]
    foreign = _first(store, but=(OURS, *(key_of(FileKind.KEY, name) for name in half_made)))
    if foreign == CONFIG and half_made:
        raise AlreadyExists(f"there is a vault at {store.url} already; nothing was changed")
    if foreign is not None:
        raise NotAVault(f"{store.url} is not empty: it holds {foreign}; nothing was changed")
    key, slot, is_new = _key_for(store, half_made, password, announce)
    config = {"version": VERSION, "id": secrets.token_hex(32), "chunker_polynomial": f"{random_polynomial():x}"}
    try:
        store.put(CONFIG, Sealer(key).seal(orjson.dumps(config)), if_absent=True)
    except AlreadyExists:
        if is_new and not _opens(store, key):  # else it is our own, and only the answer was lost
            store.delete(key_of(FileKind.KEY, slot))
        return open_vault(store, password)
    return OpenVault(store, key, config, slot)


def _key_for(
    store: ObjectStore, half_made: list[str], password: str, announce: Callable[[str], None]
) -> tuple[MasterKey, str, bool]:
    """The key of the vault to be made, the name of its slot, and whether that is new."""
    for name in half_made:
        key = open_key_file(read_named(store, FileKind.KEY, name), password)
        if key is not None:
            return key, name, False
    if half_made:
        slot = key_of(FileKind.KEY, half_made[0])
        raise WrongKey(
            f"the making of a vault at {store.url} broke off, and this password does not open it",
            guidance=f"Give the password of that attempt, or remove {slot}: there is no data yet.",
        )
    key = MasterKey.random()
    text = make_key_file(key, password, now())
    name = sha256(text).hexdigest()
    announce(name)
    write_named(store, FileKind.KEY, name, text)
    return key, name, True


def _opens(store: ObjectStore, key: MasterKey) -> bool:
    try:
        Sealer(key).open(store.get(CONFIG))
    except BadSeal:
        return False
    return True
