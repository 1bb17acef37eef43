"""The `ChangedBlocks` contract: which parts of a raw block volume differ from an earlier volume snapshot of it.

A driver that knows this (CSI's SnapshotMetadata service, KEP-3314; RBD's and ZFS's own differences) saves a mover the
reading of everything else. A list that leaves out a change makes a copy that is wrong and looks right: it must cover
every byte that may differ, and it says since when, so that it is never used against another copy.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Protocol

from pydantic import Field

from refloat.errors import InvalidDocument
from refloat.values import Value

if TYPE_CHECKING:  # a mover reads lists, and needs nothing of what makes them
    from refloat.ports.volume_snapshotter import VolumeSnapshot

CONTRACT_VERSION = 1

Extent = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]
"""Offset and length in bytes."""


class ChangedList(Value):
    """What changed on one volume since its data was copied into a tree; the text a mover is given is its JSON.

    ``extents`` may be in any order and overlap. An empty list says that nothing changed.
    """

    since: str = Field(pattern=r"^[0-9a-f]{64}$", description="The tree that was archived from the earlier snapshot.")
    size_bytes: int = Field(ge=0, description="Size of the volume the list is about.")
    extents: tuple[Extent, ...]


class ChangedBlocks(Protocol):
    """What one kind of storage knows of the difference between two of its snapshots of one volume."""

    def changed(self, earlier: str, later: VolumeSnapshot) -> Iterable[tuple[int, int]]:
        """Extents (offset and length in bytes) that cover every byte that may differ; lazily, in any order.

        ``earlier`` is the storage's own handle of the earlier snapshot, which may be gone from the cluster.

        Raises:
            Unsupported: The storage cannot tell, or no longer knows the earlier snapshot: everything must be read.
            Unavailable: It does not answer now.
        """
        ...


def chunks_of(extents: Iterable[tuple[int, int]], size_bytes: int, chunk_bytes: int) -> bytearray:
    """One byte per chunk of a volume, 1 for each that an extent touches.

    Raises:
        InvalidDocument: An extent begins before the volume or ends beyond it: the list is about another one.
    """
    count = -(-size_bytes // chunk_bytes)
    touched = bytearray(count)
    for offset, length in extents:
        if offset < 0 or length < 0 or offset + length > size_bytes:
            raise InvalidDocument(
                f"a changed-block list names {length} bytes at {offset} of a volume of {size_bytes} bytes",
                guidance="The list is about another volume or snapshot: run again without it.",
            )
        if length:
            first, last = offset // chunk_bytes, (offset + length - 1) // chunk_bytes
            touched[first : last + 1] = b"\x01" * (last + 1 - first)
    return touched
