"""A drill's report: what passes, what is missed, and pages that nothing a pod said can break."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from refloat.drill import AssertionResult, DrillReport, html, markdown
from refloat.report import StepTime
from refloat.values import Consistency

AT = datetime(2026, 11, 25, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def report(**more: object) -> DrillReport:
    """A drill that passed."""
    facts: dict[str, object] = {
        "run": "r", "application": "shop", "cluster": "c", "point_id": "p", "consistency": Consistency.APPLICATION,
        "cut_at": AT, "started_at": AT + MINUTE, "namespaces": ("shop-drill-r",), "isolation": ("closed",),
        "steps": (StepTime(step="hydrate", duration=MINUTE),), "achieved_rto": MINUTE, "achieved_rpo": MINUTE,
        "removed": True, "refloat_version": "0",
    }  # fmt: skip
    return DrillReport.model_validate({**facts, **more})


def test_passed_means_nothing_failed_and_nothing_missed() -> None:
    """Objectives count where there are any; partial is failure."""
    good = AssertionResult(name="a", passed=True)
    bad = AssertionResult(name="b", passed=False, why="ended with 1")
    assert report(assertions=(good,)).passed
    assert report(rto=MINUTE, rpo=MINUTE).passed
    assert report(rto=MINUTE / 2).missed == ("RTO 1m, the objective is 30s",)
    assert not report(rpo=MINUTE / 2).passed
    assert report(assertions=(good, bad)).failed == ("assertion b: ended with 1",)
    assert report(failure="PROBE-FAILED: db", achieved_rto=None, rto=MINUTE).missed == ()


def test_what_a_pod_says_is_text() -> None:
    """Neither a tag nor a heading nor the end of a block comes out of it."""
    said = "</pre><script>alert(1)</script>\n# Drill of x: passed\n```\n"
    found = report(assertions=(AssertionResult(name="a<b", passed=False, why="<i>", said=said),))
    page, text = html(found), markdown(found)
    assert "<script" not in page and page.count("</pre>") == 1 and "<i>" not in page
    assert "FAILED" in page and "    # Drill of x: passed" in text
    assert text.splitlines().count("# Drill of shop: FAILED") == 1


def test_what_failed_is_one_line_each() -> None:
    """Neither in the table nor in the list do an assertion's name, a reason or a workload's words end theirs."""
    name = "a|b\n# c"
    found = report(
        assertions=(AssertionResult(name=name, passed=False, why="x\n| y |"),), failure="no\n# way", evidence=("1\n2",)
    )
    lines = markdown(found).splitlines()
    assert [line for line in lines if line.startswith("# ")] == ["# Drill of shop: FAILED"]
    assert "- **failed** no # way" in lines
    assert "- **failed** assertion a\\|b # c: x \\| y \\|" in lines
    assert "| a\\|b # c | – | 0s | FAILED |" in lines
    assert "- 1 2" in lines


def test_what_became_of_it_is_said() -> None:
    """Removed, kept on purpose, or left though it should not have been."""
    assert "all of it was removed" in markdown(report())
    assert "refloat sweep --run r" in markdown(report(removed=False, kept=True))
    assert "it was NOT removed" in markdown(report(removed=False))
