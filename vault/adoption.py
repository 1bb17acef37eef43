"""Adoption: an existing restic repository read as a vault: its snapshots, whoever made them, and what is in one.

What other programs made stays theirs: it is no recovery point, ``refloat points`` passes it over, expiry and prune
leave it alone. Repositories of format version 1 are read too, and never written to.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from refloat.errors import IntegrityError, NoEligibleRecoveryPoint
from vault.blobs import BlobKind
from vault.evidence import read_each
from vault.files import FileKind
from vault.findings import Findings
from vault.nodes import DIR, FILE, Node
from vault.reach import Reach
from vault.reading import BlobReader
from vault.repository import OpenVault
from vault.snapshots import AnyRecord, read_any_record

LATEST = "latest"


@dataclass(frozen=True)
class Adopted:
    """Snapshot records, oldest first, and why others do not read, by name."""

    records: tuple[AnyRecord, ...]
    damaged: dict[str, str] = field(default_factory=dict)

    def choose(self, name: str) -> AnyRecord:
        """The record whose name begins so; ``latest`` is the newest.

        Raises:
            NoEligibleRecoveryPoint: None or several do.
        """
        if name == LATEST and self.records:
            return self.records[-1]
        found = [record for record in self.records if name and record.name.startswith(name)]
        if len(found) != 1:
            several = f"{len(found)} snapshots begin" if found else "no snapshot begins"
            raise NoEligibleRecoveryPoint(
                f"{several} with {name!r}", guidance="List them: refloat vault adopt URL; or say latest."
            )
        return found[0]


def adopted(vault: OpenVault) -> Adopted:
    """Every snapshot record of a repository.

    Raises:
        ProviderError: The store does not answer.
    """
    records, damaged = list[AnyRecord](), dict[str, str]()
    for name, text in read_each(vault, FileKind.SNAPSHOT):
        try:
            if isinstance(text, IntegrityError):
                raise text
            records.append(read_any_record(name, text))
        except IntegrityError as wrong:
            damaged[name] = wrong.message
    return Adopted(tuple(sorted(records, key=lambda record: (record.time, record.name))), damaged)


@dataclass(frozen=True)
class Held:
    """What a restore brings back: distinct folders, files and their bytes in those (equal folders count once), and the
    stored objects that are damaged or gone, each with the first path that needs it.
    """

    folders: int
    files: int
    data_bytes: int
    damaged: dict[str, str]


def held_by(vault: OpenVault, node: Node) -> Held:
    """Look at all trees below a folder, or at the one thing that is none; no data is read.

    Raises:
        ProviderError: The store does not answer.
    """
    if node.type != DIR:
        return Held(0, int(node.type == FILE), node.size, {})
    index = vault.index()
    reach = Reach(BlobReader(vault.files, index), index, Findings(index))
    damaged = reach.walk(node.subtree)
    return Held(len(reach.used[BlobKind.TREE]), reach.files, reach.file_bytes, damaged)
