"""Bar 17: stock restics of four generations read what we wrote, and we read what they wrote, identically.

The short form asks Debian's 0.14, which is the oldest and the least tolerant (the newest judges tests/vault); the whole
form also 0.16.4, 0.18.0 and the newest, with more data and every way of making a repository.
"""

from __future__ import annotations

import filecmp
import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from refloat.clock import Deadline, pause
from refloat.registry import open_object_store
from tests.tools.restic import OLDER, place_of, restic, version
from tests.vault.given import MANIFEST, MIB, PASSWORD, facts, protect, put_oddities, tree_of
from vault.adoption import adopted, held_by
from vault.catalogue import points
from vault.copying import copy, open_far_end
from vault.finding import find, restore
from vault.reading import BlobReader
from vault.repository import READABLE, OpenVault, init, open_vault
from vault.tally import Tally
from vault.verify import verify

pytestmark = pytest.mark.lane("restic")
HOUR = timedelta(hours=1)
IS_WHOLE = os.environ.get("REFLOAT_TORTURE") == "1"
JUDGES = ("debian", "newest", *OLDER) if IS_WHOLE else ("debian",)
KINDS = ("relative", "absolute", "version 1") if IS_WHOLE else ("absolute",)
WAIT = timedelta(seconds=30)


@dataclass(frozen=True)
class Judge:
    """One stock restic."""

    program: str
    version: tuple[int, ...]

    def __call__(self, place: Path, *words: str, cwd: Path | None = None) -> str:
        return restic(str(place), PASSWORD, *words, cwd=cwd, program=self.program)


@pytest.fixture(params=JUDGES)
def judge(request: pytest.FixtureRequest) -> Judge:
    """Each of them; one that is missing is reported as not run."""
    program = place_of(request.param)
    if not program.exists():
        pytest.skip(f"NOT RUN: stock restic {request.param} is missing (python -m tests.tools.restic --all)")
    return Judge(str(program), version(str(program)))


