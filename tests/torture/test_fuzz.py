"""Bar 7: fuzzed vault files: a clear named error or proper success, no traceback, no hang, bounded memory.

The cases run in processes of their own (``tests.torture.fuzzing``), which this one watches from outside.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

ROOT = Path(__file__).parents[2]
HANG_SECONDS = 5
START_SECONDS = 60
MOST_BYTES = 512 << 20
BATCH = 1000
"""Cases per process."""


def _lines(stream: IO[str]) -> Iterator[dict[str, Any]]:
    """Lines of JSON as they come; ``TimeoutError`` when none comes for as long as a hang."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in stream:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    limit = START_SECONDS
    while True:
        try:
            line = lines.get(timeout=limit)
        except queue.Empty as none:
            raise TimeoutError(f"no word for {limit} s") from none
        if line is None:
            return
        limit = HANG_SECONDS * 2  # the case itself says how long it took; this ends one that says nothing
        yield json.loads(line)


def _run(seed: int, count: int, folder: Path) -> tuple[list[dict[str, Any]], int]:
    """The cases of one process, each with name, errors, trace and seconds; and its peak memory."""
    folder.mkdir()
    words = [sys.executable, "-m", "tests.torture.fuzzing", str(seed), str(count), str(folder)]
    cases: list[dict[str, Any]] = []
    peak = 0
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            for told in _lines(process.stdout):
                if "name" in told:
                    cases.append(told)
                elif "case" in told:
                    cases[-1].update(told)
                else:
                    peak = told["peak_bytes"]
        except TimeoutError as hang:
            pytest.fail(f"seed {seed}, {cases[-1:]}: {hang}")
        finally:
            process.kill()
        assert peak, f"seed {seed}: the process ended in {cases[-1:]}: {process.stderr.read()[-2000:]}"
    return cases, peak


@pytest.mark.timeout(3600)
def test_fuzzed_files_end_in_named_errors(rounds: Callable[[int, int], int], seed: int, ram: Path) -> None:
    """Each kind of object, as it lies in the store and as somebody with the key could have sealed it."""
    total, told, refused, peak = rounds(200, 10_000), Counter[str](), 0, 0
    for batch, first in enumerate(range(0, total, BATCH)):
        cases, most = _run(seed + batch, min(BATCH, total - first), ram / f"batch{batch}")
        peak = max(peak, most)
        for case in cases:
            where = f"seed {seed + batch}, case {case['case']}, {case['name']}"
            assert case["trace"] is None, f"{where}\n{case['trace']}"
            assert case["seconds"] <= HANG_SECONDS, f"{where}: {case['seconds']} s"
            told[case["name"].partition(":")[0]] += 1
            refused += bool(case["refused"])
    print(f"{total} cases, {refused} refused or told as damage, peak {peak >> 20} MiB: {dict(told)}")
    assert sum(told.values()) == total
    assert refused > total // 2
    assert peak <= MOST_BYTES
