"""The artifact of a protect run: it draws the hold, and no secret and no pod's word changes what it is."""

from __future__ import annotations

from datetime import timedelta

from blocks.redaction import MASK, guard
from refloat.recovery_point import RecoveryPoint
from refloat.report import ProtectReport, StepTime
from refloat.verdict import judged
from tasks import report as step
from tests.unit.certificates import part, point, proving

SECRET = "s3cr3t-of-the-artifact-test"


def report_of(sealed: RecoveryPoint) -> ProtectReport:
    """A run's report over a point."""
    return ProtectReport(
        run="run", application="shop", cluster="site-a", vault_url="s3://backups/shop", point=sealed,
        snapshot_id="ab" * 32, steps=(StepTime(step="discover", duration=timedelta(seconds=1)),),
        duration=timedelta(seconds=9), added_bytes=1, verified="sample", rpo=timedelta(hours=1),
    )  # fmt: skip


def test_it_draws_the_hold() -> None:
    """The timeline as an indented block, which markdown shows as it is."""
    text = step.protect_markdown(report_of(point(judged(proving()))))
    head, _, proof = text.partition("## Why this label\n\n")
    assert "- **label** application-consistent" in head
    lines = proof.splitlines()
    assert all(line.startswith("    ") for line in lines)
    assert any(line.startswith("    shop/a (orders)  ") and "=*=" in line for line in lines)


def test_a_pod_cannot_write_markdown() -> None:
    """What a holder said on breaking stays within the block."""
    bad = part("b", 3, broken="x\n# heading\n```\n[click](http://evil)")
    text = step.protect_markdown(report_of(point(judged(proving(parts=(bad,))))))
    assert [line for line in text.splitlines() if "heading" in line and not line.startswith("    ")] == []


def test_no_loaded_secret_reaches_the_artifact() -> None:
    """Whatever text holds it: an engine's client may print its own command."""
    guard(SECRET)
    bad = part("b", 3, broken=f"psql: password {SECRET} is wrong")
    text = step.protect_markdown(report_of(point(judged(proving(parts=(bad,))))))
    assert SECRET not in text
    assert MASK in text  # other tests have loaded other secrets: what else is masked is not said here
