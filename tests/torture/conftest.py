"""How long a torture runs, and by which seed: short inside ``make test``, whole behind ``make torture``."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def rounds() -> Callable[[int, int], int]:
    """``rounds(short, whole)``: the number of rounds of this run."""
    is_whole = os.environ.get("REFLOAT_TORTURE") == "1"
    return lambda short, whole: whole if is_whole else short


@pytest.fixture
def seed(record_property: Callable[[str, object], None]) -> int:
    """The run's seed, printed so that a failure can be repeated: ``REFLOAT_SEED`` names one."""
    chosen = int(os.environ.get("REFLOAT_SEED") or random.SystemRandom().randrange(1 << 32))
    record_property("seed", chosen)
    print(f"REFLOAT_SEED={chosen}")
    return chosen


@pytest.fixture
def ram(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is such, since what is written there is synced thousands of times."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="refloat-torture-", dir=memory) as folder:
        yield Path(folder)
