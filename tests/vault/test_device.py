"""Raw block volumes: every byte there and back, zeros for nothing, and no device that fails or changes in silence."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from refloat.errors import (
    ConfigError,
    IntegrityError,
    Interrupted,
    InvalidDocument,
    StoreFull,
    TransferFailed,
    Unavailable,
)
from refloat.ports.object_store import ObjectStore
from refloat.recovery_point import VolumeCopy
from refloat.registry import open_object_store
from refloat.transfer import MoverResult, MoverSpec
from tests.tools.restic import find, restic
from tests.vault.devices import MIB, attached, digest, image
from tests.vault.faulty import FaultyStore
from tests.vault.given import AT, MANIFEST, PASSWORD, point_over, reopened
from vault.archive import archive
from vault.catalogue import seal
from vault.chunking import CHUNK_BYTES
from vault.device import NAME, archive_device
from vault.device_extract import extract_device
from vault.mover import run
from vault.reading import BlobReader
from vault.repository import OpenVault, open_vault
from vault.tally import Tally
from vault.verify import verify


class Meddling(Tally):
    """Does something once so many bytes are dealt with: to the device, or, with None, wishes that the work ends."""

    def __init__(self, at: int, what: Callable[[], object] | None) -> None:
        super().__init__()
        self._at, self._what, self.faults = at, what or self.stop.set, 0

    def add(self, *, data_bytes: int = 0, files: int = 0) -> None:
        super().add(data_bytes=data_bytes, files=files)
        if not self.faults and self.bytes_done >= self._at:
            self.faults += 1
            self._what()


class DyingReads(FaultyStore):
    """Answers so many reads of packs, and none after."""

    def __init__(self, inner: ObjectStore, *, reads: int) -> None:
        super().__init__(inner)
        self._reads = reads

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        body = super().get(key, start=start, length=length)
        if key.startswith("data/") and (length or 0) > MIB:
            with self._guard:
                self._reads -= 1
                if self._reads < 0:
                    self.faults += 1
                    raise Unavailable(f"injected: no more reads ({key})")
        return body


def test_a_device_there_and_back(vault: OpenVault, place: Path, tmp_path: Path) -> None:
    """A real device whose size is no multiple of a chunk, onto another full of other bytes; stock restic agrees."""
    source = image(tmp_path / "source", "rt0-trt---0r", tail=3 * 512)
    target = image(tmp_path / "target", "rrrrrrrrrrrr", seed=9, tail=3 * 512)
    with attached(source) as device:
        done = archive_device(vault, device, Tally())
    assert (done.size_bytes, done.chunk_bytes, done.read_bytes) == (12 * MIB + 1536, CHUNK_BYTES, 12 * MIB + 1536)
    (node,) = BlobReader(vault.files, vault.index()).tree(bytes.fromhex(done.tree))
    assert (node.name, node.size, len(node.blobs)) == (NAME, done.size_bytes, 49)
    with attached(target) as device:
        back = extract_device(reopened(place), done.tree, device, Tally())
        assert digest(device) == digest(source)
    assert (back.written_bytes, back.zero_bytes) == (6 * MIB + 1536, 6 * MIB)
    assert (back.kept_bytes, back.target_bytes) == (0, back.size_bytes)
    _sealed_and_judged(vault, place, done.tree, done.size_bytes, source)


def _sealed_and_judged(vault: OpenVault, place: Path, tree: str, size: int, source: Path) -> None:
    copy = VolumeCopy(
        namespace="shop", claim="raw", tree=tree, path="volumes/shop/raw", driver="test", requested_bytes=size, files=1,
        data_bytes=size, added_bytes=0, cut_at=AT, mode="device", chunk_bytes=CHUNK_BYTES,
    )  # fmt: skip
    point = point_over().model_copy(update={"volumes": (copy,)})
    sealed = seal(vault, point, {MANIFEST: b"{}"})
    verify(vault, sealed, level="full")
    if find() is not None:
        assert "no errors were found" in restic(str(place), PASSWORD, "check", "--read-data", "--no-lock")
        out = source.with_name("restored")
        restic(str(place), PASSWORD, "restore", "latest", "--target", str(out), "--no-lock")
        assert digest(out / "volumes" / "shop" / "raw" / "device") == digest(source)


def test_into_a_new_file_holes_stay_holes(vault: OpenVault, tmp_path: Path) -> None:
    """A file stands for a device: its holes are neither read nor written, chunks of zeros become holes."""
    source = image(tmp_path / "source", "r-----0000-t----")
    done = archive_device(vault, source, Tally())
    assert done.read_bytes == 6 * MIB
    out = tmp_path / "out"
    tally = Tally()
    extract_device(vault, done.tree, out, tally)
    assert digest(out) == digest(source)
    assert out.stat().st_blocks * 512 == 2 * MIB
    assert tally.bytes_done == 16 * MIB
    again = extract_device(vault, done.tree, out, Tally())
    assert (again.written_bytes, again.kept_bytes) == (0, 2 * MIB)
    assert digest(out) == digest(source)


def test_zeros_are_made_where_other_bytes_were(vault: OpenVault, tmp_path: Path) -> None:
    """A target is not known to be blank unless the caller says so; a file system without holes gets zeros written."""
    source, target = image(tmp_path / "source", "r00t"), tmp_path / "target"
    done = archive_device(vault, source, Tally())
    image(target, "rrrr", seed=2)
    extract_device(vault, done.tree, target, Tally(), is_blank=True)
    assert digest(target) != digest(source), "what is_blank promises was not so, and is believed"
    image(target, "rrrr", seed=2)
    extract_device(vault, done.tree, target, Tally())
    assert digest(target) == digest(source)
    assert target.stat().st_blocks * 512 == 2 * MIB


def test_where_no_hole_can_be_made_zeros_are_written(vault: OpenVault, tmp_path: Path) -> None:
    """ramfs has no fallocate."""
    source, folder = image(tmp_path / "source", "r00t0"), tmp_path / "ramfs"
    folder.mkdir()
    done = archive_device(vault, source, Tally())
    with Mounted(folder, "ramfs"):
        target = image(folder / "target", "rrrrr", seed=2)
        back = extract_device(vault, done.tree, target, Tally())
        assert (digest(target), back.zero_bytes) == (digest(source), 3 * MIB)


class Mounted:
    """A file system of some kind on a folder."""

    def __init__(self, folder: Path, kind: str, *options: str) -> None:
        self._words = ["mount", "-t", kind, *options, kind, str(folder)]
        self._folder = folder

    def __enter__(self) -> None:
        if os.geteuid() != 0 or shutil.which("mount") is None:
            pytest.skip("NOT RUN: mounting needs root")
        done = subprocess.run(self._words, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"NOT RUN: {done.stderr.strip()}")

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", self._folder], check=True)


def test_the_next_copy_stores_what_changed(vault: OpenVault, tmp_path: Path) -> None:
    """Without a list everything is read and little is stored; a device that grew keeps its parent's chunks."""
    source = image(tmp_path / "source", "rrrrrrrr")
    first = archive_device(vault, source, Tally(), chunk_size=4 * MIB)
    same = archive_device(vault, source, Tally(), parent=first.tree)
    assert (same.tree, same.chunk_bytes, same.added_bytes, same.read_bytes) == (first.tree, 4 * MIB, 0, 8 * MIB)
    with source.open("r+b") as file:
        file.seek(5 * MIB)
        file.write(b"changed")
        file.truncate(9 * MIB)
    grown = archive_device(vault, source, Tally(), parent=first.tree)
    assert (grown.size_bytes, grown.chunk_bytes) == (9 * MIB, 4 * MIB)
    assert 4 * MIB < grown.added_bytes < 4.1 * MIB
    out = tmp_path / "out"
    extract_device(vault, grown.tree, out, Tally())
    assert digest(out) == digest(source)


