"""The survey: every recovery point asked for is looked at, and every damage told with exactly the points it affects.

It never stops at the first damage. Structure: records, descriptors, trees, the index, packs and their sizes, file
sizes, manifests. Sample: a random share of the data too. Full: every byte of every pack. What stock ``restic check``
does not notice is noticed here: files of another size than their blobs, and points that somebody removed or hid, when
the caller says which there must be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from refloat.errors import LeaseHeld, NoEligibleRecoveryPoint
from refloat.recovery_point import CataloguedPoint
from vault.blobs import BlobKind, PackedBlob
from vault.blobs import name as name_of
from vault.evidence import PacksSeen, compare_packs, look_at_other_files, read_blobs, read_index, read_packs
from vault.files import FileKind, key_of, stored
from vault.findings import Findings
from vault.pack_proof import PackProof
from vault.reach import Reach
from vault.reading import BlobReader
from vault.repository import OpenVault
from vault.sealed_points import SealedPoint, look_at_point, read_records
from vault.surveyed import Affected, Counts, Damage, Level, Survey, Surveyed
from vault.verify import sample

Moved = Callable[[Counts], None]


def survey(
    vault: OpenVault,
    *,
    level: Level,
    application: str | None = None,
    point: str | None = None,
    expected: Sequence[CataloguedPoint] = (),
    moved: Moved = lambda _: None,
) -> Survey:
    """Look at one point (``point``: how its id begins), at all of an application, or at the whole vault.

    ``expected``: points that must exist, known from outside the vault; of those that are asked for, a missing one is
    damage. ``moved`` hears how far the reading is. No lock is taken: nothing is written.

    Raises:
        NoEligibleRecoveryPoint: There is no such point, none was expected, and no damaged record could be it.
        LeaseHeld: The vault was pruned meanwhile, so that what was found means nothing.
        ProviderError: The store does not answer: that is no damage.
    """
    asked = _Asked(application, point)
    work = _Survey(vault, level, asked, moved)
    work.look(expected)
    return work.result()


@dataclass(frozen=True)
class _Asked:
    """What is asked for."""

    application: str | None
    point: str | None

    @property
    def is_all(self) -> bool:
        return self.application is None and self.point is None

    def has(self, point_id: str | None, application: str | None) -> bool:
        """Whether a point is asked for; one that damage has left without a name may be."""
        return (self.application is None or application in (None, self.application)) and (
            self.point is None or point_id is None or point_id.startswith(self.point)
        )

    def __str__(self) -> str:
        of = f" of application {self.application}" if self.application else ""
        return f"recovery point{f' {self.point}' if self.point else ''}{of}"


@dataclass
class _Looked:
    """A point, and the damaged objects it needs with the first path."""

    point: SealedPoint
    met: dict[str, str] = field(default_factory=dict)

    def place(self) -> tuple[bool, datetime | None, str]:
        """By cut; those without one last."""
        return self.point.cut_at is None, self.point.cut_at, self.point.id or ""

    def affected(self, path: str) -> Affected:
        return Affected(self.point.id, self.point.application, self.point.cut_at, path)


class _Survey:
    """One run of ``survey``."""

    def __init__(self, vault: OpenVault, level: Level, asked: _Asked, moved: Moved) -> None:
        self._vault, self._level, self._asked, self._moved = vault, level, asked, moved
        self._records = read_records(vault)  # before the index, or a point sealed in between would look damaged
        self._seen = read_index(vault)
        self._index = self._seen.index
        self._reader = BlobReader(vault.files, self._index)
        self._findings = Findings(self._index)
        self._packs = PacksSeen()
        self._points: list[_Looked] = []
        self._missing: dict[str, Affected] = {}
        self._counts, self._remarks = Counts(), list[str]()

    def look(self, expected: Sequence[CataloguedPoint]) -> None:
        """Everything, in order; damage is written down."""
        self._look_at_structure()
        self._expect([each for each in expected if self._asked.has(each.point.id, each.point.application)])
        if not (self._points or self._missing or self._records.damaged):
            raise NoEligibleRecoveryPoint(f"{self._vault.url} holds no {self._asked}")
        reach, before = self._walk(), len(self._findings)
        self._count(reach)
        if self._level is Level.SAMPLE:
            self._read_sample(reach)
        elif self._level is Level.FULL:
            self._read_all(reach)
        if len(self._findings) > before:
            self._walk()
        fate = "do not prune, an index file may be missing" if reach.lost else "nothing needs it, prune removes it"
        self._remark(len(self._packs.unindexed), f"pack is in no index: {fate}")
        if self._findings.objects:
            self._refuse_if_pruned()

    def _look_at_structure(self) -> None:
        for name, reason in self._records.damaged.items():
            self._findings.add(key_of(FileKind.SNAPSHOT, name), reason)
        for name, reason in self._seen.damaged.items():
            self._findings.add(key_of(FileKind.INDEX, name), reason)
        if len(self._seen.damaged) == 1:
            (self._findings.lost_index,) = (key_of(FileKind.INDEX, name) for name in self._seen.damaged)
        self._packs = compare_packs(self._vault, self._index, self._findings)
        look_at_other_files(self._vault, self._findings)
        self._look_at_points()
        self._points.sort(key=_Looked.place)
        self._remark(self._records.foreign, "snapshot of other programs was not looked at")
        self._remark(self._seen.repeated, "pack is in more than one index file")

    def _look_at_points(self) -> None:
        for record in self._records.ours:
            found = look_at_point(self._reader, self._index, self._findings, record)
            if found is None:
                self._records.foreign += 1
            elif self._asked.has(found.id, found.application):
                self._points.append(_Looked(found))
        ids = {looked.point.id for looked in self._points}
        if self._asked.point is not None and len(ids) > 1:
            raise NoEligibleRecoveryPoint(f"{len(ids)} points begin with {self._asked.point}; give more digits")
        self._remark(len(self._points) - len(ids), "snapshot record names a point that another names too")
        for looked in self._points:
            read_blobs(self._vault, self._index, self._findings, looked.point.manifests, lambda *_: None)

    def _expect(self, expected: Iterable[CataloguedPoint]) -> None:
        by_id: dict[str | None, list[SealedPoint]] = {}
        for looked in self._points:
            by_id.setdefault(looked.point.id, []).append(looked.point)
        for each in expected:
            found = by_id.get(each.point.id, [])
            key = key_of(FileKind.SNAPSHOT, each.snapshot_id)
            if not found:
                if each.snapshot_id not in self._records.damaged:
                    self._findings.add(key, f"point {each.point.id} is expected, and no snapshot record names it")
                self._missing[key] = Affected(each.point.id, each.point.application, each.point.cut_at, "")
            for other in found:
                if other.record.tree.hex() != each.tree or other.point not in (None, each.point):
                    other.flaws.append("it says something else than is expected of it")

    def _walk(self) -> Reach:
        reach = Reach(self._reader, self._index, self._findings)
        for looked in self._points:
            looked.met = reach.walk(looked.point.record.tree)
            for flaw in looked.point.flaws:
                key = key_of(FileKind.SNAPSHOT, looked.point.record.name)
                self._findings.add(key, f"point {looked.point.id}: {flaw}")
                looked.met[key] = ""
        return reach

    def _count(self, reach: Reach) -> None:
        counts = self._counts
        counts.trees, counts.blobs = len(reach.used[BlobKind.TREE]), len(reach.used[BlobKind.DATA])
        counts.files, counts.file_bytes = reach.files, reach.file_bytes
        counts.packs, counts.pack_bytes = self._packs.count, self._packs.size_bytes

    def _read_sample(self, reach: Reach) -> None:
        used = reach.used[BlobKind.DATA]
        read_blobs(self._vault, self._index, self._findings, sample(used), self._read_more)

    def _read_more(self, blobs: int, size_bytes: int) -> None:
        self._counts.blobs_read += blobs
        self._counts.bytes_read += size_bytes
        self._moved(self._counts)

    def _read_all(self, reach: Reach) -> None:
        """Every pack: all that are stored, or those that the points need."""
        wanted: set[bytes] | None = None
        if not self._asked.is_all:
            used = ((kind, number) for kind in BlobKind for number in reach.used[kind])
            wanted = {self._index.at(kind, number)[0] for kind, number in used}
            wanted |= {pack for pack, _ in self._packs.unindexed} if reach.lost else set()
        mixed = 0
        for proof in read_packs(self._vault, self._stored(wanted)):
            self._judge(proof, reach)
            mixed += proof.is_mixed
            self._counts.packs_read += 1
            self._read_more(sum(blob.kind is BlobKind.DATA for blob in proof.blobs), proof.size_bytes)
        self._remark(mixed, "pack holds both data and trees")

    def _stored(self, wanted: set[bytes] | None) -> Iterator[tuple[bytes, int]]:
        """Id and size of packs; None wants all."""
        for name, found in stored(self._vault.store, FileKind.PACK):
            pack = bytes.fromhex(name)
            if wanted is None or pack in wanted:
                yield pack, found.size_bytes

    def _judge(self, proof: PackProof, reach: Reach) -> None:
        """One pack against its name, its header and the index."""
        key = key_of(FileKind.PACK, proof.pack.hex())
        if proof.flaw is not None:
            self._findings.add_pack(proof.pack, proof.flaw)
            return
        for blob, reason in proof.damaged.items():
            self._blame(proof.pack, blob, reason)
        if self._index.has_pack(proof.pack):
            held, listed = set(proof.blobs), set(self._index.blobs_of(proof.pack))
            for blob in listed - held:
                self._blame(proof.pack, blob, f"an index file places {name_of(blob)} in it, its own header does not")
            for blob in held - listed:
                self._findings.add(key, f"no index file says that {name_of(blob)} is in it")
        found = sum((blob.kind, blob.id) in reach.lost for blob in proof.blobs)
        if found:
            self._remarks.append(
                f"{key} holds {found} of the blobs that no index names: restic repair index makes the index again"
            )

    def _blame(self, pack: bytes, blob: PackedBlob, reason: str) -> None:
        """A blob of a pack is damaged: for whoever reads it there, which nobody does when it is found elsewhere."""
        number = self._index.number(blob.kind, blob.id)
        if number is not None and self._index.at(blob.kind, number) == (pack, blob):
            self._findings.add_blob(blob.kind, number, reason)
        else:
            self._findings.add(key_of(FileKind.PACK, pack.hex()), reason)

    def _refuse_if_pruned(self) -> None:
        gone = self._seen.names - {name for name, _ in stored(self._vault.store, FileKind.INDEX)}
        if gone:
            raise LeaseHeld(
                f"{self._vault.url} was pruned while it was verified: {key_of(FileKind.INDEX, min(gone))} went away",
                guidance="Wait for the pruning to end, then verify again.",
            )

    def _remark(self, count: int, what: str) -> None:
        if count:
            self._remarks.append(f"{count} {what}")

    def result(self) -> Survey:
        """The verdict on every point, and every damage with the points it affects.

        Of what only other points need than those asked for, the number is told; a record that does not read may be of
        one that is asked for.
        """
        damages, elsewhere = list[Damage](), 0
        for key, found in sorted(self._findings.objects.items()):
            hit = {looked.point.id: looked.affected(looked.met[key]) for looked in self._points if key in looked.met}
            lost = [self._missing[key]] if key in self._missing else []
            if not (hit or lost or self._asked.is_all or key.startswith(f"{FileKind.SNAPSHOT.value}/")):
                elsewhere += 1
                continue
            damages.append(Damage(key, tuple(found.reasons), found.count, (*hit.values(), *lost)))
        self._remark(elsewhere, "damaged object is needed by nothing that was asked for: verify the whole vault")
        points = [
            Surveyed(
                each.point.id, each.point.application, each.point.cut_at, each.point.record.name,
                tuple(sorted(each.met)),
            )
            for each in self._points
        ]  # fmt: skip
        points += [
            Surveyed(gone.id, gone.application, gone.cut_at, key.partition("/")[2], (key,))
            for key, gone in self._missing.items()
        ]
        return Survey(self._level, tuple(points), tuple(damages), tuple(self._remarks), self._counts)
