"""What tests of the vault begin with: folders full of oddities, points over them, and how folders are compared."""

# Names that are no UTF-8 are bytes, which pathlib does not take.
# ruff: noqa: PTH101, PTH115, PTH118, PTH211

from __future__ import annotations

import os
import random
import stat
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from refloat.recovery_point import CataloguedPoint, ObjectCopy, ObjectRef, RecoveryPoint, VolumeCopy, new_id
from refloat.registry import open_object_store
from refloat.values import Consistency
from vault.archive import Archived, archive
from vault.catalogue import seal
from vault.repository import OpenVault, open_vault
from vault.tally import Tally

PASSWORD = "correct horse"
MANIFEST = "objects/shop/ConfigMap/settings.json"
MIB = 1 << 20
AT = datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=UTC)


def reopened(place: Path, password: str = PASSWORD) -> OpenVault:
    """The vault in a folder, as another process would see it."""
    return open_vault(open_object_store(f"file://{place}", {}), password)


def put_oddities(folder: Path, *, for_restic: tuple[int, ...] = (1,)) -> None:
    """Everything a volume may hold, small: types, modes, owners, times, links, attributes, holes, names.

    What an old restic cannot hold is left out: link targets that are no UTF-8 (0.16), attributes of links (0.17).
    """
    rng = random.Random(5)
    (folder / "sub" / "deeper").mkdir(parents=True)
    (folder / "empty folder").mkdir()
    (folder / "empty").write_bytes(b"")
    (folder / "text").write_text("select 1;\n" * 5000)
    (folder / "sub" / "random").write_bytes(rng.randbytes(3 * MIB + 17))
    (folder / "sub" / "zeros").write_bytes(bytes(MIB))
    with (folder / "sub" / "sparse").open("wb") as file:
        file.seek(5 * MIB)
        file.write(rng.randbytes(MIB))
        file.truncate(12 * MIB)
    for name in (
        b"\xff\xfe no utf-8",
        b'quote " and \\ and <&>',
        b"line\nbreak\ttab",
        "ünï \u2028 \U0001f600 \xad".encode(),
    ):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(name)
    os.symlink("text", folder / "link")
    os.symlink("/nowhere/at/all", folder / "dangling")
    if for_restic >= (0, 17):
        os.symlink(b"bytes \xff <&>", os.fsencode(folder) + b"/odd link")
    os.link(folder / "text", folder / "sub" / "hard")
    os.link(folder / "text", folder / "sub" / "deeper" / "harder")
    os.mkfifo(folder / "fifo", 0o640)
    os.setxattr(folder / "text", "user.note", b"\x00\xff")
    os.setxattr(folder / "sub", "user.folder", b"yes")
    (folder / "modes").write_bytes(b"s")
    if os.geteuid() == 0:
        os.mknod(folder / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(folder / "block", stat.S_IFBLK | 0o600, os.makedev(7, 200))
        os.chown(folder / "modes", 999, 888)
        os.chown(folder / "link", 77, 78, follow_symlinks=False)
        os.setxattr(folder / "modes", "trusted.secret", b"t")
        if for_restic >= (0, 17):
            os.setxattr(folder / "dangling", "trusted.ofalink", b"x", follow_symlinks=False)
    os.chmod(folder / "modes", 0o6751)
    os.chmod(folder / "sub" / "deeper", 0o1500)
    os.utime(folder / "modes", ns=(1, 981173106_987654321))
    os.utime(folder / "link", ns=(1, 86400_000000000), follow_symlinks=False)
    os.utime(folder / "empty folder", ns=(1, -5_000000000))


def facts(folder: Path) -> dict[bytes, tuple[object, ...]]:
    """All that two equal folders have in common, by path: type, mode, owner, times, content, attributes, links."""
    found: dict[bytes, tuple[object, ...]] = {}
    names_of: dict[tuple[int, int], list[bytes]] = {}
    top = os.fsencode(folder)
    for here, folders, files in os.walk(top):
        for path in (os.path.join(here, name) for name in folders + files):
            each = os.lstat(path)
            body = b""
            if stat.S_ISREG(each.st_mode):
                body = sha256(Path(os.fsdecode(path)).read_bytes()).digest()
                names_of.setdefault((each.st_dev, each.st_ino), []).append(path.removeprefix(top))
            elif stat.S_ISLNK(each.st_mode):
                body = os.readlink(path)
            size = each.st_size if stat.S_ISREG(each.st_mode) else 0
            xattrs = sorted(
                (n, os.getxattr(path, n, follow_symlinks=False)) for n in os.listxattr(path, follow_symlinks=False)
            )
            found[path.removeprefix(top)] = (
                oct(each.st_mode), each.st_uid, each.st_gid, each.st_mtime_ns, size, each.st_rdev, body, tuple(xattrs),
            )  # fmt: skip
    found[b"hard links"] = tuple(sorted(tuple(sorted(names)) for names in names_of.values() if len(names) > 1))
    return found


def point_over(
    *copies: tuple[str, Archived], application: str = "shop", after: timedelta = timedelta(0)
) -> RecoveryPoint:
    """A descriptor over volume copies, by claim, and one manifest."""
    volumes = tuple(
        VolumeCopy(
            namespace="shop", claim=claim, tree=done.tree, top=done.top, path=f"volumes/shop/{claim}", driver="test",
            requested_bytes=1, files=done.files, data_bytes=done.data_bytes, added_bytes=done.added_bytes,
            cut_at=AT + after,
        )
        for claim, done in copies
    )  # fmt: skip
    settings = ObjectRef(kind="ConfigMap", namespace="shop", name="settings")
    return RecoveryPoint(
        id=new_id(), application=application, cluster="site-a", run="run", started_at=AT + after, cut_at=AT + after,
        sealed_at=AT + after, consistency=Consistency.CRASH, cut_method="volume-snapshots",
        objects=(ObjectCopy(ref=settings, api_version="v1", path=MANIFEST, reason="named"),), volumes=volumes,
        refloat_version="test",
    )  # fmt: skip


def protect(
    vault: OpenVault, folder: Path, *, parent: str | None = None, after: timedelta = timedelta(0)
) -> CataloguedPoint:
    """Archive a folder and seal a point over it, as a run does, but for the lock."""
    done = archive(vault, folder, Tally(), parent=parent)
    assert not done.unreadable
    return seal(vault, point_over(("data", done), after=after), {MANIFEST: b'{"kind": "ConfigMap"}'})


def tree_of(point: CataloguedPoint) -> str:
    """The tree of its one volume."""
    return point.point.volumes[0].tree