def test_a_device_that_fails_to_read_is_told(vault: OpenVault, tmp_path: Path) -> None:
    """EIO from the kernel: the loop device's file is cut off under it."""
    source = image(tmp_path / "source", "r" * 8)
    with attached(source) as device:
        os.truncate(source, 5 * MIB)
        with pytest.raises(TransferFailed, match=rf"{device} cannot be read at byte \d+: Input/output error"):
            archive_device(vault, device, Tally())


@pytest.mark.parametrize("meddle", ["shrinks", "grows", "is written"])
def test_a_device_that_changes_meanwhile_is_told(vault: OpenVault, tmp_path: Path, meddle: str) -> None:
    """It shrinks, grows, or is written to: no copy is made of two moments."""
    source = image(tmp_path / "source", "r" * 12)
    doing = {
        "shrinks": lambda: os.truncate(source, 10 * MIB),
        "grows": lambda: os.truncate(source, 13 * MIB),
        "is written": lambda: source.open("r+b", buffering=0).write(b"x"),
    }
    tally = Meddling(2 * MIB, doing[meddle])
    with pytest.raises(TransferFailed, match=r"source (changed while it was read|ends at byte)"):
        archive_device(vault, source, tally)
    assert tally.faults == 1


def test_what_is_no_device_is_refused(vault: OpenVault, tmp_path: Path) -> None:
    """By name, before anything is read or written."""
    (tmp_path / "empty").write_bytes(b"")
    for path in (tmp_path, tmp_path / "absent", Path("/dev/null"), tmp_path / "empty"):
        with pytest.raises(ConfigError, match=str(path)):
            archive_device(vault, path, Tally())
    source = image(tmp_path / "source", "r")
    for wrong in (4095, 32 * MIB, -4096):
        with pytest.raises(InvalidDocument, match=f"{wrong} bytes is no chunk size"):
            archive_device(vault, source, Tally(), chunk_size=wrong)
    tree = archive_device(vault, source, Tally()).tree
    for path in (tmp_path, Path("/dev/null"), tmp_path / "no" / "folder"):
        with pytest.raises(ConfigError, match=str(path)):
            extract_device(vault, tree, path, Tally())
    with pytest.raises(ConfigError, match="holds a folder"):
        extract_device(vault, archive(vault, tmp_path, Tally()).tree, tmp_path / "out", Tally())
    with pytest.raises(IntegrityError):
        extract_device(vault, "ab" * 32, tmp_path / "out", Tally())
    assert not (tmp_path / "out").exists()


