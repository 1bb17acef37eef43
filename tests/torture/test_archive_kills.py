"""Bar 1: SIGKILL in a mover that archives, its workers with it, at any moment and at every call of the store: stock
restic finds nothing wrong after its own unlock, older points stay as they were, and the next run succeeds.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from refloat.clock import monotonic_seconds, pause
from refloat.recovery_point import CataloguedPoint
from refloat.registry import open_object_store
from refloat.transfer import MoverSpec, parse_result
from tests.tools.restic import find, restic
from tests.torture.killing import KillingStore, run_child
from tests.vault.given import MIB, PASSWORD, facts, protect, reopened, tree_of
from vault.catalogue import points
from vault.extract import extract
from vault.repository import init, open_vault
from vault.tally import Tally
from vault.verify import verify

ROOT = Path(__file__).parents[2]


class Application:
    """A folder that lives, and a vault with one good point of it."""

    def __init__(self, root: Path, rng: random.Random) -> None:
        self.source, self.place, self._rng = root / "source", root / "vault", rng
        for number in range(300):
            path = self.source / f"{number % 7}" / f"file {number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(rng.randbytes(rng.randrange(20_000)))
        (self.source / "database").write_bytes(rng.randbytes(24 * MIB))
        vault = init(open_object_store(f"file://{self.place}", {}), PASSWORD)
        self.sealed = [(protect(vault, self.source), facts(self.source))]
        vault.close()

    def live(self) -> None:
        """Change some of everything."""
        for _ in range(20):
            path = self.source / f"{self._rng.randrange(7)}" / f"new {self._rng.randrange(300)}"
            path.write_bytes(self._rng.randbytes(self._rng.randrange(20_000)))
        with (self.source / "database").open("r+b") as file:
            for _ in range(6):
                file.seek(self._rng.randrange(23 * MIB))
                file.write(self._rng.randbytes(MIB))

    def mover(self) -> subprocess.Popen[bytes]:
        """A real mover process with its workers, in a process group of its own."""
        spec = MoverSpec(
            action="archive", run="torture", volume="v", vault_url=f"file://{self.place}", parent=tree_of(self.newest)
        )
        self.result.unlink(missing_ok=True)
        words = [sys.executable, "-m", "vault", "--spec", spec.model_dump_json(), "--path", str(self.source)]
        environment = {**os.environ, "REFLOAT_PASSWORD": PASSWORD, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            [*words, "--result", str(self.result)], env=environment, stdout=subprocess.DEVNULL, start_new_session=True
        )

    @property
    def result(self) -> Path:
        """Where the mover leaves its result."""
        return self.place.parent / "result"

    @property
    def newest(self) -> CataloguedPoint:
        """The last point that was sealed."""
        return self.sealed[-1][0]

    def judge(self) -> None:
        """Stock restic's word, and no point more or less than were sealed."""
        if find() is not None:
            restic(str(self.place), PASSWORD, "unlock")
            assert "no errors were found" in restic(str(self.place), PASSWORD, "check", "--read-data")
        vault = reopened(self.place)
        assert points(vault) == [point for point, _ in self.sealed]
        vault.close()

    def complete(self) -> None:
        """The next run, undisturbed, with a point of its own."""
        mover = self.mover()
        assert mover.wait(120) == 0
        result = parse_result(self.result.read_text())
        assert result is not None
        vault = reopened(self.place)
        sealed = protect(vault, self.source, parent=result.tree, after=timedelta(hours=len(self.sealed)))
        assert tree_of(sealed) == result.tree
        self.sealed.append((sealed, facts(self.source)))
        vault.close()

    def restore_all(self, out: Path) -> None:
        """Every point reads back, byte for byte."""
        vault = reopened(self.place)
        for point, expected in self.sealed:
            verify(vault, point, level="full")
            out.mkdir()
            extract(vault, tree_of(point), out, Tally())
            assert facts(out) == expected
            shutil.rmtree(out)
        vault.close()


@pytest.mark.timeout(7200)
def test_movers_killed_at_any_moment(tmp_path: Path, rounds: Callable[[int, int], int], seed: int) -> None:
    """With its whole process group, so that no worker outlives it."""
    rng = random.Random(seed)
    application = Application(tmp_path, rng)
    begun = monotonic_seconds()
    application.complete()
    whole = monotonic_seconds() - begun
    killed = 0
    for number in range(rounds(4, 200)):
        application.live()
        mover = application.mover()
        pause(timedelta(seconds=rng.uniform(0.1, whole)))
        os.killpg(mover.pid, signal.SIGKILL)
        killed += mover.wait() == -signal.SIGKILL
        application.judge()
        if number % 10 == 0:
            application.complete()
    application.complete()
    application.restore_all(tmp_path / "out")
    assert killed, "no mover was killed while it worked"
    print(f"{killed} movers killed, {len(application.sealed)} points byte-exact")


def _archive_and_seal(place: Path, source: Path, parent: str, dies_at: int, *, is_after: bool) -> None:
    store = KillingStore(open_object_store(f"file://{place}", {}), dies_at=dies_at, is_after=is_after)
    vault = open_vault(store, PASSWORD)
    with vault.lock("torture"):
        protect(vault, source, parent=parent, after=timedelta(hours=1))


@pytest.mark.timeout(7200)
def test_a_run_killed_at_every_call_of_the_store(tmp_path: Path, rounds: Callable[[int, int], int], seed: int) -> None:
    """Before the call, or after it and before its answer: from the lock to the seal."""
    rng = random.Random(seed)
    application = Application(tmp_path, rng)
    application.live()
    parent, killed, sealed = tree_of(application.newest), 0, 0
    every = rounds(6, 1)
    for call in range(1, 10_000, every):
        copy = Path(shutil.copytree(application.place, tmp_path / "copy"))
        work = partial(_archive_and_seal, copy, application.source, parent, call, is_after=rng.random() < 0.5)
        was_killed = run_child(work)
        if find() is not None:
            restic(str(copy), PASSWORD, "unlock")
            assert "no errors were found" in restic(str(copy), PASSWORD, "check")
        vault = reopened(copy)
        found = points(vault)
        assert found[0] == application.newest
        for point in found:
            verify(vault, point, level="full")
        vault.close()
        shutil.rmtree(copy)
        killed += was_killed
        sealed += len(found) == 2
        if not was_killed:
            break
    assert killed
    assert sealed, "no run got through"
    print(f"killed at {killed} calls")
