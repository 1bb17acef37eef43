"""Points as even a damaged vault tells them: by their records, descriptors and manifests, with what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from refloat.errors import IntegrityError, UnsupportedFormat
from refloat.recovery_point import DESCRIPTOR, RecoveryPoint
from vault.blobs import BlobKind
from vault.evidence import read_each
from vault.files import FileKind
from vault.findings import Findings
from vault.index import Index
from vault.nodes import DIR, FILE, Node
from vault.reading import BlobReader
from vault.repository import OpenVault
from vault.snapshots import SnapshotRecord, decode_descriptor, decode_record


@dataclass
class RecordsSeen:
    """All snapshot records: refloat's, those that do not read and why, and how many are other programs'."""

    ours: list[SnapshotRecord] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    foreign: int = 0


def read_records(vault: OpenVault) -> RecordsSeen:
    """Every snapshot record, in the order of the listing."""
    seen = RecordsSeen()
    for name, text in read_each(vault, FileKind.SNAPSHOT):
        try:
            if isinstance(text, IntegrityError):
                raise text
            record = decode_record(name, text)
        except IntegrityError as wrong:
            seen.damaged[name] = wrong.message
            continue
        if record is None:
            seen.foreign += 1
        else:
            seen.ours.append(record)
    return seen


@dataclass
class SealedPoint:
    """A point by its record. ``point`` is None when its descriptor does not read; the walk of its tree tells why.

    ``flaws``: what is wrong with the point as a whole. ``manifests``: numbers of their data blobs.
    """

    record: SnapshotRecord
    point: RecoveryPoint | None = None
    flaws: list[str] = field(default_factory=list)
    manifests: list[int] = field(default_factory=list)

    @property
    def id(self) -> str | None:
        """By the descriptor, else by the record's tag."""
        return self.point.id if self.point else self.record.point_id

    @property
    def application(self) -> str | None:
        """By the descriptor, else by the record's path."""
        return self.point.application if self.point else self.record.application

    @property
    def cut_at(self) -> datetime | None:
        """By the descriptor, else by the record's time."""
        return self.point.cut_at if self.point else self.record.time


def look_at_point(reader: BlobReader, index: Index, findings: Findings, record: SnapshotRecord) -> SealedPoint | None:
    """What the tree of a record says of the point; None for another program's snapshot with a tag like ours."""
    found, folders = SealedPoint(record), _Folders(reader)
    try:
        node = folders.find(record.tree, (DESCRIPTOR.encode(),))
        if node is None or node.type != FILE:
            if record.point_id is None:
                return None
            found.flaws.append(f"it holds no {DESCRIPTOR}")
            return found
        text = _text(reader, index, findings, node)
    except IntegrityError:
        return found  # a tree that does not read: the walk tells which
    try:
        found.point = decode_descriptor(text, f"its {DESCRIPTOR}") if text is not None else None
    except (IntegrityError, UnsupportedFormat) as wrong:
        found.flaws.append(wrong.message)
    if found.point is not None:
        _compare(found, found.point, folders, index)
    return found


def _text(reader: BlobReader, index: Index, findings: Findings, node: Node) -> bytes | None:
    """A small file's bytes; None when they do not read, which is written down."""
    parts = []
    for blob_id in node.blobs:
        number = index.number(BlobKind.DATA, blob_id)
        if number is None:
            return None
        try:
            parts.append(reader.read(BlobKind.DATA, blob_id))
        except IntegrityError as wrong:
            findings.add_blob(BlobKind.DATA, number, wrong.message)
            return None
    return b"".join(parts)


def _compare(found: SealedPoint, point: RecoveryPoint, folders: _Folders, index: Index) -> None:
    """The descriptor against the tree: every volume is the tree it names, every manifest is there."""
    root = found.record.tree
    for volume in point.volumes:
        node = folders.look(root, volume.path)
        if node is not None and (node.type != DIR or node.subtree.hex() != volume.tree):
            found.flaws.append(f"{volume.path} is not the tree that its {DESCRIPTOR} names")
    for each in point.objects:
        node = folders.look(root, each.path)
        if node is not None and node.type != FILE:
            found.flaws.append(f"it lacks the manifest {each.path}")
        elif node is not None:
            numbers = (index.number(BlobKind.DATA, blob_id) for blob_id in node.blobs)
            found.manifests += [number for number in numbers if number is not None]


_NOTHING = Node(b"", "", 0, uid=0, gid=0, mtime=0, ctime=0)


class _Folders:
    """Looks up paths in one point, each folder read once."""

    def __init__(self, reader: BlobReader) -> None:
        self._reader = reader
        self._known: dict[bytes, dict[bytes, Node]] = {}

    def look(self, root: bytes, path: str) -> Node | None:
        """The node of a path, one of no type when there is none; None when that cannot be told for damage."""
        try:
            return self.find(root, path.encode().split(b"/")) or _NOTHING
        except IntegrityError:
            return None

    def find(self, root: bytes, path: Sequence[bytes]) -> Node | None:
        """The node of a path; None when there is none.

        Raises:
            IntegrityError: A folder on the way does not read.
        """
        tree, node = root, None
        for name in path:
            if node is not None and node.type != DIR:
                return None
            tree = node.subtree if node is not None else tree
            if tree not in self._known:
                self._known[tree] = {each.name: each for each in self._reader.tree(tree)}
            node = self._known[tree].get(name)
            if node is None:
                return None
        return node
