"""The mover: one `MoverSpec` carried out beside the data, progress on standard output, its result in a file."""

from __future__ import annotations

import re
import resource
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import FrameType

from pydantic import ValidationError

from refloat.clock import monotonic_seconds, pause
from refloat.errors import ConfigError, InvalidDocument, MissingKey, RefloatError
from refloat.ports.changed_blocks import ChangedList
from refloat.registry import open_object_store
from refloat.transfer import MoverResult, MoverSpec, Progress, result_of_failure
from vault.archive import archive
from vault.crew import QUIET
from vault.device import archive_device
from vault.device_extract import extract_device
from vault.extract import extract
from vault.files import Reopen
from vault.heap import keep_freed_memory
from vault.opening import Opening
from vault.repository import OpenVault
from vault.tally import Tally

EVERY = timedelta(seconds=1)
_TREE = re.compile(r"[0-9a-f]{64}")


def read_spec(text: str) -> MoverSpec:
    """The spec in a file, or in the text itself when it begins with a brace.

    Raises:
        ConfigError: There is no such file.
        InvalidDocument: It is no spec.
    """
    if not text.lstrip().startswith("{"):
        try:
            text = Path(text).read_text()
        except (OSError, ValueError) as error:
            raise ConfigError(f"the mover's spec {text} cannot be read: {error}") from error
    try:
        spec = MoverSpec.model_validate_json(text)
    except ValidationError as wrong:
        where = ", ".join(".".join(map(str, each["loc"])) or "the text" for each in wrong.errors())
        raise InvalidDocument(f"the mover's spec does not say what it must: {where}") from wrong
    for tree in (spec.tree, spec.parent):
        if tree is not None and not _TREE.fullmatch(tree):
            raise InvalidDocument(f"the mover's spec names a tree {tree[:80]!r}, which is no id")
    return spec


def _read_list(file: str) -> ChangedList:
    try:
        return ChangedList.model_validate_json(Path(file).read_bytes())
    except (OSError, ValueError) as error:  # a ValidationError is a ValueError
        raise InvalidDocument(
            f"the changed-block list {file} cannot be used: {type(error).__name__}",
            guidance="Correct it, or run again without it: then everything is read.",
        ) from error


def run(
    spec: MoverSpec, path: Path, environment: Mapping[str, str], tally: Tally, opening: Opening | None = None
) -> MoverResult:
    """Carry out a spec on a folder or a device. ``opening``: of its vault, when somebody has begun with it.

    Raises:
        MissingKey: The environment holds no password.
        RefloatError: What ended it.
    """
    begun = monotonic_seconds()
    password = environment.get(spec.password_env)
    if not password:
        raise MissingKey(f"the vault password is missing: variable {spec.password_env} is not set")
    if opening is None or opening.asked != (spec.vault_url, password):
        opening = Opening(spec.vault_url, environment, password)
    if spec.action == "archive":
        keep_freed_memory()
    vault = opening.vault()
    try:
        reopen = partial(open_object_store, spec.vault_url, environment)
        moved = _WORK[spec.action, spec.mode](vault, spec, path, tally, reopen)
    finally:
        vault.close()
    return moved.model_copy(update={"seconds": round(monotonic_seconds() - begun, 3)})


def _archive(vault: OpenVault, spec: MoverSpec, path: Path, tally: Tally, reopen: Reopen) -> MoverResult:
    by_content = spec.chunks == "content-defined"
    done = archive(
        vault,
        path,
        tally,
        parent=spec.parent,
        reopen=reopen,
        chunk_size=spec.chunk_bytes,
        by_content=by_content,
    )
    return MoverResult(
        action="archive",
        volume=spec.volume,
        tree=done.tree,
        top=done.top,
        files=done.files,
        data_bytes=done.data_bytes,
        added_bytes=done.added_bytes,
        chunk_bytes=done.chunk_bytes,
        unreadable=done.unreadable,
        unreadable_count=done.unreadable_count,
    )


