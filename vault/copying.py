"""Copying: recovery points of one vault put into another, every byte proved at the far end before a point is listed.

A far end that is empty becomes a mirror: another home of the same vault, with the same key, to which files are moved
byte for byte. A vault with a key of its own gets the same trees and data sealed by that key. In both, snapshot records
come last, so that whatever a copy broke off at is never a point, and running it again goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from refloat.clock import monotonic_seconds
from refloat.errors import ConfigError, IntegrityError, NoEligibleRecoveryPoint, NotAVault
from refloat.ports.object_store import ObjectStore
from refloat.progress import Event, emit
from refloat.recovery_point import new_id
from refloat.transfer import Progress
from vault.evidence import read_each
from vault.files import FileKind, key_of
from vault.findings import Findings
from vault.mirroring import Mirror, begin_mirror
from vault.proving import ProvingStore
from vault.reach import Reach
from vault.reading import BlobReader
from vault.repository import OURS, OpenVault, copied_here, exists, init, open_vault
from vault.resealing import Resealing
from vault.sealing import MasterKey
from vault.snapshots import AnyRecord, read_any_record

Unlock = Callable[[], tuple[str, str | None]]
"""Tells the far end's password and, where that is known, its key slot; asked only when it is needed."""


@dataclass(frozen=True)
class FarEnd:
    """Where points are copied to. ``is_mirror``: another home of the same vault, which may have to be made yet."""

    vault: OpenVault
    is_mirror: bool
    is_new: bool = False


def open_far_end(
    source: OpenVault, store: ObjectStore, unlock: Unlock, *, with_new_key: bool = False, dry_run: bool = False
) -> FarEnd:
    """The far end in a store. An empty one becomes a mirror or, ``with_new_key``, a vault of its own.

    In a dry run nothing is made.

    Raises:
        ConfigError: It is the source itself, or a mirror although a new key was asked for.
        NotAVault: Something else is there.
        WrongKey: The password does not open it.
    """
    if store.url == source.url:
        raise ConfigError(f"{store.url} would be copied to itself")
    proving = ProvingStore(store)
    if exists(store):
        password, slot = unlock()
        vault = open_vault(proving, password, slot=slot)
        is_mirror = vault.files.key == source.files.key
        if is_mirror and with_new_key:
            raise ConfigError(f"{store.url} is a copy with the same key already", guidance="Give an empty prefix.")
        return FarEnd(vault, is_mirror)
    if with_new_key and not dry_run:
        return FarEnd(init(proving, unlock()[0]), is_mirror=False)
    begun = copied_here(store)
    foreign = next((found.key for found in store.list() if not found.key.startswith(OURS)), None)
    if begun != source.id and foreign is not None:
        raise NotAVault(f"{store.url} is not empty: it holds {foreign}; nothing was changed")
    config = {"id": source.id, "version": source.version}
    if with_new_key:
        return FarEnd(OpenVault(proving, MasterKey.random(), config), is_mirror=False)
    return FarEnd(OpenVault(proving, source.files.key, config), is_mirror=True, is_new=True)


@dataclass(frozen=True)
class CopiedPoint:
    """A point that was, or would be, copied: the names of its snapshot record here and at the far end."""

    label: str
    name: str
    far_name: str | None = None


@dataclass
class Copied:
    """What a copy did, or in a dry run would do.

    ``only_there``: snapshot records of the far end that the source no longer has; left alone. ``lost``: packs that the
    far end names, does not hold, and could not be given. ``damaged``: stored objects of the source that are not what
    their names say. ``affected``: points that were therefore not copied, each with the first path concerned.
    """

    is_mirror: bool
    points: list[CopiedPoint] = field(default_factory=list)
    there_already: int = 0
    objects: int = 0
    """Packs of a mirror, else blobs."""
    moved_bytes: int = 0
    added_bytes: int = 0
    only_there: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    damaged: dict[str, list[str]] = field(default_factory=dict)
    affected: dict[str, str] = field(default_factory=dict)

    def raise_if_damaged(self) -> None:
        """See that everything asked for was copied.

        Raises:
            IntegrityError: Something was not; the message names the damage.
        """
        if self.damaged or self.lost:
            named = next(iter(self.damaged or self.lost))
            raise IntegrityError(
                f"{len(self.damaged) + len(self.lost)} stored objects are damaged, the first is {named}; "
                f"{len(self.affected)} points were not copied",
                guidance="Do not prune. Verify both vaults: refloat verify names every point that is affected.",
            )


