"""The rounds: every tool does the same work on the same data, in another order each time, and is checked."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.comparing import compare_bytes, compare_folders
from benchmarks.places import Place, S3Server
from benchmarks.sets import DataSet
from benchmarks.spent import Failed, Spent
from benchmarks.tools import DEVICE, Refloat, Tool

Judge = Callable[[Place], None]


@dataclass(frozen=True)
class Sample:
    """One run of one tool. ``stored_bytes``: by how much it made the repository grow; None of a restore."""

    spent: Spent
    stored_bytes: int | None = None


@dataclass
class Measured:
    """What was found of one set: samples by work and tool, and why a tool has none or no more of them."""

    samples: dict[tuple[str, str], list[Sample]] = field(default_factory=lambda: defaultdict(list))
    failed: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Rounds:
    """One set's rounds. ``judge`` is stock restic reading all of refloat's vault, or None where there is no restic."""

    data_set: DataSet
    tools: list[Tool]
    source: Path
    folder: Path
    server: S3Server | None
    judge: Judge | None

    def run(self, say: Callable[[str], None]) -> Measured:
        """All rounds. A tool that fails is out, and its error is kept; the others go on."""
        found = Measured()
        for number in range(self.data_set.rounds):
            turn = number % len(self.tools)
            alive = [each for each in self.tools[turn:] + self.tools[:turn] if each.name not in found.failed]
            say(f"{self.data_set.name}: round {number + 1} of {self.data_set.rounds}")
            self._round(number, alive, found)
        shutil.rmtree(self.folder / "restored", ignore_errors=True)
        return found

    def _round(self, number: int, tools: list[Tool], found: Measured) -> None:
        places = {tool.name: self._place(tool, number) for tool in tools}

        def each(work: Callable[[Tool], None]) -> None:
            for tool in tools:
                if tool.name not in found.failed:
                    try:
                        work(tool)
                    except Failed as error:
                        found.failed[tool.name] = str(error)

        def backup(tool: Tool, work: str) -> None:
            before = places[tool.name].stored_bytes()
            spent = tool.backup(self.source)
            found.samples[work, tool.name].append(Sample(spent, places[tool.name].stored_bytes() - before))

        def restore(tool: Tool) -> None:
            target = self.folder / "restored" / f"{tool.name}-{number}"
            target.parent.mkdir(exist_ok=True)
            try:
                found.samples["restore", tool.name].append(Sample(tool.restore(target)))
                self._compare(target, is_whole=number == 0)
            finally:
                if not self.data_set.has_many_files:  # else at the end: see ``warm_up``
                    shutil.rmtree(target, ignore_errors=True)

        try:
            each(lambda tool: tool.prepare(places[tool.name]))
            each(lambda tool: backup(tool, "first"))
            self.data_set.change(self.source, number + 1)
            each(lambda tool: backup(tool, "incremental"))
            each(restore)
            if number == 0:
                each(lambda tool: self._judge(tool, places[tool.name], found))
        finally:
            for place in places.values():
                place.remove()

    def _place(self, tool: Tool, number: int) -> Place:
        home = self.folder / f"{tool.name}-{number}"
        bucket = self.server.bucket(f"{self.data_set.name}-{tool.name}-{number}") if self.server else None
        return Place(home, bucket)

    def _compare(self, target: Path, *, is_whole: bool) -> None:
        if not self.data_set.device_bytes:
            compare_folders(self.source, target, is_whole=is_whole)
        elif is_whole:
            compare_bytes(self.source, target / DEVICE)

    def _judge(self, tool: Tool, place: Place, found: Measured) -> None:
        if not isinstance(tool, Refloat):
            return
        if self.judge is None:
            found.remarks.append("stock check of refloat's vault: NOT RUN: no stock restic")
            return
        tool.seal()
        self.judge(place)
        found.remarks.append("stock restic check --read-data of refloat's vault: no errors")
