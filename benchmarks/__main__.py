"""`make bench`: refloat's vault beside stock restic, the same data in the same run, medians and ratios.

Usage: python -m benchmarks [--size MIB] [--files N] [--rounds N] [--json FILE]. Each round runs both tools on fresh
repositories in a folder; the page cache holds the data, so this measures the tools and not the disk.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from benchmarks import data
from benchmarks.tools import Refloat, Restic, Tool


def measure(
    tools: list[Tool], source: Path, work: Path, mutate: Callable[[], None] | None
) -> dict[str, dict[str, float]]:
    """One round: every tool's first backup, second backup after the change, and restore; seconds and stored bytes."""
    found: dict[str, dict[str, float]] = {tool.name: {} for tool in tools}

    def timed(tool: Tool, what: str, work_of: Callable[[], None]) -> None:
        begun = monotonic()
        work_of()
        found[tool.name][what] = monotonic() - begun

    for tool in tools:
        tool.prepare(work / tool.name)
        timed(tool, "first", lambda t=tool: t.backup(source))
        found[tool.name]["stored"] = tool.stored_bytes()
    if mutate:
        mutate()
        for tool in tools:
            timed(tool, "incremental", lambda t=tool: t.backup(source))
            found[tool.name]["growth"] = tool.stored_bytes() - found[tool.name]["stored"]
    for tool in tools:
        target = work / f"{tool.name}-restored"
        timed(tool, "restore", lambda t=tool, to=target: t.restore(to))
        same = all(
            (target / p.relative_to(source)).stat().st_size == p.stat().st_size
            for p in source.rglob("*")
            if p.is_file()
        )
        if not same:
            sys.exit(f"{tool.name} restored something else than it was given")
        shutil.rmtree(target)
        shutil.rmtree(work / tool.name)
    return found


def show(title: str, rounds: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Print medians, spread and the ratio restic / refloat (above 1: refloat is faster or smaller)."""
    print(f"\n{title}\n{'':14}{'refloat':>22}{'restic':>22}{'ratio':>8}")
    table: dict[str, dict[str, float]] = {}
    for what in rounds[0]["refloat"]:
        values = {name: [each[name][what] for each in rounds] for name in ("refloat", "restic")}
        middle = {name: statistics.median(v) for name, v in values.items()}
        ratio = middle["restic"] / middle["refloat"] if middle["refloat"] else float("inf")
        cells = [f"{middle[n]:.2f} ({min(v):.2f}-{max(v):.2f})" for n, v in values.items()]
        if what in ("stored", "growth"):
            cells = [f"{middle[n] / data.MIB:.1f} MiB" for n in values]
        print(f"{what:14}{cells[0]:>22}{cells[1]:>22}{ratio:>8.2f}")
        table[what] = {**middle, "ratio": ratio}
    return table


def main() -> None:
    """Make data, run the rounds, print, and write JSON when asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--size", type=int, default=512, help="MiB of database-like data")
    parser.add_argument("--files", type=int, default=5000, help="number of small files")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    restic = Restic.find()
    if restic is None:
        sys.exit("bench: NOT RUN: no stock restic to compare with (make test puts one into .tools/bin)")
    tools: list[Tool] = [Refloat(), restic]
    print(f"refloat beside {restic.version()}")
    results = {}
    with tempfile.TemporaryDirectory(prefix="refloat-bench-") as folder:
        big, many, work = Path(folder) / "big", Path(folder) / "many", Path(folder) / "work"
        data.database(big, args.size * data.MIB)
        rounds = []
        for _ in range(args.rounds):
            rounds.append(measure(tools, big, work, lambda: data.change(big, 0.02)))
            tools.reverse()
        results["database"] = show(f"{args.size} MiB database-like; seconds, median of {args.rounds} (range)", rounds)
        shutil.rmtree(big)
        data.small(many, args.files)
        rounds = [measure(tools, many, work, None) for _ in range(args.rounds)]
        results["small"] = show(f"{args.files} small files; seconds, median of {args.rounds} (range)", rounds)
    if args.json:
        args.json.write_text(json.dumps({"peer": restic.version(), "results": results}, indent=2))


if __name__ == "__main__":
    main()
