"""Snapshot records: the small stored objects that make trees reachable, and how ours are told from others'.

Restic's design document, "Snapshots", and ``internal/data/snapshot.go``. A record's file name is not an identity:
``restic tag`` writes a new one and removes the old.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from refloat import __version__
from refloat.errors import IntegrityError, UnsupportedFormat
from refloat.recovery_point import RecoveryPoint
from vault.blobs import ID_BYTES, BlobKind, PackedBlob
from vault.instants import format_instant, parse_instant, to_datetime, to_nanoseconds
from vault.reading import Place
from vault.untrusted import load, weigh

PROGRAM = "refloat"
_PATH = f"/{PROGRAM}/"
_POINT = "point="
NEWEST_DESCRIPTOR = 1
_DESCRIPTOR = re.compile(r"descriptor=([0-9a-f]{64})@([0-9a-f]{64})\+(\d+)\+(\d+)\+(\d+)")


@dataclass(frozen=True)
class SnapshotRecord:
    """One snapshot record. ``descriptor`` is where the point's descriptor lay when it was sealed: a shortcut only.

    ``point_id`` and ``time`` (the point's cut) say which point it is when the descriptor is damaged.
    """

    name: str
    tree: bytes
    application: str | None
    descriptor: Place | None
    point_id: str | None = None
    time: datetime | None = None


@dataclass(frozen=True)
class AnyRecord:
    """A snapshot record of whichever program, as its own words have it. ``origin``: the name it once had elsewhere, or
    before its tags were changed.
    """

    name: str
    tree: bytes
    time: datetime
    hostname: str
    username: str
    paths: tuple[str, ...]
    tags: tuple[str, ...]
    program: str
    origin: str | None
    ours: SnapshotRecord | None
    """What it is to us; None when another program made it."""
    text: bytes

    @property
    def label(self) -> str:
        """For people: the point's id, or what another program said."""
        if self.ours is not None and self.ours.point_id:
            return f"{self.ours.point_id} of {self.ours.application or '?'}"
        return f"{self.name[:8]} of {', '.join(self.paths) or self.hostname}"


def read_any_record(name: str, text: bytes) -> AnyRecord:
    """A snapshot record, ours or another program's.

    Raises:
        IntegrityError: It is no snapshot record.
    """
    ours = decode_record(name, text)
    try:
        record: dict[str, Any] = load(text)
        tree, origin = bytes.fromhex(record["tree"]), record.get("original")
        if len(tree) != ID_BYTES or not (origin is None or isinstance(origin, str)):
            raise ValueError("an id that is none")
        words = [str(record.get(key) or "") for key in ("hostname", "username", "program_version")]
        paths, tags = (tuple(map(str, record.get(key) or ())) for key in ("paths", "tags"))
        at = to_datetime(parse_instant(record["time"]))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as wrong:
        raise IntegrityError(f"snapshots/{name} does not say what it must") from wrong
    return AnyRecord(name, tree, at, words[0], words[1], paths, tags, words[2], origin, ours, text)


def moved_record(record: AnyRecord, descriptor: Place | None) -> bytes:
    """The text of a record for another vault, where the descriptor lies elsewhere, and where there is no parent.

    As ``restic copy`` does it, the first name is kept in ``original``: by that a copy is known again.
    """
    text: dict[str, Any] = orjson.loads(record.text)
    text.pop("parent", None)
    text["original"] = record.origin or record.name
    if record.ours is not None and record.program:
        place = f"descriptor={_format_place(descriptor)}" if descriptor else "descriptor moved"
        text["program_version"] = _DESCRIPTOR.sub(place, record.program)
    return orjson.dumps(text)


def encode_record(point: RecoveryPoint, tree: bytes, descriptor: Place, *, files: int, data_bytes: int) -> bytes:
    """The text of a point's snapshot record, with what ``restic snapshots`` shows of it.

    Hostname and paths are stable and meaningful, since restic groups by them. Path, tag and program version each tell
    our records from others'; the first survives everything restic can do to a record. The program version tells where
    the descriptor lies too, so that listing points needs no index.
    """
    place = _format_place(descriptor)
    summary = {
        "backup_start": format_instant(to_nanoseconds(point.started_at)),
        "backup_end": format_instant(to_nanoseconds(point.sealed_at)),
        "total_files_processed": files,
        "total_bytes_processed": data_bytes,
    }
    return orjson.dumps(
        {
            "time": format_instant(to_nanoseconds(point.cut_at)),
            "tree": tree.hex(),
            "paths": [_PATH + point.application],
            "hostname": point.cluster,
            "username": PROGRAM,
            "tags": [PROGRAM, f"{_POINT}{point.id}"],
            "program_version": f"{PROGRAM} {__version__} (descriptor={place})",
            "summary": summary,
        }
    )


def decode_record(name: str, text: bytes) -> SnapshotRecord | None:
    """The record; None when another program made it.

    Raises:
        IntegrityError: It is no snapshot record.
    """
    try:
        record: dict[str, Any] = load(text)
        tree, paths, tags = bytes.fromhex(record["tree"]), record.get("paths") or (), record.get("tags") or ()
        if len(tree) != ID_BYTES:
            raise ValueError("an id of the wrong length")
        time = to_datetime(parse_instant(record["time"]))
        program = str(record.get("program_version", ""))
        if not isinstance(tags, list | tuple):
            raise TypeError("tags that are no list")
        application = next((str(path).removeprefix(_PATH) for path in paths if str(path).startswith(_PATH)), None)
        if application is None and PROGRAM not in tags and not program.startswith(f"{PROGRAM} "):
            return None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as wrong:
        raise IntegrityError(f"snapshots/{name} does not say what it must") from wrong
    found = _DESCRIPTOR.search(program)
    point_id = next((str(tag).removeprefix(_POINT) for tag in tags if str(tag).startswith(_POINT)), None)
    return SnapshotRecord(name, tree, application, _place(found) if found else None, point_id, time)


def _format_place(place: Place) -> str:
    pack, blob = place
    return f"{blob.id.hex()}@{pack.hex()}+{blob.offset}+{blob.sealed_bytes}+{blob.plain_bytes}"


def decode_descriptor(text: bytes, where: str) -> RecoveryPoint:
    """The point that a descriptor describes; ``where`` it lies, for messages.

    Raises:
        UnsupportedFormat: A later refloat wrote it.
        IntegrityError: It is no descriptor.
    """
    try:
        weigh(text)
        return RecoveryPoint.model_validate_json(text)
    except ValueError as wrong:
        version = _version(text)
        if version > NEWEST_DESCRIPTOR:
            raise UnsupportedFormat(
                f"{where} is of version {version}, this refloat knows up to {NEWEST_DESCRIPTOR}",
                guidance="Use the refloat that made the recovery point, or a later one; nothing is wrong with it.",
            ) from wrong
        raise IntegrityError(f"{where} does not say what it must: {str(wrong)[:500]}") from wrong


def _version(text: bytes) -> int:
    try:
        found = load(text)["version"]
    except (ValueError, KeyError, TypeError):
        return 0
    return found if isinstance(found, int) else 0


def _place(found: re.Match[str]) -> Place:
    blob_id, pack, *numbers = found.groups()
    offset, sealed, plain = map(int, numbers)
    return bytes.fromhex(pack), PackedBlob(BlobKind.DATA, bytes.fromhex(blob_id), offset, sealed, plain)
