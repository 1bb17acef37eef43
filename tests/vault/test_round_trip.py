"""Archive and extract: what comes back is what was there, and what is there already is used, replaced or removed."""

from __future__ import annotations

import ctypes
import os
import random
import resource
import shutil
import socket
import struct
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refloat.errors import ConfigError, IntegrityError, Interrupted
from tests.vault.given import MIB, facts, put_oddities, reopened
from vault.archive import BATCH_NAMES, PIECE_BYTES, Archived, archive
from vault.blobs import BlobKind
from vault.chunking import CHUNK_BYTES
from vault.disk import node_of
from vault.extract import Extracted, extract
from vault.files import FileKind
from vault.filing import CHANGED, INLINE_BYTES, Reading, read_small
from vault.index import encode_index
from vault.packs import read_header
from vault.repository import OpenVault
from vault.tally import Tally
from vault.writing import BlobWriter


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder full of oddities."""
    folder = tmp_path / "source"
    folder.mkdir()
    put_oddities(folder)
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty target."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


class Acting(Tally):
    """A tally that does something once, at the first count of bytes; all other work waits for that."""

    def __init__(self, action: Callable[[Tally], None]) -> None:
        super().__init__()
        self._action, self.acted, self._turn = action, 0, threading.Lock()

    def add(self, *, data_bytes: int = 0, files: int = 0) -> None:
        super().add(data_bytes=data_bytes, files=files)
        if data_bytes:
            with self._turn:
                if not self.acted:
                    self.acted += 1
                    self._action(self)


def test_everything_comes_back(vault: OpenVault, source: Path, out: Path) -> None:
    """Bytes, types, modes, owners, times, links, attributes, and the top folder's own facts; holes stay holes."""
    source.chmod(0o2751)
    os.setxattr(source, "user.top", b"1")
    done = archive(vault, source, Tally())
    assert done.unreadable_count == 0
    tally = Tally()
    found = extract(vault, done.tree, out, tally, top=done.top)
    assert facts(out) == facts(source)
    assert (out.stat().st_mode, out.stat().st_mtime_ns) == (source.stat().st_mode, source.stat().st_mtime_ns)
    assert os.getxattr(out, "user.top") == b"1"
    assert found == Extracted(done.files, done.data_bytes)
    assert (tally.files_done, tally.bytes_done) == (done.files, done.data_bytes)
    assert (out / "sub" / "sparse").stat().st_blocks * 512 < 2 * MIB
    assert (out / "sub" / "zeros").stat().st_blocks == 0


def test_sockets_are_left_to_their_servers(vault: OpenVault, tmp_path: Path, out: Path) -> None:
    """As restic does; nothing else is missing."""
    folder = tmp_path / "with socket"
    folder.mkdir()
    (folder / "file").write_text("1")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(folder / "s"))
        done = archive(vault, folder, Tally())
    extract(vault, done.tree, out, Tally())
    assert sorted(path.name for path in out.iterdir()) == ["file"]
    assert done.unreadable_count == 0


names = st.binary(min_size=1, max_size=12).filter(
    lambda n: not set(n) & {0, 47} and n not in (b".", b"..", b"lost+found")  # spared at the top: see below
)
bodies = st.one_of(
    st.binary(max_size=300),
    st.sampled_from([INLINE_BYTES, INLINE_BYTES + 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES]).map(bytes),
    st.tuples(st.integers(1, 3 * CHUNK_BYTES), st.integers(0, 9)).map(lambda of: random.Random(of[1]).randbytes(of[0])),
)
folders = st.recursive(
    st.dictionaries(names, bodies, max_size=4), lambda inner: st.dictionaries(names, inner | bodies, max_size=4)
)


def _make(folder: bytes, content: dict[bytes, object]) -> None:
    os.mkdir(folder)  # noqa: PTH102 (bytes)
    for name, each in content.items():
        if isinstance(each, dict):
            _make(folder + b"/" + name, each)
        else:
            Path(os.fsdecode(folder + b"/" + name)).write_bytes(each)  # type: ignore[arg-type]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(before=folders, after=folders)
