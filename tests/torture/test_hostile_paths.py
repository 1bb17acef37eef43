"""Bar 21: trees that would lead out of the target, over targets full of traps: nothing outside is ever written."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path

import orjson
import pytest

from refloat.errors import RefloatError
from refloat.registry import open_object_store
from tests.vault.given import PASSWORD, facts
from vault.blobs import BlobKind
from vault.extract import extract
from vault.repository import OpenVault, init
from vault.tally import Tally
from vault.writing import BlobWriter

BODIES = [b"evil", b"evil" * 20_000, b"evil" * (1 << 18)]
IDS = [sha256(body).hexdigest() for body in BODIES]
NAMES = [
    "a", "b", "sub", "precious", ".", "..", "../outside", "../../outside/precious", "/etc/refloat-was-here", "a/b",
    "sub/../..", "", "..\\x2foutside", "\\x2e\\x2e", "\\x2e\\x2e\\x2foutside", "a\\x00b", "\\u002e\\u002e", "outside",
    "\u2025", "..\u200b", "a\\\\b", "\\x2fetc", "lost+found", "proc", "\\xff..", "a" * 255, "a" * 256, "a" * 5000,
]  # fmt: skip
PLAUSIBLE = ["a", "b", "folder", "lost+found", "outside", "precious", "proc", "sub", "\\xff.."]
TYPES = ["file", "file", "file", "dir", "symlink", "fifo", "chardev", "socket", "irregular"]


class Attack:
    """One hostile vault tree, and a target that may hold links and pipes where the tree has files."""

    def __init__(self, rng: random.Random, root: Path, vault: OpenVault) -> None:
        self._rng, self._root = rng, root
        self._is_blunt = rng.random() < 0.4  # else it can be decoded, and lives by links, types and traps alone
        self._writer = BlobWriter(vault.files, vault.index())
        for body in BODIES:
            self._writer.save(BlobKind.DATA, body)
        self.tree = self._tree(rng.randrange(1, 4)).hex()
        self._writer.finish()

    def _tree(self, depth: int) -> bytes:
        if self._is_blunt:
            names = self._rng.sample(NAMES, self._rng.randrange(1, 6)) + self._rng.choices(["a", "b", "sub"], k=2)
        else:
            names = sorted(self._rng.sample(PLAUSIBLE, self._rng.randrange(2, 7)))
        nodes = [self._node(name, depth) for name in names]
        return self._writer.save(BlobKind.TREE, orjson.dumps({"nodes": nodes}) + b"\n")

    def _node(self, name: str, depth: int) -> dict[str, object]:
        kind = self._rng.choice(TYPES if self._is_blunt else TYPES[:-1]) if depth else "file"
        content = self._rng.choices(IDS, k=self._rng.choice([1, 1, 2])) if kind == "file" else None
        sizes = {blob_id: len(body) for blob_id, body in zip(IDS, BODIES, strict=True)}
        node: dict[str, object] = {
            "name": name, "type": kind, "mode": 0o777 | self._rng.choice([0, 1 << 23, 1 << 31]), "uid": 0, "gid": 0,
            "content": content, "size": sum(sizes[each] for each in content or ()),
            **dict.fromkeys(("mtime", "atime", "ctime"), "2020-01-01T00:00:00Z"),
        }  # fmt: skip
        if kind == "dir":
            node["subtree"] = self._tree(depth - 1).hex()
        if kind == "symlink" or self._rng.random() < 0.1:
            node["linktarget"] = self._rng.choice(["../outside", str(self._root / "outside"), "/", "..", "a", "sub"])
        if self._rng.random() < 0.3:
            node.update(links=2, inode=self._rng.randrange(1, 3), device_id=1)
        if self._rng.random() < 0.1:
            node["extended_attributes"] = [
                {"name": self._rng.choice(["user.x", "user.x", "../x", ""]), "value": "eA=="}
            ]
        return node

    def lay_traps(self, out: Path, outside: Path) -> int:
        """Links and pipes under the very names the tree will use."""
        laid = 0
        for folder in (out, out / "sub"):
            folder.mkdir(exist_ok=True)
            for name in self._rng.sample(["a", "b", "outside", "precious"], self._rng.randrange(3)):
                trap = self._rng.choice(["link to folder", "link to file", "hard link", "pipe"])
                if trap == "link to folder":
                    (folder / name).symlink_to(outside)
                elif trap == "link to file":
                    (folder / name).symlink_to(outside / "precious")
                elif trap == "hard link":
                    os.link(outside / "precious", folder / name)
                else:
                    os.mkfifo(folder / name)
                laid += 1
        if self._rng.random() < 0.2:
            shutil.rmtree(out / "sub")
            (out / "sub").symlink_to(outside)
        return laid


@pytest.mark.timeout(3600)
def test_nothing_outside_the_target_is_written(tmp_path: Path, rounds: Callable[[int, int], int], seed: int) -> None:
    """By this process, and by workers."""
    rng, place = random.Random(seed), tmp_path / "vault"
    vault = init(open_object_store(f"file://{place}", {}), PASSWORD)
    root = tmp_path / "jail"
    outside = root / "outside"
    outside.mkdir(parents=True)
    (outside / "precious").write_text("precious")
    (outside / "folder").mkdir()
    ended: Counter[str] = Counter()
    traps = 0
    for number in range(rounds(40, 600)):
        out = root / "out"
        out.mkdir()
        attack = Attack(rng, root, vault)
        traps += attack.lay_traps(out, outside)
        before = _content(outside)
        reopen = partial(open_object_store, f"file://{place}", {}) if number % 4 == 0 else None
        try:
            extract(vault, attack.tree, out, Tally(), reopen=reopen)
            ended["extracted"] += 1
        except RefloatError as error:
            ended[error.code] += 1
        assert _content(outside) == before
        assert sorted(path.name for path in root.iterdir()) == ["out", "outside"]
        assert not Path("/etc/refloat-was-here").exists()
        shutil.rmtree(out)
    assert ended["INTEGRITY"]
    assert ended["extracted"]
    assert traps
    print(f"{dict(ended)}, {traps} traps")


def _content(outside: Path) -> object:
    """Everything of it, but the number of names that traps add to the file."""
    file = outside / "precious"
    rest = {path: fact for path, fact in facts(outside).items() if path not in (b"/precious", b"hard links")}
    return rest, file.read_text(), file.stat().st_mode, file.stat().st_mtime_ns