def _extract(vault: OpenVault, spec: MoverSpec, path: Path, tally: Tally, reopen: Reopen) -> MoverResult:
    tree = _tree(spec)
    done = extract(vault, tree, path, tally, top=spec.top, reopen=reopen)
    return MoverResult(action="extract", volume=spec.volume, tree=tree, files=done.files, data_bytes=done.data_bytes)


def _archive_device(vault: OpenVault, spec: MoverSpec, path: Path, tally: Tally, _: Reopen) -> MoverResult:
    changed = _read_list(spec.changed) if isinstance(spec.changed, str) else spec.changed
    done = archive_device(vault, path, tally, parent=spec.parent, chunk_size=spec.chunk_bytes, changed=changed)
    tally.add(files=1)
    return MoverResult(
        action="archive",
        volume=spec.volume,
        tree=done.tree,
        files=1,
        data_bytes=done.size_bytes,
        added_bytes=done.added_bytes,
        chunk_bytes=done.chunk_bytes,
        read_bytes=done.read_bytes,
    )


def _extract_device(vault: OpenVault, spec: MoverSpec, path: Path, tally: Tally, _: Reopen) -> MoverResult:
    tree = _tree(spec)
    done = extract_device(vault, tree, path, tally, is_blank=spec.is_blank)
    tally.add(files=1)
    return MoverResult(action="extract", volume=spec.volume, tree=tree, files=1, data_bytes=done.size_bytes)


def _tree(spec: MoverSpec) -> str:
    if spec.tree is None:
        raise InvalidDocument("the mover's spec names no tree to extract")
    return spec.tree


_WORK = {
    ("archive", "folder"): _archive,
    ("extract", "folder"): _extract,
    ("archive", "device"): _archive_device,
    ("extract", "device"): _extract_device,
}


def serve(
    spec_text: str, path: Path, result_file: Path, environment: Mapping[str, str], opening: Opening | None = None
) -> int:
    """A mover's whole life; returns its exit code. The result is written whatever happens.

    SIGTERM and SIGINT end it with ``Interrupted``: nothing half-done is ever named by the vault, and an archive or
    extract that is begun again reuses what was done.
    """
    tally = Tally()
    spec = MoverSpec(action="archive", run="", volume="", vault_url="")  # for the message, until the real one is read
    try:
        spec = read_spec(spec_text)
        _allow_many_files()
        with _ending_on_signals(tally), _reporting(spec, tally):
            result = run(spec, path, environment, tally, opening)
    except RefloatError as error:
        print(f"{error.code}: {error.message}", file=sys.stderr)  # noqa: T201
        _leave(result_of_failure(spec, error), result_file)
        return error.exit_code
    except Exception as bug:
        _leave(result_of_failure(spec, RefloatError(f"the mover failed unexpectedly: {bug!r}")), result_file)
        raise
    _leave(result, result_file)
    return 0


def _leave(result: MoverResult, file: Path) -> None:
    try:
        file.write_text(result.to_message())
    except OSError as error:
        raise ConfigError(f"the mover's result cannot be written to {file}: {error.strerror}") from error


def _allow_many_files() -> None:
    """As many open files as the system lets us have: folders on the way down stay open."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


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
def _reporting(spec: MoverSpec, tally: Tally) -> Iterator[None]:
    """One line of progress at once, one a second, and the last one when the block ends, however it ends."""
    ended = threading.Event()
    begun = monotonic_seconds()

    def say(*, is_last: bool) -> None:
        seconds = monotonic_seconds() - begun
        progress = Progress(
            volume=spec.volume,
            bytes_done=tally.bytes_done,
            files_done=tally.files_done,
            bytes_per_second=round(tally.bytes_done / seconds, 1) if seconds > 0 else 0.0,
            is_last=is_last,
        )
        with QUIET:
            print(progress.model_dump_json(), flush=True)  # noqa: T201 (standard output is the channel)

    def keep_saying() -> None:
        while not pause(EVERY, until=ended):
            say(is_last=False)

    say(is_last=False)
    reporter = threading.Thread(target=keep_saying, name="report progress", daemon=True)
    reporter.start()
    try:
        yield
    finally:
        ended.set()
        reporter.join()
        say(is_last=True)