def test_any_folder_becomes_any_other(
    vault: OpenVault, tmp_path: Path, before: dict[bytes, object], after: dict[bytes, object]
) -> None:
    """Whatever was in the target; and the second copy, with the first as parent, is as right as the first."""
    made = [tmp_path / name for name in ("before", "after", "target")]
    try:
        _make(os.fsencode(made[0]), before)
        _make(os.fsencode(made[1]), after)
        made[2].mkdir()
        parent = None
        for folder in (made[0], made[1], made[1]):
            done = archive(vault, folder, Tally(), parent=parent)
            extract(vault, done.tree, made[2], Tally(), top=done.top)
            assert facts(made[2]) == facts(folder)
            parent = done.tree
    finally:
        for folder in made:
            shutil.rmtree(folder, ignore_errors=True)


def test_a_second_archive_stores_nothing_and_a_changed_page_one_chunk(vault: OpenVault, tmp_path: Path) -> None:
    """Fixed chunks: what is overwritten in place costs its own chunk only."""
    folder = tmp_path / "db"
    folder.mkdir()
    (folder / "heap").write_bytes(random.Random(1).randbytes(20 * MIB))
    first = archive(vault, folder, Tally())
    again = archive(vault, folder, Tally())
    assert (again.tree, again.added_bytes) == (first.tree, 0)
    with (folder / "heap").open("r+b") as file:
        file.seek(5 * MIB + 8192)
        file.write(b"page")
    changed = archive(vault, folder, Tally(), parent=first.tree)
    assert changed.tree != first.tree
    assert changed.added_bytes < MIB + 4096


