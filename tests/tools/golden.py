"""Golden vaults: `python -m tests.tools.golden` makes those that are missing under tests/vault/golden.

One by each stock restic that is at hand and one by this refloat, over the same small folder, twice. They are kept for
ever: what one version wrote every later one must read. Beside each lies what it holds, by path.
"""

from __future__ import annotations

import base64
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from refloat import __version__
from refloat.recovery_point import CataloguedPoint
from refloat.registry import open_object_store
from tests.tools import restic
from tests.vault.given import PASSWORD, protect
from vault.repository import init

FOLDER = Path(__file__).parents[1] / "vault" / "golden"
RESTICS = ("/usr/bin/restic", str(restic.OURS))
AT = 1_700_000_000_123_456_789


def fill(folder: Path, *, again: bool) -> None:
    """Names, types, links, attributes and contents that a decoder may trip over. Nothing that needs root to extract."""
    rng = random.Random(14)
    (folder / "sub" / "deeper").mkdir(parents=True, exist_ok=True)
    (folder / "empty folder").mkdir(exist_ok=True)
    (folder / "empty").write_bytes(b"")
    (folder / "text").write_text("".join(f"row {number % 977:06d} of the table\n" for number in range(80_000)))
    (folder / "sub" / "random").write_bytes(rng.randbytes(20_000))
    (folder / "sub" / "zeros").write_bytes(bytes(1 << 20))
    names = (b"\xff\xfe no utf-8", b'quote " \\ <&>', b"line\nbreak\ttab\x7f", "ü \u2028 \U0001f600 \xad".encode())
    for name in names:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(name)
    if not again:
        (folder / "link").symlink_to("text <&> \u2029")
        os.link(folder / "sub" / "random", folder / "sub" / "deeper" / "hard")
        os.mkfifo(folder / "fifo", 0o640)
        os.setxattr(folder / "text", "user.note", b"\x00\xff<")
    else:
        (folder / "new in the second").write_bytes(rng.randbytes(3000))
        (folder / "empty").unlink()
    (folder / "text").chmod(0o6751)
    (folder / "sub" / "deeper").chmod(0o1500)
    for number, path in enumerate(sorted(folder.rglob("*"), reverse=True)):
        os.utime(path, ns=(AT, AT + number * 1_000_000_007), follow_symlinks=False)


def described(folder: Path) -> dict[str, Any]:
    """What is in a folder, by path (bytes that are no UTF-8 as surrogates in JSON escapes)."""
    found = {}
    for path in sorted(folder.rglob("*")):
        facts = path.lstat()
        is_file, is_link = path.is_file() and not path.is_symlink(), path.is_symlink()
        kind = "symlink" if is_link else "file" if is_file else "dir" if path.is_dir() else "fifo"
        body = path.read_bytes() if is_file else os.fsencode(path.readlink()) if is_link else b""
        names = [] if is_link else os.listxattr(path)
        found[str(path.relative_to(folder))] = {
            "type": kind,
            "mode": facts.st_mode & 0o7777,
            "mtime": facts.st_mtime_ns,
            "size": facts.st_size if is_file else 0,
            "links": facts.st_nlink if is_file else 0,
            "body": sha256(body).hexdigest(),
            "xattrs": {name: base64.b64encode(os.getxattr(path, name)).decode() for name in sorted(names)},
        }
    return found


def by_restic(program: str) -> Callable[[Path, Path], list[dict[str, Any]]]:
    """The second of the two snapshots is not compressed."""

    def run(place: Path, source: Path, *words: str) -> str:
        environment = {**os.environ, "RESTIC_REPOSITORY": str(place), "RESTIC_PASSWORD": PASSWORD}
        command = [program, "--no-cache", *words]
        return subprocess.run(command, env=environment, cwd=source, check=True, capture_output=True, text=True).stdout

    def make(place: Path, source: Path) -> list[dict[str, Any]]:
        run(place, source, "init")
        contents = []
        for again, compression in ((False, "auto"), (True, "off")):
            fill(source, again=again)
            run(place, source, "--compression", compression, "backup", "--host", "golden", ".")
            contents.append(described(source))
        listed = json.loads(run(place, source, "snapshots", "--json"))
        return [{"tree": each["tree"], "content": content} for each, content in zip(listed, contents, strict=True)]

    return make


def by_refloat(place: Path, source: Path) -> list[dict[str, Any]]:
    """Two recovery points, with what the catalogue says of them."""
    vault = init(open_object_store(f"file://{place}", {}), PASSWORD)
    made, point = list[dict[str, Any]](), None
    for again in (False, True):
        fill(source, again=again)
        parent = point.point.volumes[0].tree if point else None
        point = protect(vault, source, parent=parent, after=timedelta(hours=again))
        made.append(_known(point, source))
    vault.close()
    return made


def _known(point: CataloguedPoint, source: Path) -> dict[str, Any]:
    return {
        "tree": point.point.volumes[0].tree, "content": described(source), "point": point.model_dump(mode="json"),
    }  # fmt: skip


def main() -> None:
    """Make what is missing."""
    makers: dict[str, Callable[[Path, Path], list[dict[str, Any]]]] = {f"refloat-{__version__}": by_refloat}
    for program in RESTICS:
        if Path(program).exists():
            said = subprocess.run([program, "version"], capture_output=True, text=True, check=True).stdout
            makers[f"restic-{said.split()[1]}"] = by_restic(program)
    for name, make in makers.items():
        place = FOLDER / name
        if place.exists():
            continue
        with tempfile.TemporaryDirectory() as source:
            known = make(place, Path(source))
        (FOLDER / f"{name}.json").write_text(json.dumps(known, indent=1) + "\n")
        print(f"made {place}")


if __name__ == "__main__":
    sys.exit(main())