def copy(
    source: OpenVault,
    far: FarEnd,
    *,
    application: str | None = None,
    points: Sequence[str] = (),
    dry_run: bool = False,
) -> Copied:
    """Copy points that the far end lacks: all, those of one application, or those whose ids begin as ``points`` say.

    Without a choice other programs' snapshots are copied too. Both vaults are locked, not exclusively, while it runs.

    Raises:
        NoEligibleRecoveryPoint: Nothing is of that application, or begins so.
        LeaseHeld: Somebody prunes one of the vaults.
        IntegrityError: An index file is damaged; or the far end does not give back what was stored.
        ProviderError: A store does not answer.
    """
    with ExitStack() as held:
        if not dry_run:
            run = new_id()
            held.enter_context(source.lock(run))
            if far.is_new:
                begin_mirror(source, far.vault)
            held.enter_context(far.vault.lock(run))
        work = _Copy(source, far, application, points)
        return work.plan() if dry_run else work.run()


class _Copy:
    """One run of ``copy``: snapshot records are listed before any index is read."""

    def __init__(self, source: OpenVault, far: FarEnd, application: str | None, points: Sequence[str]) -> None:
        self._source, self._far = source, far
        self._result = Copied(far.is_mirror)
        self._records = self._read_records(application, points)
        self._there = self._read_there()
        self._index = source.index(is_fresh=True)
        far.vault.index(is_fresh=True)
        self._findings = Findings(self._index)
        self._mirror = Mirror(source, far.vault, is_new=far.is_new) if far.is_mirror else None
        self._lost = self._mirror.lost() if self._mirror else []
        known = [record for record in self._records if _origins(record) & self._there]
        self._new = [record for record in self._records if not _origins(record) & self._there]
        self._result.there_already = len(known)
        self._walked = self._new + (known if self._lost else [])
        self._reach, self._met = self._walk()

    def _read_records(self, application: str | None, points: Sequence[str]) -> list[AnyRecord]:
        self._names, records = set[str](), []
        for name, text in read_each(self._source, FileKind.SNAPSHOT):
            self._names.add(name)
            try:
                if isinstance(text, IntegrityError):
                    raise text
                records.append(read_any_record(name, text))
            except IntegrityError as wrong:
                self._result.damaged[key_of(FileKind.SNAPSHOT, name)] = [wrong.message]
        return sorted(_chosen(self._source.url, records, application, points), key=lambda each: (each.time, each.name))

    def _read_there(self) -> set[tuple[str, bytes]]:
        found = set()
        for name, text in read_each(self._far.vault, FileKind.SNAPSHOT):
            try:
                if isinstance(text, IntegrityError):
                    raise text
                found |= _origins(read_any_record(name, text))
            except IntegrityError:
                self._result.lost.append(key_of(FileKind.SNAPSHOT, name))
            if self._far.is_mirror and name not in self._names:
                self._result.only_there.append(name)
        return found

    def _walk(self) -> tuple[Reach, dict[str, str]]:
        """What the points need, and the first damaged path of each that needs something damaged."""
        reach, met = Reach(BlobReader(self._source.files, self._index), self._index, self._findings), {}
        for record in self._walked:
            paths = reach.walk(record.tree)
            if paths:
                met[record.name] = next(iter(paths.values()))
        return reach, met

    def plan(self) -> Copied:
        """What would be done."""
        if self._mirror:
            packs = self._mirror.missing(self._reach)
            self._result.objects = len(packs)
            self._result.moved_bytes = sum(map(self._index.pack_bytes, packs))
        else:
            work = Resealing(self._source, self._far.vault)
            self._result.objects, self._result.moved_bytes = work.missing(self._reach)
        return self._concluded({})

    def run(self) -> Copied:
        """Move, name, list."""
        far_names = self._run_mirror(self._mirror) if self._mirror else self._run_resealing()
        return self._concluded(far_names)

    def _run_mirror(self, mirror: Mirror) -> dict[str, str]:
        packs = mirror.missing(self._reach)
        told = _Told(sum(map(self._index.pack_bytes, packs)))
        self._result.objects = mirror.move_packs(packs, self._findings, told)
        mirror.name_packs(packs)
        self._lost = [pack for pack in self._lost if pack not in mirror.packs]
        mirror.open_up()
        self._result.moved_bytes = self._result.added_bytes = told.done_bytes
        return {record.name: mirror.seal(record.name) for record in self._whole()}

    def _run_resealing(self) -> dict[str, str]:
        work = Resealing(self._source, self._far.vault)
        self._result.objects, size = work.missing(self._reach)
        told = _Told(size)
        self._result.added_bytes = work.move_blobs(self._reach, self._findings, told)
        self._result.moved_bytes = told.done_bytes
        return {record.name: work.seal(record) for record in self._whole()}

    def _whole(self) -> list[AnyRecord]:
        """The new points nothing of which is damaged."""
        if self._findings.objects:
            _, self._met = self._walk()
        return [record for record in self._new if record.name not in self._met]

    def _concluded(self, far_names: dict[str, str]) -> Copied:
        result = self._result
        for record in self._new:
            if record.name in self._met:
                result.affected[record.label] = self._met[record.name]
            else:
                result.points.append(CopiedPoint(record.label, record.name, far_names.get(record.name)))
        result.damaged.update({key: found.reasons for key, found in self._findings.objects.items()})
        result.lost += [key_of(FileKind.PACK, pack.hex()) for pack in self._lost]
        return result


