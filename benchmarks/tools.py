"""refloat as it is measured: the mover as a process of its own, from a copy of the source, as its image holds it."""

from __future__ import annotations

import compileall
import os
import py_compile
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol

from benchmarks.places import Place
from benchmarks.spent import Failed, Spent, run
from refloat import __version__
from refloat.errors import RefloatError
from refloat.recovery_point import RecoveryPoint, VolumeCopy, new_id
from refloat.registry import open_object_store
from refloat.transfer import MoverResult, MoverSpec, parse_result
from refloat.values import Consistency
from vault.catalogue import seal
from vault.repository import init, open_vault

PASSWORD = "benchmark"
ROOT = Path(__file__).parents[1]
Mode = Literal["folder", "device"]
DEVICE = "device"
"""A restored device is a file of this name in the folder that was asked for."""


class Tool(Protocol):
    """One backup tool with one repository. Every method raises ``Failed`` when the tool did not do as asked."""

    name: str

    def version(self) -> str:
        """Its own word."""

    def prepare(self, place: Place) -> None:
        """Make an empty repository."""

    def backup(self, source: Path) -> Spent:
        """Store the folder or the device."""

    def restore(self, target: Path) -> Spent:
        """Bring the last backup back into an empty folder."""


class Refloat:
    """The mover, as its Job runs it."""

    name = "refloat"

    def __init__(self, app: Path, mode: Mode = "folder") -> None:
        self._app, self._mode = app, mode
        self._last: MoverResult | None = None

    def version(self) -> str:
        """Of the package."""
        return f"refloat {__version__}"

    def prepare(self, place: Place) -> None:
        """Make an empty vault."""
        self._place = place
        self._last = None
        place.home.mkdir(parents=True)
        bucket = place.bucket
        self._url = f"s3://{bucket.name}/vault" if bucket else f"file://{place.folder}"
        with _translated():
            init(open_object_store(self._url, place.environment), PASSWORD).close()

    def backup(self, source: Path) -> Spent:
        """Archive, with the last tree as parent."""
        last = self._last
        known: dict[str, object] = {"parent": last.tree, "chunk_bytes": last.chunk_bytes} if last else {}
        spent, self._last = self._move(source, "archive", **known)
        return spent

    def restore(self, target: Path) -> Spent:
        """Extract the last tree."""
        target.mkdir(parents=True)
        last = self._sealed_in()
        path = target / DEVICE if self._mode == "device" else target
        return self._move(path, "extract", tree=last.tree, top=last.top)[0]

    def seal(self) -> None:
        """Make a point of the last tree, so that stock restic follows it down to every blob."""
        last, now = self._sealed_in(), datetime.now(UTC)
        copy = VolumeCopy(
            namespace="bench", claim="data", tree=str(last.tree), path="volumes/bench/data", top=last.top,
            driver="bench", requested_bytes=1, mode=self._mode, chunk_bytes=last.chunk_bytes, files=last.files,
            data_bytes=last.data_bytes, added_bytes=last.added_bytes, cut_at=now,
        )  # fmt: skip
        point = RecoveryPoint(
            id=new_id(), application="bench", cluster="bench", run="bench", started_at=now, cut_at=now, sealed_at=now,
            consistency=Consistency.CRASH, cut_method="volume-snapshots", objects=(), volumes=(copy,),
            refloat_version=__version__,
        )  # fmt: skip
        with _translated():
            vault = open_vault(open_object_store(self._url, self._place.environment), PASSWORD)
            seal(vault, point, {})
            vault.close()

    def _sealed_in(self) -> MoverResult:
        if self._last is None:
            raise Failed("refloat: nothing was archived")
        return self._last

    def _move(self, path: Path, action: Literal["archive", "extract"], **more: object) -> tuple[Spent, MoverResult]:
        what = {"action": action, "run": "bench", "volume": "bench/data", "vault_url": self._url, "mode": self._mode}
        spec, home = MoverSpec.model_validate({**what, **more}), self._place.home
        (home / "spec.json").write_text(spec.model_dump_json())
        words: list[str | Path] = [sys.executable, "-m", "vault", "--spec", home / "spec.json", "--path", path]
        environment = {**self._place.environment, "REFLOAT_PASSWORD": PASSWORD}
        spent, _ = run([*words, "--result", home / "result"], environment, cwd=self._app)
        result = parse_result((home / "result").read_text())
        if result is None or result.error or result.unreadable_count:
            raise Failed(f"refloat: {action} of {path}: {(home / 'result').read_text()}")
        return spent, result


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except RefloatError as error:
        raise Failed(f"refloat: {error.code}: {error.message}") from error


def copy_app(app: Path) -> None:
    """What the mover's image holds of ours, compiled as there: whoever edits the source meanwhile changes no run."""
    for name in ("refloat", "vault", "providers"):
        shutil.copytree(ROOT / name, app / name, ignore=shutil.ignore_patterns("__pycache__"))
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(app, quiet=1, invalidation_mode=unchecked):
        sys.exit(f"bench: the source does not compile: {os.fspath(ROOT)}")
