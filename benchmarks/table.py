"""The tables: medians, spread and ratios of what was measured, and what the issue's numbers say to them."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from benchmarks.goals import PEAK, WORKS, Goal, goals_of
from benchmarks.rounds import Measured, Sample

MB = 1e6
HEAD = (
    f"{'':13}{'tool':9}{'seconds, median (range)':27}{'CPU s':>8}{'peak MB':>9}{'stored MB':>11}{'speed':>8}{'size':>7}"
)


@dataclass(frozen=True)
class Row:
    """One work of one tool: medians, but of memory the largest. Ratios are the tool's by refloat's: None of itself,
    of what has no such number, and where refloat has none.
    """

    work: str
    tool: str
    seconds: list[float]
    cpu_seconds: float
    peak_bytes: int
    stored_bytes: float | None
    speed_ratio: float | None
    size_ratio: float | None

    @property
    def median_seconds(self) -> float:
        """Of all rounds."""
        return statistics.median(self.seconds)

    def text(self) -> str:
        """One line of the table."""
        span = f"{self.median_seconds:.2f} ({min(self.seconds):.2f}-{max(self.seconds):.2f})"
        stored = "" if self.stored_bytes is None else f"{self.stored_bytes / MB:.1f}"
        ratios = ["" if each is None else f"{each:.2f}" for each in (self.speed_ratio, self.size_ratio)]
        start = f"{self.work:13}{self.tool:9}{span:27}{self.cpu_seconds:>8.2f}{self.peak_bytes / MB:>9.0f}"
        return f"{start}{stored:>11}{ratios[0]:>8}{ratios[1]:>7}"


def stored(samples: list[Sample]) -> float | None:
    """Median growth of the repository in bytes."""
    known = [each.stored_bytes for each in samples if each.stored_bytes is not None]
    return statistics.median(known) if known else None


def ratio(theirs: float | None, ours: float | None) -> float | None:
    """Above 1: ours is less."""
    return theirs / ours if theirs is not None and ours else None


def rows_of(found: Measured) -> list[Row]:
    """In the order of the works, refloat first."""
    rows = []
    for work in WORKS:
        tools = sorted((t for w, t in found.samples if w == work), key=lambda name: (name != "refloat", name))
        ours = found.samples.get((work, "refloat"), [])
        for tool in tools:
            samples = found.samples[work, tool]
            seconds = [each.spent.seconds for each in samples]
            is_peer = tool != "refloat" and bool(ours)
            rows.append(
                Row(
                    work=work,
                    tool=tool,
                    seconds=seconds,
                    cpu_seconds=statistics.median(each.spent.cpu_seconds for each in samples),
                    peak_bytes=max(each.spent.peak_bytes for each in samples),
                    stored_bytes=stored(samples),
                    speed_ratio=ratio(statistics.median(seconds), statistics.median(e.spent.seconds for e in ours))
                    if is_peer
                    else None,
                    size_ratio=ratio(stored(samples), stored(ours)) if is_peer else None,
                )
            )
    return rows


@dataclass(frozen=True)
class Outcome:
    """A goal beside what was found; ``value`` is None where nothing was, and ``why`` says why."""

    goal: Goal
    value: float | None
    why: str = ""

    def text(self) -> str:
        """One line."""
        goal = self.goal
        what = f"{goal.set:9}{goal.work:13}{goal.quantity:9}{'' if goal.peer == PEAK else 'x ' + goal.peer:10}"
        if self.value is None:
            return f"{what}{self.why}"
        is_peak = goal.quantity == "peak"
        must, aim = goal.judge(self.value)
        number = f"{self.value / MB:.0f} MB" if is_peak else f"{self.value:.2f}"
        bars = [f"{bar / MB:.0f} MB" if is_peak else f"{bar:g}" for bar in (goal.must, goal.aim or 0)]
        line = f"{what}{number:>8}   must {bars[0]:>7} {must:7}"
        return f"{line}   aim {bars[1]:>7} {aim}" if aim else line.rstrip()


def outcomes(set_name: str, rows: list[Row], absent: dict[str, str]) -> list[Outcome]:
    """Every goal of a set. ``absent``: tools that did not run or failed, and why: their goals are open."""
    by = {(row.work, row.tool): row for row in rows}
    found = []
    for goal in goals_of(set_name):
        tool = "refloat" if goal.peer == PEAK else goal.peer
        row = by.get((goal.work, tool))
        why = absent.get("refloat") or absent.get(tool)
        value = None
        if row is not None and why is None:
            value = {"seconds": row.speed_ratio, "stored": row.size_ratio, "peak": float(row.peak_bytes)}[goal.quantity]
        found.append(Outcome(goal, value, why or "NOT RUN: nothing was measured"))
    return found
