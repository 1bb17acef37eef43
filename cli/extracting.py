"""What `refloat extract` does with what it found: where it goes, what would be lost there, and the work itself."""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refloat.clock import monotonic_seconds, pause
from refloat.errors import ConfigError, Interrupted
from refloat.progress import Event, emit
from refloat.transfer import Progress

if TYPE_CHECKING:
    from types import FrameType

    from vault.nodes import Node
    from vault.repository import OpenVault
    from vault.tally import Tally

STREAM = "-"
EVERY = timedelta(seconds=1)


class Way(Enum):
    """How it is written."""

    STREAM = "standard output"
    DEVICE = "device"
    FOLDER = "folder"
    NAME = "one name"


@dataclass(frozen=True)
class Wanted:
    """What is brought back: a node, what people call it, and the tree of a raw device when it is one."""

    name: str
    node: Node
    device_tree: str | None


@dataclass(frozen=True)
class Target:
    """Where it goes. ``loses``: what is overwritten or removed there, in words; None when nothing is."""

    way: Way
    path: Path
    loses: str | None


def written(text: str | Path) -> str:
    """A path of the command line for people."""
    from vault.finding import written as escaped

    return escaped(os.fsencode(text))


def target_of(to: str, wanted: Wanted) -> Target:
    """Look at the place, and touch nothing.

    Raises:
        ConfigError: What is there does not fit what is wanted.
    """
    if to == STREAM:
        return Target(Way.STREAM, Path(STREAM), None)
    path = Path(to)
    try:
        found = path.stat()
    except FileNotFoundError:
        found = None
    except OSError as error:
        raise ConfigError(f"--to {written(to)} cannot be looked at: {error.strerror}") from error
    is_folder = found is not None and stat.S_ISDIR(found.st_mode)
    if wanted.device_tree is not None and not is_folder:
        is_empty = found is None or (stat.S_ISREG(found.st_mode) and not found.st_size)
        return Target(Way.DEVICE, path, None if is_empty else f"all that is on {written(to)} is overwritten")
    if found is not None and not is_folder:
        raise ConfigError(
            f"--to {written(to)} is no folder", guidance="Give a folder, or - and redirect standard output."
        )
    if wanted.node.type == "dir":
        there = _names(path) if found else []
        return Target(Way.FOLDER, path, f"what is in {written(to)} and not in the copy is removed" if there else None)
    name = path / os.fsdecode(wanted.node.name)
    is_taken = found is not None and os.path.lexists(name)
    return Target(Way.NAME, path, f"{written(name)} is replaced" if is_taken else None)


def _names(folder: Path) -> list[str]:
    try:
        there = list(folder.iterdir())
        return [each.name for each in there if each.name != "lost+found" or each.is_symlink() or not each.is_dir()]
    except OSError as error:
        raise ConfigError(f"--to {written(folder)} cannot be listed: {error.strerror}") from error


def carry_out(vault: OpenVault, url: str, wanted: Wanted, target: Target) -> dict[str, Any]:
    """Bring it back; the facts of what was done, for people and scripts.

    Raises:
        Interrupted: Somebody pressed Ctrl-C; the same command goes on where it was.
        RefloatError: What ended it.
    """
    from vault.tally import Tally

    tally = Tally()
    with _ending_on_signals(tally), _telling(tally, wanted):
        try:
            return _WORK[target.way](vault, url, wanted, target, tally)
        except Interrupted as ended:
            raise Interrupted(
                f"interrupted; {wanted.name} is not whole in {written(target.path)}",
                guidance="Run the same command again: it goes on where it was.",
            ) from ended


def _stream(vault: OpenVault, url: str, wanted: Wanted, target: Target, tally: Tally) -> dict[str, Any]:  # noqa: ARG001
    """Unbuffered: what a reader who goes away did not take is not written again at the end of the process."""
    from vault.finding import contents
    from vault.reading import BlobReader

    with os.fdopen(os.dup(1), "wb", buffering=0) as out:
        pieces = contents(BlobReader(vault.files, vault.index()), wanted.node)
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                rest = rest[out.write(rest) or 0 :]
            tally.add(data_bytes=len(piece))
    return {"files": 1, "data_bytes": tally.bytes_done}


def _device(vault: OpenVault, url: str, wanted: Wanted, target: Target, tally: Tally) -> dict[str, Any]:  # noqa: ARG001
    from vault.device_extract import extract_device

    done = extract_device(vault, str(wanted.device_tree), target.path, tally)
    return {"files": 1, "data_bytes": done.size_bytes, **asdict(done)}


def _folder(vault: OpenVault, url: str, wanted: Wanted, target: Target, tally: Tally) -> dict[str, Any]:
    from blocks.handles import open_store
    from vault.finding import restore

    try:
        target.path.mkdir(parents=True, exist_ok=True)
        folder = target.path.resolve()
    except OSError as error:
        raise ConfigError(f"--to {written(target.path)} cannot be made: {error.strerror}") from error
    done = restore(
        vault, wanted.node, folder, tally, is_overwriting=target.loses is not None, reopen=partial(open_store, url)
    )
    return asdict(done)


_WORK = {Way.STREAM: _stream, Way.DEVICE: _device, Way.FOLDER: _folder, Way.NAME: _folder}


@contextmanager
def _ending_on_signals(tally: Tally) -> Iterator[None]:
    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (the signal module's shape)
        tally.stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _telling(tally: Tally, wanted: Wanted) -> Iterator[None]:
    """Events that the progress display hears, one a second and one at the end."""
    ended, begun = threading.Event(), monotonic_seconds()

    def say(*, is_last: bool) -> None:
        seconds = monotonic_seconds() - begun
        done = Progress(
            volume=wanted.name,
            bytes_done=tally.bytes_done,
            bytes_total=wanted.node.size or None,
            files_done=tally.files_done,
            bytes_per_second=round(tally.bytes_done / seconds, 1) if seconds > 0 else 0.0,
            is_last=is_last,
        )
        emit(Event("extract", "moved", progress=done))

    def keep_saying() -> None:
        while not pause(EVERY, until=ended):
            say(is_last=False)

    teller = threading.Thread(target=keep_saying, name="tell progress", daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()
        say(is_last=True)
