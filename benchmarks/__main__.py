"""`make bench`: refloat's mover beside stock restic and kopia, the same data in the same run; medians and ratios.

Usage: python -m benchmarks [--quick] [--only SETS] [--size MIB] [--files N] [--rounds N] [--folder DIR] [--json FILE].
What is asked is issue 4's table (benchmarks/goals.py). The page cache holds the data: tools are measured, not the disk.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import monotonic

from benchmarks.goals import SETS
from benchmarks.machine import disk_folder, facts
from benchmarks.peers import Kopia, Restic
from benchmarks.places import S3Server, s3_server
from benchmarks.rounds import Measured, Rounds
from benchmarks.sets import QUICK, WHOLE, DataSet, data_sets, source_of, warm_up
from benchmarks.spent import Failed
from benchmarks.table import HEAD, outcomes, rows_of
from benchmarks.tools import Mode, Refloat, Tool, copy_app
from tests.tools import kopia, restic, versitygw


@dataclass
class Bench:
    """All sets, one after another. ``missing``: programs that could not be had, and why."""

    folder: Path
    app: Path
    missing: dict[str, str]
    results: dict[str, object] = field(default_factory=dict)
    judged: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def run(self, data_set: DataSet) -> None:
        """One set: its data, its rounds, its table."""
        absent = {name: f"NOT RUN: {self.missing[name]}" for name in data_set.peers if name in self.missing}
        found = Measured()
        if data_set.is_on_s3 and "versitygw" in self.missing:
            absent = dict.fromkeys(("refloat", *data_set.peers), f"NOT RUN: {self.missing['versitygw']}")
        else:
            try:
                found = self._measure(data_set)
            except Failed as error:
                found.failed = dict.fromkeys(("refloat", *data_set.peers), str(error))
        self._show(data_set, found, {**absent, **{name: f"FAILED: {why}" for name, why in found.failed.items()}})

    def _measure(self, data_set: DataSet) -> Measured:
        tools = self._tools(data_set)
        with ExitStack() as stack:
            source, remark = stack.enter_context(source_of(data_set, self.folder))
            server = stack.enter_context(self._server()) if data_set.is_on_s3 else None
            warm_up(data_set, source, self.folder, len(tools))
            judge = next((each.judge for each in tools if isinstance(each, Restic)), None)
            found = Rounds(data_set, tools, source, self.folder, server, judge).run(_say)
        found.remarks.extend([remark] if remark else [])
        return found

    def _server(self) -> AbstractContextManager[S3Server]:
        return s3_server(str(versitygw.find()), self.folder / "server")

    def versions(self) -> dict[str, str]:
        """Of all tools that are there, in their own words."""
        return {tool.name: tool.version() for tool in (Refloat(self.app), *self._peers("folder"))}

    def _tools(self, data_set: DataSet) -> list[Tool]:
        mode: Mode = "device" if data_set.device_bytes else "folder"
        return [Refloat(self.app, mode), *(peer for peer in self._peers(mode) if peer.name in data_set.peers)]

    def _peers(self, mode: Mode) -> list[Tool]:
        peers: list[Tool] = [] if "restic" in self.missing else [Restic(str(restic.find()), mode)]
        return peers if "kopia" in self.missing else [*peers, Kopia(str(kopia.find()))]

    def _show(self, data_set: DataSet, found: Measured, absent: dict[str, str]) -> None:
        rows = rows_of(found)
        found_goals = outcomes(data_set.name, rows, absent)
        print(f"\n{data_set.name}: {data_set.title}; {data_set.rounds} rounds\n{HEAD}")
        for line in [row.text() for row in rows] + [f"{'':13}{name:9}{why}" for name, why in absent.items()]:
            print(line)
        for remark in found.remarks:
            print(f"{'':13}{remark}")
        self.judged.extend(each.text() for each in found_goals)
        self.failed.extend(f"{data_set.name}: {name}: {why}" for name, why in found.failed.items())
        self.results[data_set.name] = {
            "title": data_set.title,
            "rounds": data_set.rounds,
            "rows": [{**asdict(row), "median_seconds": row.median_seconds} for row in rows],
            "absent": absent,
            "remarks": found.remarks,
            "goals": [{**asdict(each.goal), "value": each.value, "why": each.why} for each in found_goals],
        }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _missing() -> dict[str, str]:
    """Get what is not there; the programs that cannot be had, and why."""
    reasons = {"restic": restic.provide(), "kopia": kopia.provide(), "versitygw": versitygw.provide()}
    return {name: why for name, why in reasons.items() if why is not None}


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; ``sets`` are the sets to run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=(__doc__ or "").split("\n", maxsplit=1)[0]
    )
    parser.add_argument("--quick", action="store_true", help="all sets, small, in about three minutes")
    parser.add_argument("--only", help=f"sets, with commas between them: {','.join(SETS)}")
    parser.add_argument("--size", type=int, metavar="MIB", help="of the database and of the device (default 4096)")
    parser.add_argument("--files", type=int, metavar="N", help="number of small files (default 50000)")
    parser.add_argument("--rounds", type=int, metavar="N", help="of every set (default 3)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where the data is made, on disk")
    parser.add_argument("--json", type=Path, metavar="FILE", help="leave everything that was measured there")
    given = parser.parse_args(words)
    only = given.only.split(",") if given.only else list(SETS)
    if unknown := [name for name in only if name not in SETS]:
        parser.error(f"no such set: {', '.join(unknown)}; there are {', '.join(SETS)}")
    sizes = QUICK if given.quick else WHOLE
    if given.size:
        sizes = replace(sizes, big=given.size, s3_big=given.size, device=given.size)
    if given.files:
        sizes = replace(sizes, small=given.files, s3_small=given.files)
    if given.rounds:
        sizes = replace(sizes, rounds=given.rounds, other_rounds=given.rounds)
    given.sets = [each for each in data_sets(sizes) if each.name in only]
    given.is_whole = sizes == WHOLE
    return given


def main() -> int:
    """Run what was asked, print, and write JSON after every set; 1 when a tool failed."""
    given, begun = parse(), monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that nothing is left behind
    missing = _missing()
    parent = given.folder or disk_folder(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix="refloat-bench-", dir=parent) as name:
        bench = Bench(Path(name), Path(name) / "app", missing)
        copy_app(bench.app)
        about, versions = facts(bench.folder), bench.versions()
        print("\n".join([*versions.values(), *(f"{key}: {value}" for key, value in about.items())]))
        print("seconds and CPU are medians, memory is the largest; speed and size: the peer's by refloat's")
        for data_set in given.sets:
            bench.run(data_set)
            if given.json:
                record = {"machine": about, "versions": versions, "missing": missing, "results": bench.results}
                given.json.write_text(json.dumps({**record, "seconds": monotonic() - begun}, indent=2))
    print("\nwhat issue 4 asks" + ("" if given.is_whole else " (of other sizes or rounds: here an indication)"))
    print("\n".join(bench.judged))
    print(f"\n{monotonic() - begun:.0f} seconds")
    for each in bench.failed:
        _say(f"FAILED: {each}")
    return 1 if bench.failed else 0


if __name__ == "__main__":
    sys.exit(main())