@pytest.fixture
def source(judge: Judge, tmp_path: Path, seed: int, rounds: Callable[[int, int], int]) -> Path:
    """A folder full of oddities, as far as that restic can hold them, and data of several packs."""
    folder = tmp_path / "source"
    folder.mkdir()
    put_oddities(folder, for_restic=judge.version)
    rng = random.Random(seed)
    (folder / "database").write_bytes(rng.randbytes(rounds(5, 70) * MIB + 5) + b"page " * MIB)
    for number in range(rounds(50, 2000)):
        (folder / "sub" / f"small {number}").write_bytes(rng.randbytes(rng.randrange(3000)))
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where our vault is."""
    return tmp_path / "vault"


@pytest.fixture
def vault(place: Path) -> Iterator[OpenVault]:
    """An empty vault of ours."""
    made = init(open_object_store(f"file://{place}", {}), PASSWORD)
    yield made
    made.close()


def test_stock_restic_reads_what_we_wrote(
    judge: Judge, vault: OpenVault, place: Path, source: Path, tmp_path: Path
) -> None:
    """Check of all data, restore, ls, find, dump, forget, rewrite and copy: nothing wrong, everything identical."""
    first = protect(vault, source)
    (source / "text").write_text("select 2;\n" * 5000)
    second = protect(vault, source, parent=tree_of(first), after=HOUR)
    said = judge(place, "check", "--read-data")
    assert "no errors were found" in said
    assert "unreferenced" not in said
    compare(judge, place, second.snapshot_id, source, tmp_path / "out")
    listed = judge(place, "ls", "latest")
    assert f"/{MANIFEST}" in listed.splitlines()
    assert "/volumes/shop/data/sub/deeper/harder" in listed.splitlines()
    assert judge(place, "dump", "latest", f"/{MANIFEST}") == '{"kind": "ConfigMap"}'
    assert judge(place, "dump", "latest", "/volumes/shop/data/text") == "select 2;\n" * 5000
    assert "/volumes/shop/data/sub/random" in judge(place, "find", "--snapshot", "latest", "random")
    kept = json.loads(judge(place, "forget", "--dry-run", "--json", "--keep-last", "1", "--group-by", "host,paths"))
    assert [len(each["remove"]) for each in kept] == [1], "our points of one application are one group"
    if judge.version >= (0, 15):
        said = judge(place, "rewrite", "--dry-run", "--exclude", "no such name anywhere")
        assert "no snapshots" in said or "modified 0 snapshots" in said
    assert {each.snapshot_id for each in points(vault)} == {first.snapshot_id, second.snapshot_id}


def test_stock_restic_copies_what_we_wrote(
    judge: Judge, vault: OpenVault, place: Path, source: Path, tmp_path: Path
) -> None:
    """Into a repository of its own, whole and identical; our points are found there, and verify."""
    point = protect(vault, source)
    theirs = tmp_path / "theirs"
    (tmp_path / "password").write_text(PASSWORD)
    judge(theirs, "init")
    judge(theirs, "copy", "--from-repo", str(place), "--from-password-file", str(tmp_path / "password"))
    assert "no errors were found" in judge(theirs, "check", "--read-data")
    compare(judge, theirs, "latest", source, tmp_path / "out")
    again = open_vault(open_object_store(f"file://{theirs}", {}), PASSWORD)
    (found,) = points(again)
    assert found.point == point.point
    verify(again, found, level="full")


def test_stock_restic_reads_our_copies(
    judge: Judge, vault: OpenVault, place: Path, source: Path, tmp_path: Path
) -> None:
    """A mirror, and a copy under another key: checked in full and restored identically."""
    point = protect(vault, source)
    for name, new_key in (("mirror", False), ("another key", True)):
        store = open_object_store(f"file://{tmp_path / name}", {})
        copy(vault, open_far_end(vault, store, lambda: (PASSWORD, None), with_new_key=new_key))
        assert "no errors were found" in judge(tmp_path / name, "check", "--read-data")
        compare(judge, tmp_path / name, "latest", source, tmp_path / f"out of {name}")
    assert points(vault) == [point]


def compare(judge: Judge, place: Path, snapshot: str, source: Path, out: Path) -> None:
    """What stock restic restores equals the source."""
    judge(place, "restore", snapshot, "--target", str(out))
    assert facts(out / "volumes" / "shop" / "data") == facts(source)
    assert (out / MANIFEST).read_bytes() == b'{"kind": "ConfigMap"}'
    shutil.rmtree(out)


def test_stock_restic_mounts_what_we_wrote(
    judge: Judge, vault: OpenVault, place: Path, source: Path, tmp_path: Path
) -> None:
    """Every file of the volume reads the same through the file system restic makes of it."""
    if not Path("/dev/fuse").exists() or shutil.which("fusermount") is None or os.geteuid() != 0:
        pytest.skip("NOT RUN: no FUSE here")
    protect(vault, source)
    at = tmp_path / "mount"
    at.mkdir()
    environment = {**os.environ, "RESTIC_REPOSITORY": str(place), "RESTIC_PASSWORD": PASSWORD}
    words = [judge.program, "--no-cache", "mount", str(at)]
    log = tmp_path / "log"
    with log.open("wb") as file, subprocess.Popen(words, env=environment, stdout=file, stderr=file) as server:
        try:
            volume = at / "snapshots" / "latest" / "volumes" / "shop" / "data"
            limit = Deadline.after(WAIT)
            while not volume.is_dir():
                if server.poll() is not None:
                    pytest.skip(f"NOT RUN: restic cannot mount here: {log.read_text()}")
                assert not limit.is_over, "nothing is mounted"
                pause(timedelta(milliseconds=50))
            names = [path for path in source.rglob("*") if path.is_file() and not path.is_symlink()]
            assert len(names) > 50
            for path in names:
                assert filecmp.cmp(path, volume / path.relative_to(source), shallow=False), path
        finally:
            subprocess.run(["fusermount", "-u", "-z", str(at)], check=False, capture_output=True)
            server.terminate()


@pytest.mark.parametrize("kind", KINDS)
def test_we_read_what_stock_restic_wrote(judge: Judge, kind: str, source: Path, tmp_path: Path) -> None:
    """As VolSync (the folder itself) and K8up (an absolute path) make them: listed, looked at, restored identically."""
    theirs = tmp_path / "theirs"
    judge(theirs, "init", *(("--repository-version", "1") if kind == "version 1" else ()))
    path = str(source) if kind == "absolute" else "."
    small = ("--pack-size", "4")
    judge(theirs, *small, "backup", "--host", "pod-0", "--tag", "nightly", path, cwd=source)
    (source / "text").write_text("select 3;\n" * 5000)
    judge(theirs, *small, "backup", "--host", "pod-0", path, cwd=source)
    vault = open_vault(open_object_store(f"file://{theirs}", {}), PASSWORD, versions=READABLE)
    found = adopted(vault)
    listed = json.loads(judge(theirs, "snapshots", "--json"))
    assert [(each.name, each.hostname, list(each.paths), list(each.tags)) for each in found.records] == [
        (each["id"], "pod-0", each["paths"], each.get("tags") or []) for each in listed
    ]
    assert not found.damaged
    assert points(vault) == []
    record = found.choose("latest")
    node = find(BlobReader(vault.files, vault.index()), record.tree.hex(), str(source) if kind == "absolute" else "")
    held = held_by(vault, node)
    assert not held.damaged
    assert held.files == sum(path.is_file() and not path.is_symlink() for path in source.rglob("*"))
    out = tmp_path / "out"
    out.mkdir()
    restore(vault, node, out, Tally())
    assert facts(out) == facts(source)
    if kind == "absolute":  # the folder itself is in the tree, and its facts too
        assert out.stat().st_mtime_ns == source.stat().st_mtime_ns
        assert out.stat().st_mode == source.stat().st_mode