def test_a_device_in_use_is_not_written(vault: OpenVault, tmp_path: Path) -> None:
    """As a mounted one is: somebody else has it for himself."""
    tree = archive_device(vault, image(tmp_path / "source", "r"), Tally()).tree
    with attached(image(tmp_path / "target", "t")) as device:
        before = digest(device)
        holder = os.open(device, os.O_RDONLY | os.O_EXCL)
        with pytest.raises(ConfigError, match=f"{device} is in use"):
            extract_device(vault, tree, device, Tally())
        os.close(holder)
        assert digest(device) == before


def test_a_target_of_another_size(vault: OpenVault, tmp_path: Path) -> None:
    """Smaller: refused, untouched. Larger: allowed and said, and what lies beyond stays."""
    source = image(tmp_path / "source", "rt0r")
    tree = archive_device(vault, source, Tally()).tree
    small, large = image(tmp_path / "small", "ttt", seed=3), image(tmp_path / "large", "tttttt", seed=4)
    before, tail = digest(small), large.read_bytes()[4 * MIB :]
    with attached(small) as device:
        with pytest.raises(StoreFull, match=r"3145728 bytes and the copy 4194304; nothing was written"):
            extract_device(vault, tree, device, Tally())
        assert digest(device) == before
    with attached(large) as device:
        assert extract_device(vault, tree, device, Tally()).target_bytes == 6 * MIB
        assert digest(device, 4 * MIB) == digest(source)
        assert device.read_bytes()[4 * MIB :] == tail


def test_a_full_file_system_is_told(vault: OpenVault, tmp_path: Path) -> None:
    """The file that stands for a device does not fit."""
    tree = archive_device(vault, image(tmp_path / "source", "rrrr"), Tally()).tree
    folder = tmp_path / "small"
    folder.mkdir()
    with Mounted(folder, "tmpfs", "-o", "size=2m"), pytest.raises(StoreFull, match="small/out cannot be written"):
        extract_device(vault, tree, folder / "out", Tally())


