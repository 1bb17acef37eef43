"""One path out of a copy: found by any of its names, listed, written out in order, brought back whole or not at all."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

import pytest

from refloat.errors import AlreadyExists, ConfigError, IntegrityError, StoreFull, Unavailable, Unsupported
from refloat.registry import open_object_store
from tests.vault.faulty import FaultyStore
from tests.vault.given import MIB, PASSWORD, facts, protect, put_oddities, reopened, tree_of
from vault.disk import shown
from vault.finding import contents, find, listing, restore
from vault.nodes import Node, encode_node, encode_tree
from vault.reading import BlobReader
from vault.repository import OpenVault, open_vault
from vault.tally import Tally


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder full of oddities."""
    folder = tmp_path / "source"
    folder.mkdir()
    put_oddities(folder)
    return folder


@pytest.fixture
def tree(vault: OpenVault, source: Path) -> str:
    """Its copy."""
    return tree_of(protect(vault, source))


@pytest.fixture
def reader(vault: OpenVault, tree: str) -> BlobReader:
    """Reads the vault that holds the copy."""
    return BlobReader(vault.files, vault.index())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty folder."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def test_every_path_is_found_and_written_out(vault: OpenVault, reader: BlobReader, tree: str, source: Path) -> None:
    """By its raw name and as it is shown; the bytes are the file's."""
    found = 0
    for here, _, files in os.walk(os.fsencode(source)):
        for name in files:
            path = os.path.join(here, name)  # noqa: PTH118 (bytes)
            if not stat.S_ISREG(os.lstat(path).st_mode):
                continue
            below = path.removeprefix(os.fsencode(source))
            for text in (os.fsdecode(below), shown(below).lstrip("/"), f"./{os.fsdecode(below)}"):
                node = find(reader, tree, text)
                body = b"".join(contents(reader, node))
                assert sha256(body).digest() == sha256(Path(os.fsdecode(path)).read_bytes()).digest()
                found += 1
    assert found > 30


def test_a_name_that_looks_like_an_escape(reader: BlobReader, vault: OpenVault, tmp_path: Path) -> None:
    """What is written as shown is first taken as it is."""
    folder = tmp_path / "names"
    folder.mkdir()
    (folder / r"\xff").write_bytes(b"literal")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).write_bytes(b"raw")
    other = tree_of(protect(vault, folder))
    again = BlobReader(vault.files, vault.index())
    assert b"".join(contents(again, find(again, other, r"\xff"))) == b"literal"
    assert b"".join(contents(again, find(again, other, os.fsdecode(b"\xff")))) == b"raw"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("sub/randon", "nothing in sub is named randon; the closest there is random"),
        ("SUB/random", "nothing in its top is named SUB; the closest there is sub"),
        ("sub/deeper/nothing like it", "nothing in sub/deeper is named nothing like it$"),
        ("text/x", "text is a file and holds nothing"),
        ("link/x", "link is a symbolic link to text and not followed"),
        ("sub/..", "nothing in sub is named ..$"),
        (r"\xff\xfe no utf", r"the closest there is \\xff\\xfe no utf-8"),
    ],
)
def test_an_absent_path_is_told_with_what_is_near(reader: BlobReader, tree: str, path: str, said: str) -> None:
    """Never nothing."""
    with pytest.raises(ConfigError, match=said):
        find(reader, tree, path)


def test_listing(reader: BlobReader, tree: str, source: Path) -> None:
    """A folder's names; a file's own."""
    assert [node.name for node in listing(reader, find(reader, tree, "sub"))] == sorted(
        os.fsencode(path.name) for path in (source / "sub").iterdir()
    )
    assert [node.name for node in listing(reader, find(reader, tree, "sub/random"))] == [b"random"]


def test_what_has_no_content_is_not_written_out(reader: BlobReader, tree: str) -> None:
    """A folder, a link, a fifo."""
    for path, kind in (("", "dir"), ("sub", "dir"), ("link", "symlink"), ("fifo", "fifo")):
        with pytest.raises(ConfigError, match=f"is a {kind}"):
            next(contents(reader, find(reader, tree, path)))


def test_a_large_file_is_written_out_in_bounded_memory_and_can_be_left(
    vault: OpenVault, place: Path, tmp_path: Path
) -> None:
    """96 MiB with holes, in order; a reader who goes away stops the reading."""
    folder = tmp_path / "big"
    folder.mkdir()
    with (folder / "file").open("wb") as file:
        for number in range(6):
            file.write(random.Random(number % 4).randbytes(8 * MIB))
            file.seek(8 * MIB, os.SEEK_CUR)
        file.truncate(96 * MIB + 5)
    tree = tree_of(protect(vault, folder))
    watching = FaultyStore(open_object_store(f"file://{place}", {}))
    again = open_vault(watching, PASSWORD)
    reader = BlobReader(again.files, again.index())
    node = find(reader, tree, "file")
    digest = sha256()
    for piece in contents(reader, node):
        assert len(piece) <= MIB
        digest.update(piece)
    assert digest.digest() == sha256((folder / "file").read_bytes()).digest()
    whole = watching.calls["get data"]
    pieces = contents(reader, node)
    next(pieces)
    pieces.close()
    assert watching.calls["get data"] - whole < whole


def test_one_of_everything_comes_back(vault: OpenVault, reader: BlobReader, tree: str, source: Path, out: Path) -> None:
    """Every entry of the top by itself, folders into folders of their name: together they are the whole."""
    for node in listing(reader, find(reader, tree, "")):
        where = out
        if node.type == "dir":
            where = out / os.fsdecode(node.name)
            where.mkdir()
        done = restore(vault, find(reader, tree, os.fsdecode(node.name)), where, Tally())
        assert done.keeps_owner
    wanted, got = facts(source), facts(out)
    wanted.pop(b"hard links"), got.pop(b"hard links")  # names that were restored one by one are files of their own
    assert got == wanted


