"""Bar: the memory of one mover is bounded at any size of the vault. The index is fed with index files as they are
stored, made on the fly, in a process that holds all a mover has imported; then it is asked.

What is simulated, whole: 10 TB as 10 million data blobs of 1 MiB in 625,000 packs of 16 (files beyond 256 GiB have
larger chunks, and fewer); 100 million files as 100 million blobs in packs of 2,048, one pack in twelve of trees. Short:
the same shapes with 300,000 blobs, of which 20,000 stay in memory.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.index_scale import Shape, in_a_child, show
from vault.blob_table import MEMORY_BLOBS

MOST_BYTES = 200_000_000
SHORT_BLOBS, SHORT_IN_MEMORY = 300_000, 20_000


@pytest.mark.parametrize(
    ("blobs", "shape"),
    [
        pytest.param(10_000_000, Shape(0, 16, 1 << 19), id="10 TB"),
        pytest.param(100_000_000, Shape(0, 2048, 1 << 13, trees_each=12), id="100 million files"),
    ],
)
def test_the_index_is_bounded_in_memory(blobs: int, shape: Shape, rounds: Callable[[int, int], int]) -> None:
    """Everything is found where it is, nothing else is found, and the process never had more than it may."""
    count = rounds(SHORT_BLOBS, blobs)
    in_memory = rounds(SHORT_IN_MEMORY, MEMORY_BLOBS)
    found = in_a_child(Shape(count, shape.blobs_each_pack, shape.blob_bytes, shape.trees_each, in_memory))
    show(found)
    assert found.blobs == count
    assert found.disk_bytes > 40 * count  # it did spill
    assert found.peak_bytes <= MOST_BYTES
