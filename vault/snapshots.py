"""Snapshot records: the small stored objects that make trees reachable, and how ours are told from others'.

Restic's design document, "Snapshots", and ``internal/data/snapshot.go``. A record's file name is not an identity:
``restic tag`` writes a new one and removes the old.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import orjson

from refloat import __version__
from refloat.errors import IntegrityError
from refloat.recovery_point import RecoveryPoint
from vault.blobs import ID_BYTES, BlobKind, PackedBlob
from vault.instants import format_instant, to_nanoseconds
from vault.reading import Place

PROGRAM = "refloat"
_DESCRIPTOR = re.compile(r"descriptor=([0-9a-f]{64})@([0-9a-f]{64})\+(\d+)\+(\d+)\+(\d+)")


@dataclass(frozen=True)
class SnapshotRecord:
    """One snapshot record. ``descriptor`` is where the point's descriptor lay when it was sealed: a shortcut only."""

    name: str
    tree: bytes
    application: str | None
    descriptor: Place | None


def encode_record(point: RecoveryPoint, tree: bytes, descriptor: Place) -> bytes:
    """The text of a point's snapshot record.

    Hostname and paths are stable and meaningful, since restic groups by them. Tags let ``refloat points`` pass over
    foreign records and find the descriptor without reading the index; ``program_version`` survives ``restic tag``.
    """
    pack, blob = descriptor
    place = f"{blob.id.hex()}@{pack.hex()}+{blob.offset}+{blob.sealed_bytes}+{blob.plain_bytes}"
    summary = {
        "backup_start": format_instant(to_nanoseconds(point.started_at)),
        "backup_end": format_instant(to_nanoseconds(point.sealed_at)),
        "total_files_processed": sum(volume.files for volume in point.volumes) + len(point.objects) + 1,
        "total_bytes_processed": point.data_bytes,
    }
    return orjson.dumps(
        {
            "time": format_instant(to_nanoseconds(point.cut_at)),
            "tree": tree.hex(),
            "paths": [f"/{PROGRAM}/{point.application}"],
            "hostname": point.cluster,
            "username": PROGRAM,
            "tags": [PROGRAM, f"point={point.id}", f"application={point.application}", f"descriptor={place}"],
            "program_version": f"{PROGRAM} {__version__}",
            "summary": summary,
        }
    )


def decode_record(name: str, text: bytes) -> SnapshotRecord | None:
    """The record; None when another program made it.

    Raises:
        IntegrityError: It is no snapshot record.
    """
    try:
        record: dict[str, Any] = orjson.loads(text)
        tree, tags = bytes.fromhex(record["tree"]), [str(tag) for tag in record.get("tags") or ()]
        if len(tree) != ID_BYTES:
            raise ValueError("an id of the wrong length")
    except (ValueError, KeyError, TypeError) as wrong:
        raise IntegrityError(f"snapshots/{name} does not say what it must") from wrong
    if PROGRAM not in tags and not str(record.get("program_version", "")).startswith(f"{PROGRAM} "):
        return None
    application = next((tag.partition("=")[2] for tag in tags if tag.startswith("application=")), None)
    found = next((match for tag in tags if (match := _DESCRIPTOR.fullmatch(tag))), None)
    return SnapshotRecord(name, tree, application, _place(found) if found else None)


def _place(found: re.Match[str]) -> Place:
    blob_id, pack, *numbers = found.groups()
    offset, sealed, plain = map(int, numbers)
    return bytes.fromhex(pack), PackedBlob(BlobKind.DATA, bytes.fromhex(blob_id), offset, sealed, plain)