def test_unchanged_files_cost_a_stat(vault: OpenVault, source: Path, out: Path) -> None:
    """The content comes from the parent; what changed size, time, or only its change time is read again."""
    first = archive(vault, source, Tally())
    sly = source / "sub" / "random"
    before = sly.stat()
    opened = _opened_by(lambda: archive(vault, source, Tally(), parent=first.tree), source)
    assert opened == set()
    with sly.open("r+b") as file:
        file.write(b"changed, and the clock put back")
    os.utime(sly, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (sly.stat().st_size, sly.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    results: list[Archived] = []
    opened = _opened_by(lambda: results.append(archive(vault, source, Tally(), parent=first.tree)), source)
    assert opened == {"random"}
    extract(vault, results[0].tree, out, Tally())
    assert facts(out) == facts(source)


def _opened_by(work: Callable[[], object], folder: Path) -> set[str]:
    """Names of regular files that were opened below a folder meanwhile, by inotify(7)."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    for here, _, _ in os.walk(folder):
        assert libc.inotify_add_watch(watch, os.fsencode(here), 0x20) >= 0  # IN_OPEN
    try:
        work()
        try:
            events = os.read(watch, 1 << 20)
        except BlockingIOError:
            return set()
    finally:
        os.close(watch)
    found, place = set(), 0
    while place < len(events):
        _, mask, _, size = struct.unpack_from("iIII", events, place)
        name = events[place + 16 : place + 16 + size].rstrip(b"\0")
        if not mask & 0x40000000:  # IN_ISDIR
            found.add(os.fsdecode(name))
        place += 16 + size
    return found


def test_a_parent_that_is_gone_costs_time_only(vault: OpenVault, source: Path, out: Path) -> None:
    """Pruned or damaged: everything is read."""
    done = archive(vault, source, Tally(), parent="ab" * 32)
    extract(vault, done.tree, out, Tally())
    assert facts(out) == facts(source)


def test_a_parent_whose_blobs_are_gone_is_read_again(vault: OpenVault, place: Path, source: Path) -> None:
    """A tree that still lists what a prune removed must not become part of a new copy."""
    first = archive(vault, source, Tally())
    packs = [
        (bytes.fromhex(p.name), read_header(p.read_bytes(), vault.files.codec.sealer)) for p in place.glob("data/*/*")
    ]
    for path in (place / "index").iterdir():
        path.unlink()
    vault.files.write(FileKind.INDEX, encode_index([each for each in packs if each[1][0].kind is BlobKind.TREE]))
    again = reopened(place)
    done = archive(again, source, Tally(), parent=first.tree)
    assert done.tree == first.tree
    assert done.added_bytes > 3 * MIB


class Meddling(BlobWriter):
    """A writer under whose hands the file grows."""

    def __init__(self, vault: OpenVault, path: Path) -> None:
        super().__init__(vault.files, vault.index())
        self._path = path

    def save(self, kind: BlobKind, plain: bytes | bytearray | memoryview, blob_id: bytes | None = None) -> bytes:
        with self._path.open("ab") as file:
            file.write(b"more")
        return super().save(kind, plain, blob_id)


def test_a_small_file_that_changes_while_it_is_read_is_told(vault: OpenVault, tmp_path: Path) -> None:
    """It was read whole, but nobody knows at which instant."""
    path = tmp_path / "file"
    path.write_bytes(b"row")
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        node = node_of(b"file", found, 1)
        assert node is not None
        reading = read_small(file.fileno(), node, found, Meddling(vault, path))
    assert reading == Reading(CHANGED)
    assert node.content == sha256(b"row").digest()


@pytest.mark.parametrize("change", ["truncate", "append", "vanish"])
def test_what_changes_while_it_is_read_is_recorded(vault: OpenVault, tmp_path: Path, out: Path, change: str) -> None:
    """Never silently shortened: named among the unreadable; a file whose bytes are missing is left out."""
    folder, size = tmp_path / "live", 2 * PIECE_BYTES + 17
    folder.mkdir()
    (folder / "a log").write_bytes(random.Random(2).randbytes(size))
    (folder / "b").write_text("follows")
    if change == "vanish":  # after the names beside it were looked at
        for number in range(BATCH_NAMES):
            (folder / f"a{number}").write_bytes(b"a")

    def meddle(tally: Tally) -> None:
        if change == "vanish":
            (folder / "b").unlink()
        else:
            os.truncate(folder / "a log", MIB if change == "truncate" else size + 5)

    tally = Acting(meddle)
    done = archive(vault, folder, tally)
    assert tally.acted == 1
    (named,) = done.unreadable
    assert done.unreadable_count == 1
    assert named == {"vanish": "b: No such file or directory"}.get(change, "a log: changed while it was read")
    extract(vault, done.tree, out, Tally())
    there = {path.name: path.stat().st_size for path in out.iterdir() if path.name in ("a log", "b")}
    assert there == {"truncate": {"b": 7}, "append": {"a log": size, "b": 7}, "vanish": {"a log": size}}[change]


def test_there_must_be_a_folder(vault: OpenVault, tmp_path: Path) -> None:
    """Neither a file nor nothing."""
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "nothing"):
        with pytest.raises(ConfigError, match=path.name):
            archive(vault, path, Tally())
        with pytest.raises(ConfigError, match=path.name):
            extract(vault, "ab" * 32, path, Tally())


def test_lost_and_found_stays_and_all_else_goes(vault: OpenVault, source: Path, out: Path) -> None:
    """Leftovers of any kind, also below folders that the tree has; only the file system's own folder is spared."""
    done = archive(vault, source, Tally())
    (out / "lost+found").mkdir()
    (out / "lost+found" / "#12").write_text("fsck's")
    put_oddities(out)
    (out / "left" / "over" / "lost+found").mkdir(parents=True)
    (out / "left" / "over" / "x").write_text("x")
    (out / "sub" / "more").write_text("x")
    for stray in (out / "sub", out / "sub" / "random", out / "text"):
        os.setxattr(stray, "user.stray", b"1")
    (out / "empty").unlink()
    (out / "empty").mkdir()
    (out / "text").unlink()
    (out / "text").symlink_to("modes")
    extract(vault, done.tree, out, Tally())
    assert (out / "lost+found" / "#12").read_text() == "fsck's"
    shutil.rmtree(out / "lost+found")
    assert facts(out) == facts(source)


def test_what_only_bears_the_name_of_lost_and_found_goes(vault: OpenVault, source: Path, out: Path) -> None:
    """A file or a link is not the file system's own."""
    done = archive(vault, source, Tally())
    for make in (Path.touch, lambda path: path.symlink_to("/")):
        make(out / "lost+found")
        extract(vault, done.tree, out, Tally())
        assert facts(out) == facts(source)


def test_a_broken_off_extract_is_finished_by_the_next(vault: OpenVault, place: Path, source: Path, out: Path) -> None:
    """Parts that are right are kept, by content; wrong ones are replaced, however right size and time look."""
    (source / "big").write_bytes(random.Random(7).randbytes(40 * MIB))
    done = archive(vault, source, Tally())

    stopping = Acting(lambda tally: tally.stop.set())
    with pytest.raises(Interrupted):
        extract(vault, done.tree, out, stopping)
    assert stopping.acted
    assert facts(out) != facts(source)
    extract(vault, done.tree, out, Tally())
    assert facts(out) == facts(source)
    kept = (out / "big").stat()
    with (out / "big").open("r+b") as file:
        file.seek(11 * MIB)
        file.write(bytes(100))
    with (out / "sub" / "sparse").open("r+b") as file:
        file.seek(8 * MIB)
        file.write(b"not zero")
    os.utime(out / "big", ns=(kept.st_atime_ns, kept.st_mtime_ns))
    extract(vault, done.tree, out, Tally())
    assert facts(out) == facts(source)
    assert (out / "big").stat().st_ino == kept.st_ino


def test_a_right_target_reads_no_data(vault: OpenVault, place: Path, source: Path, out: Path) -> None:
    """Extracting twice asks the vault for trees only: the packs of data may even be gone."""
    for name in ("hard", "deeper/harder"):  # a file of several names is made anew
        (source / "sub" / name).unlink()
    done = archive(vault, source, Tally())
    extract(vault, done.tree, out, Tally())
    largest = max(place.glob("data/*/*"), key=lambda path: path.stat().st_size)
    largest.unlink()
    extract(reopened(place), done.tree, out, Tally())
    assert facts(out) == facts(source)


def test_deep_folders(vault: OpenVault, tmp_path: Path, out: Path) -> None:
    """Deeper than a path can be long, and than Python recurses."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < 8000:
        pytest.skip("NOT RUN: too few open files are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    deep = tmp_path / "deep"
    deep.mkdir()
    here = os.open(deep, os.O_RDONLY)
    for _ in range(2500):
        os.mkdir("abc", dir_fd=here)
        here, above = os.open("abc", os.O_RDONLY, dir_fd=here), here
        os.close(above)
    os.close(os.open("bottom", os.O_CREAT, dir_fd=here))
    os.close(here)
    done = archive(vault, deep, Tally())
    assert (done.files, done.unreadable_count) == (1, 0)
    extract(vault, done.tree, out, Tally())
    (out / "abc" / "x").touch()
    assert archive(vault, out, Tally()).tree != done.tree
    extract(vault, done.tree, out, Tally())
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder in (out, deep):
        extract(vault, archive(vault, empty, Tally()).tree, folder, Tally())
        assert list(folder.iterdir()) == []


def test_a_tree_the_vault_does_not_hold_is_named(vault: OpenVault, out: Path) -> None:
    """Before anything is removed from the target."""
    (out / "precious").write_text("1")
    with pytest.raises(IntegrityError, match="ab" * 32):
        extract(vault, "ab" * 32, out, Tally())
    assert (out / "precious").exists()
