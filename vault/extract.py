"""Extract: a tree → a folder that equals it. Workers visit folders; the mover hands out those and pieces of files.

Safe to begin again: what is there already is compared by content and kept or replaced; what is not in the tree goes.
Every byte is verified against its id before it is written. Folders get their facts last, deepest first.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self

from refloat.errors import ConfigError
from refloat.folder_facts import FolderFacts
from vault import placing
from vault.crew import Crew, cores, crew_of
from vault.disk import apply_facts, shown, translated
from vault.files import Reopen, SealedFiles
from vault.filling import FileFill
from vault.folders import OPEN_FOLDER, Folders
from vault.nodes import DIR, Node
from vault.pouring import Job, Made, Pour, Pourer, Slice, Visit
from vault.reading import BlobReader
from vault.repository import OpenVault
from vault.tally import Tally

SYNC_BYTES = 64 << 20
"""Small files that are written go to their disk when they are so many."""
MOST_FOLDERS = 32
"""Folders that one worker visits at once; few at first, so that all workers have some."""


@dataclass(frozen=True)
class Extracted:
    """What was brought back: regular files, and the sum of their sizes."""

    files: int
    data_bytes: int


def extract(
    vault: OpenVault,
    tree: str,
    root: Path,
    tally: Tally,
    *,
    top: FolderFacts | None = None,
    reopen: Reopen | None = None,
) -> Extracted:
    """Make a folder equal to a tree, on all cores when the store can be opened again; ``top`` are the facts the folder
    itself gets.

    Raises:
        ConfigError: There is no such folder.
        IntegrityError: The vault does not hold the tree, or data of it is damaged.
        StoreFull: The volume is too small.
        AccessDenied: The mover may not make what the tree holds.
        Interrupted: The tally was told to stop.
    """
    try:
        folder = os.open(root, OPEN_FOLDER)
    except OSError as error:
        raise ConfigError(f"{root} is no folder that can be filled: {error.strerror}") from error
    index = vault.index()

    def worker() -> Pourer:
        files = SealedFiles(reopen(), vault.files.key) if reopen else vault.files
        return Pourer(files, index, folder, owns_store=reopen is not None)

    try:
        with translated(f"{root} cannot be filled"):
            with crew_of(worker, is_forkable=reopen is not None, still=tally.add) as crew, _Syncing(folder) as syncing:
                work = _Extract(vault, folder, crew, tally, syncing)
                work.run(bytes.fromhex(tree))
            if top is not None:
                node = Node(b"", DIR, 0, uid=0, gid=0, mtime=0, ctime=0)
                apply_facts(node, top)
                placing.set_node_facts(folder, node)
            placing.sync(folder)
    finally:
        os.close(folder)
    return Extracted(work.files, work.data_bytes)


class _Syncing:
    """Brings what is written to its disk while more is written, so that little is left to wait for in the end."""

    def __init__(self, folder: int) -> None:
        self._folder = folder
        self._under_way: Future[None] | None = None
        self._waiting_bytes = 0

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="sync")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        if error is None and self._under_way is not None:
            self._under_way.result()

    def wrote(self, data_bytes: int) -> None:
        """So much more is written.

        Raises:
            OSError: Something that was written before did not come to the disk; the system says so only once.
        """
        self._waiting_bytes += data_bytes
        if self._waiting_bytes < SYNC_BYTES or (self._under_way is not None and not self._under_way.done()):
            return
        if self._under_way is not None:
            self._under_way.result()
        self._waiting_bytes = 0
        self._under_way = self._pool.submit(placing.sync, self._folder)


class _Folder:
    """A folder that is being filled; once everything in it is complete it gets its facts."""

    def __init__(self, above: _Folder | None, node: Node | None, path: bytes, tree: bytes) -> None:
        self.above, self.node, self.path, self.tree = above, node, path, tree
        self.pending = 1  # the visit itself


class _Pieces:
    """A file of which pieces are handed out; ``pending`` counts them, and one until all are."""

    def __init__(self, folder: _Folder, fill: FileFill, jobs: Generator[Pour, None, None]) -> None:
        self.folder, self.fill, self.jobs = folder, fill, jobs
        self.pending = 1


class _Extract:
    """One run of ``extract``."""

    def __init__(self, vault: OpenVault, root: int, crew: Crew[Job, Made], tally: Tally, syncing: _Syncing) -> None:
        self._reader = BlobReader(vault.files, vault.index())
        self._folders, self._crew, self._tally, self._syncing = Folders(root), crew, tally, syncing
        self._links: dict[tuple[int, int], tuple[bytes, bytes, bytes]] = {}
        self._unvisited: list[_Folder] = []
        self._slices: deque[tuple[_Folder, Slice]] = deque()
        self._apart: deque[tuple[_Folder, Node]] = deque()
        self._lanes: list[_Pieces | None] = [None] * crew.lanes
        self._fitting = MOST_FOLDERS
        self.files = self.data_bytes = 0

    def run(self, tree: bytes) -> None:
        """Fill the root."""
        try:
            self._unvisited.append(_Folder(None, None, b"", tree))
            while self._next() or self._crew.wait():
                self._tally.add()
            self._crew.finish(self._count)
        finally:
            for pieces in filter(None, self._lanes):
                pieces.jobs.close()
            self._folders.close()

    def _next(self) -> bool:
        """Hand out one more job; False when there is none until an answer comes."""
        if any(self._next_piece(lane) for lane in range(len(self._lanes)) if self._crew.has_room(lane)):
            return True
        if self._slices:
            folder, job = self._slices.popleft()
            self._crew.do(job, partial(self._sliced, folder))
        elif self._unvisited:
            many = min(self._fitting, -(-len(self._unvisited) // (4 * cores())))
            folders, self._unvisited = self._unvisited[-many:], self._unvisited[:-many]
            visit = Visit([(folder.path, folder.tree) for folder in folders])
            self._crew.do(visit, partial(self._visited, folders))
        else:
            return False
        return True

    def _next_piece(self, lane: int) -> bool:
        """Give a worker a piece of a file of its own, for two that write one file wait for each other; when there is no
        further file, a piece of another's.
        """
        while (pieces := self._pieces_for(lane)) is not None:
            job = next(pieces.jobs, None)
            if job is not None:
                pieces.pending += 1
                self._crew.do(job, partial(self._poured, pieces), lane)
                return True
            self._lanes = [None if each is pieces else each for each in self._lanes]
            self._end_piece(pieces)
        return False

    def _pieces_for(self, lane: int) -> _Pieces | None:
        while self._lanes[lane] is None and self._apart:
            self._begin_apart(*self._apart.popleft(), lane)
        return self._lanes[lane] or next(filter(None, self._lanes), None)

    def _visited(self, folders: list[_Folder], answer: Made) -> None:
        self._count(answer)
        fitting = [not entered.slices for entered in answer.folders]
        # a folder too many is looked at twice: once for its names, once more for its files
        self._fitting = min(self._fitting + 1, MOST_FOLDERS) if all(fitting) else max(1, fitting.index(False))
        for folder, entered in zip(folders, answer.folders, strict=True):
            for node in entered.below:
                folder.pending += 1
                self._unvisited.append(_Folder(folder, node, _joined(folder.path, node.name), node.subtree))
            for node in entered.apart:
                folder.pending += 1
                self._apart.append((folder, node))
            for start, end in entered.slices:
                folder.pending += 1
                self._slices.append((folder, Slice(folder.path, folder.tree, start, end)))
            self._release(folder)

    def _sliced(self, folder: _Folder, answer: Made) -> None:
        self._count(answer)
        self._release(folder)

    def _count(self, answer: Made) -> None:
        self.files += answer.files
        self.data_bytes += answer.data_bytes
        self._tally.add(files=answer.files, data_bytes=answer.data_bytes)
        self._syncing.wrote(answer.data_bytes)

    def _begin_apart(self, folder: _Folder, node: Node, lane: int) -> None:
        """A file of several blobs or names: one more name of a file that is there, or one to be filled by pieces."""
        self.files += 1
        self.data_bytes += node.size
        here = self._folders.file(folder.path)
        if node.links > 1 and node.inode:
            own = (sha256(node.content).digest(), folder.path, node.name)
            first = self._links.setdefault((node.device_id, node.inode), own)
            if first != own and first[0] == own[0]:
                with translated(f"{shown(_joined(folder.path, node.name))} cannot be linked"):
                    placing.link(self._folders.file(first[1]), first[2], here, node.name)
                self._tally.add(data_bytes=node.size, files=1)
                self._release(folder)
                return
        fill = FileFill(self._reader, self._tally, folder.path, node)
        self._lanes[lane] = _Pieces(folder, fill, fill.jobs(here))

    def _poured(self, pieces: _Pieces, answer: Made) -> None:
        self._tally.add(data_bytes=answer.data_bytes)
        self._end_piece(pieces)

    def _end_piece(self, pieces: _Pieces) -> None:
        pieces.pending -= 1
        if not pieces.pending:
            pieces.fill.complete(self._folders.file(pieces.folder.path))
            self._tally.add(files=1)
            self._release(pieces.folder)

    def _release(self, folder: _Folder) -> None:
        """One entry of a folder is complete; the last one gives it its facts, and may complete those above too."""
        here: _Folder | None = folder
        while here is not None:
            here.pending -= 1
            if here.pending:
                return
            if here.node is not None:
                with translated(f"{shown(here.path)} cannot be given its facts"):
                    placing.set_node_facts(self._folders.file(here.path), here.node)
            here = here.above


def _joined(folder: bytes, name: bytes) -> bytes:
    return b"%s/%s" % (folder, name) if folder else name