def test_nothing_is_overwritten_in_silence(
    vault: OpenVault, reader: BlobReader, tree: str, source: Path, out: Path
) -> None:
    """A taken name, be it a link that leads elsewhere; when it is meant, the name is replaced, not what it leads to."""
    elsewhere = out / "elsewhere"
    elsewhere.write_text("precious")
    (out / "text").symlink_to(elsewhere)
    node = find(reader, tree, "text")
    with pytest.raises(AlreadyExists, match="out/text exists already"):
        restore(vault, node, out, Tally())
    assert (out / "text").is_symlink()
    restore(vault, node, out, Tally(), is_overwriting=True)
    assert (out / "text").read_bytes() == (source / "text").read_bytes()
    assert not (out / "text").is_symlink()
    assert elsewhere.read_text() == "precious"
    (out / "link").mkdir()
    with pytest.raises(Exception, match="out/link cannot be made: Is a directory"):
        restore(vault, find(reader, tree, "link"), out, Tally(), is_overwriting=True)
    assert sorted(path.name for path in out.iterdir()) == ["elsewhere", "link", "text"]


def test_a_restore_that_fails_leaves_nothing(vault: OpenVault, place: Path, tree: str, out: Path) -> None:
    """The store dies, or data is damaged: no file of that name, no rest."""

    class Dead(FaultyStore):
        def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
            if key.startswith("data/") and (length or 0) > MIB:
                self.faults += 1
                raise Unavailable("injected: gone")
            return super().get(key, start=start, length=length)

    dead = Dead(open_object_store(f"file://{place}", {}))
    again = open_vault(dead, PASSWORD)
    node = find(BlobReader(again.files, again.index()), tree, "sub/random")
    with pytest.raises(Unavailable, match="injected"):
        restore(again, node, out, Tally())
    assert dead.faults
    pack = max(place.glob("data/*/*"), key=lambda each: each.stat().st_size)
    body = bytearray(pack.read_bytes())
    for at in range(1000, len(body) - 5000, 4096):
        body[at] ^= 4
    pack.chmod(0o600)
    pack.write_bytes(body)
    with pytest.raises(IntegrityError, match="damaged"):
        restore(reopened(place), node, out, Tally())
    with pytest.raises(IntegrityError, match="damaged"):
        b"".join(contents(BlobReader(vault.files, vault.index()), node))
    assert not list(out.iterdir())


def test_what_cannot_be_brought_back_is_told(
    vault: OpenVault, reader: BlobReader, tree: str, out: Path, tmp_path: Path
) -> None:
    """A socket, a folder that is not there, a full disk."""
    with pytest.raises(Unsupported, match="s is a socket"):
        restore(vault, Node(b"s", "socket", 0, uid=0, gid=0, mtime=0, ctime=0), out, Tally())
    with pytest.raises(ConfigError, match="nowhere"):
        restore(vault, find(reader, tree, "text"), tmp_path / "nowhere", Tally())
    if os.geteuid() != 0:
        pytest.skip("NOT RUN: mounting a small file system needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", out], check=True)
    try:
        with pytest.raises(StoreFull, match="out/random"):
            restore(vault, find(reader, tree, "sub/random"), out, Tally())
        assert not list(out.iterdir())
    finally:
        subprocess.run(["umount", out], check=True)


def test_a_hostile_copy_reaches_nothing_outside(vault: OpenVault, out: Path, tmp_path: Path) -> None:
    """Names with slashes or dots are no names: the tree is refused before anything is made."""
    from vault.blobs import BlobKind
    from vault.writing import BlobWriter

    for name in (b"..", b"../escape", b"/etc/x", b""):
        node = Node(name, "file", 0o600, uid=0, gid=0, mtime=0, ctime=0)
        writer = BlobWriter(vault.files, vault.index())
        tree = writer.save(BlobKind.TREE, encode_tree([encode_node(node)])).hex()
        writer.finish()
        reader = BlobReader(vault.files, vault.index())
        with pytest.raises((IntegrityError, ConfigError)):
            find(reader, tree, os.fsdecode(name) or "x")
        with pytest.raises(IntegrityError):
            restore(vault, find(reader, tree, ""), out, Tally())
    assert not list(out.iterdir())


def test_without_root_one_file_comes_back_as_the_callers(place: Path, tree: str) -> None:
    """Another's file cannot be given away: it is the caller's, without set-id bits, and the result says so."""
    if os.geteuid() != 0:
        pytest.skip("NOT RUN: needs root to become somebody else")
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from tests.vault.given import reopened\n"
        "from vault.finding import find, restore\n"
        "from vault.reading import BlobReader\n"
        "from vault.tally import Tally\n"
        "vault = reopened(Path(sys.argv[1]))\n"
        "node = find(BlobReader(vault.files, vault.index()), sys.argv[2], 'modes')\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"  # not before: the interpreter itself may be root's
        "print(restore(vault, node, Path(sys.argv[1]).parent, Tally()).keeps_owner)\n"
    )
    with tempfile.TemporaryDirectory() as folder:  # theirs: others may not enter a test's own
        shutil.copytree(place, Path(folder) / "vault")
        for path in (Path(folder), *Path(folder).rglob("*")):
            os.chown(path, 65534, 65534)
        done = subprocess.run(
            [sys.executable, "-c", code, Path(folder) / "vault", tree],
            capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "False"
        found = (Path(folder) / "modes").stat()
        assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (65534, 0o751)
