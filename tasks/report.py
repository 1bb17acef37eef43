"""Step *report*: what a run did, took and achieved, as a value and as the run's artifact."""

from __future__ import annotations

from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event
from slugify import slugify

from blocks.courtesy import courteously
from blocks.redaction import redacted
from refloat.drill import DrillReport, markdown
from refloat.duration import format_duration
from refloat.explaining import explain_point
from refloat.report import ProtectReport, RecoverReport
from tasks.step import step


@step("report")
def report_protect(report: ProtectReport) -> ProtectReport:
    """Publish a protect run's report; Prefect being away never fails the run."""
    publish(
        f"refloat-protect-{report.application}", protect_markdown(report), "refloat.point.sealed", report.application
    )
    return report


def protect_markdown(report: ProtectReport) -> str:
    """The artifact of a protect run. The timeline is an indented block: nothing a pod said can end it."""
    point = report.point
    lines = [
        f"# {report.application}: recovery point {point.id}",
        "",
        f"- **label** {point.consistency.value}, cut {point.cut_at.isoformat()} by {point.cut_method}",
        f"- **vault** `{report.vault_url}`, snapshot record `{report.snapshot_id[:8]}`, verified by {report.verified}",
        f"- **took** {format_duration(report.duration)}; RPO {format_duration(report.rpo)}, achieved "
        f"{format_duration(report.achieved_rpo) if report.achieved_rpo else 'first point'}",
        f"- **objects** {len(point.objects)}",
        "",
        "| volume | bytes | files | new bytes | cut |",
        "| --- | ---: | ---: | ---: | --- |",
        *(
            f"| {v.namespace}/{v.claim} | {v.data_bytes} | {v.files} | {v.added_bytes} | {v.cut_at.isoformat()} |"
            for v in point.volumes
        ),
        "",
        "| step | took |",
        "| --- | ---: |",
        *(f"| {each.step} | {format_duration(each.duration)} |" for each in report.steps),
        *(f"\n> warning: {text}" for text in report.warnings),
        "",
        "## Why this label",
        "",
        *(f"    {line}" for line in explain_point(point)),
    ]
    return redacted("\n".join(lines))


@step("report")
def report_recover(report: RecoverReport) -> RecoverReport:
    """Publish a recovery's report; Prefect being away never fails the run."""
    lines = [
        f"# {report.application} recovered from {report.source.point.id}",
        "",
        f"- **into** {', '.join(report.namespaces)} on {report.cluster}",
        f"- **created** {report.created} objects, kept {report.kept}, filled {report.hydrated} claims "
        f"({report.data_bytes} bytes)",
        f"- **achieved RTO** {format_duration(report.achieved_rto)}",
        f"- **achieved RPO** {format_duration(report.achieved_rpo)}",
        "",
        *(f"- {line}" for line in report.evidence),
        "",
        "| step | took |",
        "| --- | ---: |",
        *(f"| {each.step} | {format_duration(each.duration)} |" for each in report.steps),
    ]
    publish(
        f"refloat-recover-{report.application}",
        redacted("\n".join(lines)),
        "refloat.application.recovered",
        report.application,
    )
    return report


@step("report")
def report_drill(report: DrillReport) -> DrillReport:
    """Publish a drill's report, passed or not; Prefect being away never fails the run."""
    what = "refloat.drill.passed" if report.passed else "refloat.drill.failed"
    publish(f"refloat-drill-{report.application}", redacted(markdown(report)), what, report.application)
    return report


def publish(key: str, markdown: str, event: str, application: str) -> None:
    """One markdown artifact and one event; both are courtesy."""
    courteously(lambda: create_markdown_artifact(markdown, key=slugify(key)))
    courteously(lambda: emit_event(event, resource={"prefect.resource.id": f"refloat.application.{application}"}))
