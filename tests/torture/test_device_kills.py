"""Torture of raw block volumes: movers killed in the middle of an archive or an extract, again and again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from refloat.registry import open_object_store
from refloat.transfer import MoverResult, MoverSpec, parse_result
from tests.tools.restic import find, restic
from tests.vault.devices import MIB, attached, digest, image
from tests.vault.given import PASSWORD
from vault.repository import init

ROOT = Path(__file__).parents[2]
SHAPE = "rt0r-rr0rtr" * 8
TARGET = "t" * len(SHAPE)


class Movers:
    """Mover processes on one vault."""

    def __init__(self, place: Path) -> None:
        self._place, self._result = place, place.with_name("result")
        init(open_object_store(f"file://{place}", {}), PASSWORD).close()

    def start(self, path: Path, **more: object) -> subprocess.Popen[bytes]:
        """Begin one in mode device."""
        whole = {"run": "run", "volume": "shop/raw", "vault_url": f"file://{self._place}", "mode": "device", **more}
        self._result.unlink(missing_ok=True)
        spec = MoverSpec.model_validate(whole).model_dump_json()
        words = [sys.executable, "-m", "vault", "--spec", spec, "--path", path, "--result", self._result]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "REFLOAT_PASSWORD": PASSWORD}
        return subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)

    def whole(self, path: Path, **more: object) -> MoverResult:
        """Run one to its end, which must be good."""
        self.start(path, **more).wait(timeout=120)
        result = parse_result(self._result.read_text())
        assert result is not None
        result.raise_if_failed()
        return result

    def killed(self, path: Path, moment: Callable[[], bool], **more: object) -> bool:
        """Run one until the moment has come, kill it; whether that came before its end."""
        mover = self.start(path, **more)
        while mover.poll() is None and not moment():
            pass
        mover.kill()
        return mover.wait(timeout=30) == -signal.SIGKILL

    def packs(self) -> int:
        """How many are stored."""
        return sum(1 for _ in self._place.glob("data/*/*"))


def test_killed_archives(tmp_path: Path, rounds: Callable[[int, int], int], seed: int) -> None:
    """Whatever was stored before the kill is valid, and the next run makes the copy an unharmed one makes."""
    movers, rng, killed = Movers(tmp_path / "vault"), random.Random(seed), 0
    for number in range(rounds(2, 40)):
        source = image(tmp_path / "source", SHAPE, seed=seed + number)
        with attached(source) as device:
            wanted = movers.packs() + rng.randrange(3)
            killed += movers.killed(device, lambda at=wanted: movers.packs() > at, action="archive")  # type: ignore[misc]
            done = movers.whole(device, action="archive")
        assert done.data_bytes == len(SHAPE) * MIB
        movers.whole(tmp_path / "out", action="extract", tree=done.tree)
        assert digest(tmp_path / "out") == digest(source), f"round {number}"
    print(f"killed {killed} archives")
    assert killed >= rounds(1, 30), "too few kills came before the end"
    if find() is not None:
        said = restic(str(tmp_path / "vault"), PASSWORD, "check", "--read-data", "--no-lock")
        assert "no errors were found" in said


def test_killed_extracts(tmp_path: Path, rounds: Callable[[int, int], int], seed: int) -> None:
    """Onto a device full of other bytes, killed once a chunk chosen by chance has arrived; the next run ends it."""
    movers, rng, killed = Movers(tmp_path / "vault"), random.Random(seed), 0
    source = image(tmp_path / "source", SHAPE, seed=seed)
    tree = movers.whole(source, action="archive").tree
    chosen = [number for number, kind in enumerate(SHAPE) if kind == "r"]
    for number in range(rounds(3, 60)):
        with attached(image(tmp_path / "target", TARGET, seed=seed + 1)) as device:
            offset = rng.choice(chosen) * MIB
            wanted = _at(source, offset)
            moment = lambda at=offset, body=wanted, on=device: _at(on, at) == body  # noqa: E731
            killed += movers.killed(device, moment, action="extract", tree=tree)
            movers.whole(device, action="extract", tree=tree)
            assert digest(device) == digest(source), f"round {number}"
    print(f"killed {killed} extracts")
    assert killed >= rounds(1, 40), "too few kills came before the end"


def _at(path: Path, offset: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), MIB, offset)
