"""`DrillReport`: the evidence of one drill, as a value, and as text: Markdown, and HTML with the timeline."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from html import escape

from pydantic import AwareDatetime, Field

from refloat.duration import Duration, format_duration
from refloat.report import StepTime
from refloat.values import Consistency, Value

SIGNS = re.compile(r"[\\`\[\]<>|]")
"""What Markdown takes for code, a link, a tag or the end of a cell, in the middle of a line."""


class AssertionResult(Value):
    """One assertion as it was tried."""

    name: str
    pod: str = Field(default="", description="namespace/pod it ran in; empty: there was none.")
    passed: bool
    took: Duration = timedelta(0)
    why: str = Field(default="", description="What was wrong; empty when it passed.")
    said: str = Field(default="", description="The end of its output, secrets masked.")


class DrillReport(Value):
    """The end of a drill: what was recovered where, what was asked of it, and how long it took."""

    version: int = 1
    run: str
    application: str
    cluster: str
    point_id: str
    consistency: Consistency
    cut_at: AwareDatetime
    started_at: AwareDatetime
    namespaces: tuple[str, ...]
    isolation: tuple[str, ...] = Field(description="What was changed or left out so that nothing reaches outside.")
    steps: tuple[StepTime, ...] = ()
    evidence: tuple[str, ...] = Field(default=(), description="What the probe saw, one line a workload.")
    assertions: tuple[AssertionResult, ...] = ()
    failure: str = Field(default="", description="What ended the drill early; empty: nothing did.")
    achieved_rto: Duration | None = Field(default=None, description="Start to the last assertion; None: not recovered.")
    achieved_rpo: Duration = Field(description="From the point's cut to the drill's start.")
    rto: Duration | None = Field(default=None, description="The declared objective; None: none was given.")
    rpo: Duration | None = None
    removed: bool = Field(default=False, description="All of the drill was seen to be gone.")
    kept: bool = Field(default=False, description="Left on purpose, for a look.")
    refloat_version: str

    @property
    def missed(self) -> tuple[str, ...]:
        """Objectives that were not met, in words."""
        pairs = (("RTO", self.achieved_rto, self.rto), ("RPO", self.achieved_rpo, self.rpo))
        return tuple(
            f"{name} {format_duration(achieved)}, the objective is {format_duration(objective)}"
            for name, achieved, objective in pairs
            if achieved is not None and objective is not None and achieved > objective
        )

    @property
    def failed(self) -> tuple[str, ...]:
        """Everything that makes the drill a failed one, objectives aside."""
        wrong = [self.failure] if self.failure else []
        return (*wrong, *(f"assertion {each.name}: {each.why}" for each in self.assertions if not each.passed))

    @property
    def passed(self) -> bool:
        """Whether a recovery in earnest may be expected to succeed within its objectives."""
        return not self.failed and not self.missed


def markdown(report: DrillReport) -> str:
    """The report as an artifact and a file.

    What pods said stands in indented blocks, which nothing in it can end; all other words that are not ours are one
    line each, their Markdown signs escaped.
    """
    return "\n".join(lines(report)) + "\n"


def inline(text: str) -> str:
    """One line of somebody's words, as Markdown that shows just these (commonmark.org, backslash escapes)."""
    return SIGNS.sub(r"\\\g<0>", " ".join(text.split()))


def lines(report: DrillReport) -> Iterator[str]:
    """Of the Markdown text."""
    yield f"# Drill of {report.application}: {'passed' if report.passed else 'FAILED'}"
    yield ""
    yield from (f"- **failed** {inline(each)}" for each in report.failed)
    yield from (f"- **missed** {each}" for each in report.missed)
    yield f"- **point** {report.point_id}, {report.consistency.value}, cut {report.cut_at.isoformat()}"
    yield f"- **RTO** {told(report.achieved_rto)} (objective {told(report.rto)})"
    yield f"- **RPO** {told(report.achieved_rpo)} (objective {told(report.rpo)})"
    yield f"- **into** {', '.join(report.namespaces)} on {inline(report.cluster)}"
    yield f"- **by** run {report.run} of refloat {report.refloat_version}"
    yield f"- **afterwards** {afterwards(report)}"
    yield from ("", "| assertion | in | took | |", "| --- | --- | ---: | --- |")
    yield from (
        f"| {inline(each.name)} | {each.pod or '–'} | {format_duration(each.took)} | "
        f"{'passed' if each.passed else 'FAILED'} |"
        for each in report.assertions
    )
    yield from ("", "| step | took |", "| --- | ---: |")
    yield from (f"| {each.step} | {format_duration(each.duration)} |" for each in report.steps)
    yield from ("", "## Kept apart by", "", *(f"- {inline(each)}" for each in report.isolation))
    yield from ("", "## Seen", "", *(f"- {inline(each)}" for each in report.evidence))
    for each in report.assertions:
        if each.said:
            yield from ("", f"## Said by {inline(each.name)}", "", *(f"    {line}" for line in each.said.splitlines()))


def afterwards(report: DrillReport) -> str:
    """What became of the namespaces."""
    if report.removed:
        return "all of it was removed"
    return f"kept for a look; `refloat sweep --run {report.run}` removes it" if report.kept else "it was NOT removed"


def told(value: timedelta | None) -> str:
    """A duration, or a dash."""
    return "–" if value is None else format_duration(value)


STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "pre{background:#f4f4f4;padding:.6rem;overflow:auto}.bar{background:#4a7;height:1rem;display:inline-block}"
    ".row{display:grid;grid-template-columns:11rem 1fr 6rem;gap:.5rem;align-items:center}.bad{color:#b00}"
)


def html(report: DrillReport) -> str:
    """The report as one page with nothing in it from elsewhere; the bars show how long each step took."""
    longest = max((each.duration for each in report.steps), default=timedelta(0)) or timedelta(seconds=1)
    bars = "".join(
        f'<div class="row"><span>{escape(each.step)}</span>'
        f'<span><span class="bar" style="width:{100 * (each.duration / longest):.1f}%"></span></span>'
        f"<span>{format_duration(each.duration)}</span></div>"
        for each in report.steps
    )
    verdict = "passed" if report.passed else '<span class="bad">FAILED</span>'
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Drill of {escape(report.application)}</title>'
        f"<style>{STYLE}</style><h1>Drill of {escape(report.application)}: {verdict}</h1>"
        f"<h2>Steps</h2>{bars}<h2>Report</h2><pre>{escape(markdown(report))}</pre></html>\n"
    )