def _origins(record: AnyRecord) -> set[tuple[str, bytes]]:
    """By what a record is known again elsewhere: its name or its first name, and its tree."""
    return {(name, record.tree) for name in (record.name, record.origin) if name}


def _chosen(url: str, records: list[AnyRecord], application: str | None, points: Sequence[str]) -> list[AnyRecord]:
    if application is not None:
        records = [each for each in records if each.ours is not None and each.ours.application == application]
        if not records:
            raise NoEligibleRecoveryPoint(f"{url} holds no recovery point of {application}")
    if not points:
        return records
    chosen: dict[str, AnyRecord] = {}
    for start in points:
        found = [each for each in records if start and _begins(each, start)]
        if not found:
            raise NoEligibleRecoveryPoint(f"{url} holds no recovery point {start!r}")
        chosen |= {each.name: each for each in found}
    return list(chosen.values())


def _begins(record: AnyRecord, start: str) -> bool:
    own = record.ours.point_id if record.ours else None
    return record.name.startswith(start) or bool(own and own.startswith(start))


class _Told:
    """Tells listeners how far the copy is."""

    def __init__(self, total_bytes: int) -> None:
        self.done_bytes, self._total = 0, total_bytes
        self._begun = monotonic_seconds()
        self(0)

    def __call__(self, moved_bytes: int) -> None:
        self.done_bytes += moved_bytes
        seconds = monotonic_seconds() - self._begun
        progress = Progress(
            volume="copy",
            bytes_done=self.done_bytes,
            bytes_total=self._total,
            bytes_per_second=round(self.done_bytes / seconds, 1) if seconds > 0 else 0.0,
            is_last=self.done_bytes >= self._total,
        )
        emit(Event("copy", "moved", progress=progress))
