"""The folder as a store: atomic puts, full disks, missing rights, and what lies around."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from providers.object_stores.folder import UNFINISHED, FolderObjectStore, open_store
from refloat.errors import AccessDenied, AlreadyExists, ConfigError, NotFound, StoreFull, Unsupported

NOBODY = 65534
ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> FolderObjectStore:
    return open_store(f"file://{tmp_path}/vaults/shop", {})


def keys(store: FolderObjectStore) -> list[str]:
    return [found.key for found in store.list()]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "url",
    ["file://", "file:///", "file://vault/a", "file:vault", "file:///a?b", "file:///a#b", "file:///a%00", "folder:/a"],
)
def test_a_wrong_address_is_refused_at_once(url: str) -> None:
    """Absolute paths only, with three slashes."""
    with pytest.raises(ConfigError):
        open_store(url, {})


def test_an_address_is_a_path(tmp_path: Path) -> None:
    """Percent signs decode; a file is no folder."""
    folder = tmp_path / "my vault"
    store = open_store(folder.as_uri(), {})
    store.put("config", b"x")
    assert (folder / "config").read_bytes() == b"x"
    with pytest.raises(ConfigError, match="is a file"):
        open_store(f"{folder.as_uri()}/config", {})


def test_only_a_put_makes_the_folder(store: FolderObjectStore, tmp_path: Path) -> None:
    """Looking for a vault where there is none leaves nothing behind."""
    assert store.capabilities().is_local and store.mover_environment() == {}
    assert keys(store) == []
    store.delete("config")
    with pytest.raises(NotFound):
        store.get("config")
    assert list(tmp_path.iterdir()) == []
    store.put("data/00/pack", b"x", if_absent=True)
    assert keys(store) == ["data/00/pack"]


def test_what_is_not_ours_is_not_listed(store: FolderObjectStore, tmp_path: Path) -> None:
    """Names that no key has, folders without objects, pipes."""
    store.put("config", b"x")
    folder = tmp_path / "vaults/shop"
    (folder / "README").write_text("hello")
    (folder / "a b").write_text("hello")
    (folder / "empty").mkdir()
    (folder / "Data").mkdir()
    (folder / "Data/pack").write_text("hello")
    os.mkfifo(folder / "pipe")
    assert keys(store) == ["config"]


def test_a_key_cannot_be_a_folder_too(store: FolderObjectStore) -> None:
    """An object store can hold both a and a/b, a file system cannot: said, and nothing lost."""
    store.put("a/b", b"1")
    store.put("c", b"2")
    for key in ("a", "c/d"):
        for if_absent in (True, False):
            with pytest.raises(Unsupported):
                store.put(key, b"3", if_absent=if_absent)
    with pytest.raises(Unsupported, match="too long"):
        store.put("x" * 300, b"3")
    assert keys(store) == ["a/b", "c"]


def test_a_refused_creation_leaves_no_rest(store: FolderObjectStore, tmp_path: Path) -> None:
    """Neither the object nor an unfinished file."""
    store.put("locks/a", b"first", if_absent=True)
    with pytest.raises(AlreadyExists):
        store.put("locks/a", b"second", if_absent=True)
    assert files(tmp_path) == ["a"]


WRITER = """
import resource, signal, sys
from providers.object_stores.folder import open_store
from refloat.errors import StoreFull
store = open_store(sys.argv[1], {})
store.put("data/small", b"x")
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
if sys.argv[2] == "dies":
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
try:
    store.put("data/small", b"y" * (3 << 20))
except StoreFull as full:
    print(full.code, full.message)
"""


def written(url: str, how: str) -> subprocess.CompletedProcess[str]:
    """A process that may write files of 1 MiB and puts 3 MiB: it gets an error, or dies in the middle."""
    command = [sys.executable, "-c", WRITER, url, how]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_a_killed_writer_leaves_nothing_that_is_listed(store: FolderObjectStore, tmp_path: Path) -> None:
    """Killed in the middle of a write: the older object stands, its unfinished file is no object, and no hindrance."""
    done = written(store.url, "dies")
    assert done.returncode == -signal.SIGXFSZ, done.stderr
    rests = [name for name in files(tmp_path) if name.startswith(UNFINISHED)]
    assert len(rests) == 1
    assert keys(store) == ["data/small"] and store.get("data/small") == b"x"
    store.put("data/small", b"z")
    assert store.get("data/small") == b"z"


def test_a_file_size_limit_is_a_full_store(store: FolderObjectStore, tmp_path: Path) -> None:
    """The error, the older object whole, no rest."""
    done = written(store.url, "fails")
    assert done.returncode == 0 and done.stdout.startswith("STORE-FULL"), done.stderr
    assert store.get("data/small") == b"x"
    assert files(tmp_path) == ["small"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("NOT RUN: mounting a small file system needs root")
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "refloat-test", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mount.returncode:
        pytest.skip(f"NOT RUN: no file system can be mounted here: {mount.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_named_and_nothing_is_lost(small_disk: Path) -> None:
    """What is stored stays; what did not fit leaves no rest; after a deletion there is room again."""
    store = open_store(f"file://{small_disk}/vault", {})
    store.put("data/a", b"a" * 600_000)
    for if_absent in (True, False):
        with pytest.raises(StoreFull, match="data/b"):
            store.put("data/b", b"b" * 600_000, if_absent=if_absent)
    assert keys(store) == ["data/a"] and files(small_disk) == ["a"]
    store.delete("data/a")
    store.put("data/b", b"b" * 600_000, if_absent=True)


def test_a_file_system_that_is_read_only_denies(small_disk: Path) -> None:
    """Reading goes on."""
    store = open_store(f"file://{small_disk}/vault", {})
    store.put("a", b"x")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(AccessDenied):
        store.put("b", b"x")
    with pytest.raises(AccessDenied):
        store.delete("a")
    assert store.get("a") == b"x"


@contextmanager
def somebody_else() -> Iterator[None]:
    """This process without root's rights, where it has them."""
    mine = os.geteuid()
    if mine == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(mine)


def test_missing_rights_are_named(store: FolderObjectStore, tmp_path: Path) -> None:
    """Every method, and opening is not refused."""
    store.put("a", b"x")
    folder = tmp_path / "vaults"
    folder.chmod(0o000)
    try:
        with somebody_else():
            closed = open_store(store.url, {})
            for call in (
                lambda: closed.put("b", b"x"),
                lambda: closed.get("a"),
                lambda: closed.stat("a"),
                lambda: list(closed.list()),
                lambda: closed.delete("a"),
            ):
                with pytest.raises(AccessDenied):
                    call()
    finally:
        folder.chmod(0o700)
    assert keys(store) == ["a"]


def test_names_come_with_their_folders(store: FolderObjectStore) -> None:
    """A thousand folders are no reason to read them all for the first key."""
    for number in range(20):
        store.put(f"data/{number:02}/{secrets.token_hex(4)}", b"")
    found = store.list("data/")
    assert next(found).key.startswith("data/00/")
    for number in range(1, 20):
        for key in [one.key for one in store.list(f"data/{number:02}/")]:
            store.delete(key)
    assert list(found) == []