def test_a_broken_off_extract_goes_on(vault: OpenVault, place: Path, tmp_path: Path) -> None:
    """The store dies in the middle; the second try keeps what the first one wrote, and fetches only the rest."""
    source = image(tmp_path / "source", "r" * 40)
    tree = archive_device(vault, source, Tally()).tree
    with attached(image(tmp_path / "target", "0" * 40)) as device:
        tally = Tally()
        dying = DyingReads(open_object_store(f"file://{place}", {}), reads=2)
        with pytest.raises(Unavailable, match="injected"):
            extract_device(open_vault(dying, PASSWORD), tree, device, tally)
        assert dying.faults
        assert 0 < tally.bytes_done < 40 * MIB
        again = extract_device(reopened(place), tree, device, Tally())
        assert again.kept_bytes == tally.bytes_done
        assert again.written_bytes == 40 * MIB - tally.bytes_done
        assert digest(device) == digest(source)


def test_damage_is_never_written(vault: OpenVault, place: Path, tmp_path: Path) -> None:
    """One bit of a pack: IntegrityError, and every chunk of the target is the copy's or what it was before."""
    source = image(tmp_path / "source", "r" * 6)
    tree = archive_device(vault, source, Tally()).tree
    pack = max(place.glob("data/*/*"), key=lambda each: each.stat().st_size)
    body = bytearray(pack.read_bytes())
    body[len(body) // 2] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(body)
    target = image(tmp_path / "target", "t" * 6, seed=5)
    allowed = [_chunks(source), _chunks(target)]
    with pytest.raises(IntegrityError, match="damaged"):
        extract_device(reopened(place), tree, target, Tally())
    assert all(chunk in (a, b) for chunk, a, b in zip(_chunks(target), *allowed, strict=True))


def _chunks(path: Path) -> list[bytes]:
    body = path.read_bytes()
    return [sha256(body[start : start + CHUNK_BYTES]).digest() for start in range(0, len(body), CHUNK_BYTES)]


def test_a_wish_to_end_is_heard(vault: OpenVault, tmp_path: Path) -> None:
    """In the middle, both ways."""
    source = image(tmp_path / "source", "r" * 12)
    tally = Meddling(2 * MIB, None)
    with pytest.raises(Interrupted):
        archive_device(vault, source, tally)
    tree = archive_device(vault, source, Tally()).tree
    tally = Meddling(2 * MIB, None)
    with pytest.raises(Interrupted):
        extract_device(vault, tree, tmp_path / "out", tally)


def test_a_mover_does_what_its_spec_says_and_nothing_else(vault: OpenVault, place: Path, tmp_path: Path) -> None:
    """Mode, recorded chunk size, changed-block list from a file; a volume that is not as promised is an error."""

    def move(path: Path, action: str, **more: object) -> MoverResult:
        whole = {"action": action, "run": "run", "volume": "shop/raw", "vault_url": f"file://{place}", **more}
        return run(MoverSpec.model_validate(whole), path, {"REFLOAT_PASSWORD": PASSWORD}, Tally())

    source = image(tmp_path / "source", "rt0r")
    with attached(source) as device:
        first = move(device, "archive", mode="device")
        assert (first.chunk_bytes, first.data_bytes, first.files) == (CHUNK_BYTES, 4 * MIB, 1)
        listed = tmp_path / "list.json"
        listed.write_text(f'{{"since": "{first.tree}", "size_bytes": {4 * MIB}, "extents": [[0, 1]]}}')
        second = move(
            device, "archive", mode="device", parent=first.tree, chunk_bytes=first.chunk_bytes, changed=str(listed)
        )
        assert (second.tree, second.read_bytes) == (first.tree, CHUNK_BYTES)
        with pytest.raises(ConfigError, match=str(device)):
            move(device, "archive")
        with pytest.raises(InvalidDocument, match=r"list\.txt"):
            move(device, "archive", mode="device", parent=first.tree, changed=str(tmp_path / "list.txt"))
    with pytest.raises(ConfigError, match="neither a block device"):
        move(tmp_path, "archive", mode="device")
    with attached(image(tmp_path / "target", "rrrr", seed=7)) as device:
        move(device, "extract", mode="device", tree=first.tree)
        assert digest(device) == digest(source)
