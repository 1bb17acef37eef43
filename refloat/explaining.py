"""A certificate as people read it: the label, why it is no higher, and what was seen of the hold, as lines of text.

Offsets are milliseconds from the first freeze, on refloat's own clock. Cuts are told by the storage's clock, and only
among themselves: nothing compares the two. What holders said is shown without anything a terminal would obey.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from textwrap import wrap

from refloat.certificate import Certificate, HeldPart, PodState
from refloat.recovery_point import RecoveryPoint
from refloat.values import Consistency

COLUMNS = 100
LABELS = 30
BAR = COLUMNS - LABELS - 1
LEGEND = ". freezing   = held   * heartbeat   ~ letting go   ? nobody knows   | the cut: asked, seen"
MILLISECOND = timedelta(milliseconds=1)
Column = Callable[[datetime], int]


def explain_point(point: RecoveryPoint) -> list[str]:
    """The lines of a point's certificate; what is to be said where it has none."""
    head = f"point {point.id} of {point.application}, cut {point.cut_at:%Y-%m-%d %H:%M:%S}Z by {point.cut_method}"
    if point.certificate is None:
        return [
            head,
            *told(f"{point.consistency.value}: it was sealed before there were certificates, nothing is proven here"),
        ]
    return [head, *explain(point.certificate), *added_lines(point)]


def added_lines(point: RecoveryPoint) -> Iterator[str]:
    """Files that engines gave for their copies, which were on no volume."""
    for copy in point.volumes:
        if copy.added:
            yield from told(f"added to {copy.namespace}/{copy.claim} for its engine: {', '.join(copy.added)}")


def explain(certificate: Certificate) -> list[str]:
    """The whole story, at most ``COLUMNS`` wide but for names that are longer by themselves."""
    zero = first_freeze(certificate)
    lines = [certificate.verdict.value, *verdict_lines(certificate)]
    if zero is not None:
        lines += ["", *chart(certificate, zero)]
    if certificate.parts:
        lines += [""]
        for part in certificate.parts:
            lines += part_lines(part, certificate, zero)
    return lines + list(cut_lines(certificate))


def first_freeze(certificate: Certificate) -> datetime | None:
    """Where the timeline begins; None when nothing was frozen."""
    return min((part.freeze_sent_at for part in certificate.parts if part.freeze_sent_at), default=None)


def verdict_lines(certificate: Certificate) -> Iterator[str]:
    """Why the label is no higher, how long the hold was, and how even."""
    if certificate.reasons:
        yield "why no higher:"
        for reason in certificate.reasons:
            yield from told(f"- {reason}", indent="  ")
    elif certificate.verdict is not Consistency.APPLICATION:
        yield "why no higher: the certificate gives no reason"
    if certificate.parts:
        yield (
            f"held {ms(certificate.hold)} ms at most (budget {ms(certificate.soft_budget)}, hard limit "
            f"{ms(certificate.hard_budget)}, lease {ms(certificate.lease)}); "
            f"freeze skew {ms(certificate.freeze_skew)} ms"
        )


def chart(certificate: Certificate, zero: datetime) -> list[str]:
    """One bar a part, and the cut below them."""
    end = max(instants(certificate), default=zero)
    length = max(end - zero, MILLISECOND)

    def column(instant: datetime) -> int:
        return min(BAR - 1, max(0, int((instant - zero) / length * (BAR - 1))))

    right = f"{ms(length)} ms"
    lines = [" " * LABELS + " 0" + right.rjust(BAR - 1)]
    lines += [f"{short(part.name):{LABELS}} {''.join(bar(part, column)).rstrip()}" for part in certificate.parts]
    if certificate.cut_asked_at:
        row = [" "] * BAR
        asked, seen = column(certificate.cut_asked_at), column(certificate.cut_seen_at or end)
        row[asked : seen + 1] = "-" * (seen + 1 - asked)
        row[asked] = "|"
        row[seen] = "|" if certificate.cut_seen_at else "?"
        lines.append(f"{'the cut':{LABELS}} {''.join(row).rstrip()}")
    return [*lines, LEGEND]


def bar(part: HeldPart, column: Column) -> list[str]:
    """One part's row of the chart: what is known of every instant."""
    row = [" "] * BAR

    def fill(sign: str, since: datetime | None, until: datetime | None) -> None:
        if since and until:
            row[column(since) : column(until) + 1] = sign * (column(until) + 1 - column(since))

    last = part.beats[-1].answered_at if part.beats else part.held_at
    known = last if part.broken or part.release_sent_at is None else part.release_sent_at
    fill(".", part.freeze_sent_at, part.held_at or part.freeze_sent_at)
    fill("=", part.held_at, known)
    fill("?" if part.broken or not part.released_at else "~", known or part.freeze_sent_at, part.release_sent_at)
    fill("~" if part.released_at else "?", part.release_sent_at, part.released_at or part.release_sent_at)
    for beat in part.beats:
        row[column(beat.answered_at)] = "*"
    return row


def part_lines(part: HeldPart, certificate: Certificate, zero: datetime | None) -> Iterator[str]:
    """All that was seen of one part."""
    yield from told(f"{part.name}: {part.engine} in container {part.container}, {part.method}")
    offset = Offsets(zero or part.armed_at)
    yield from told(
        f"armed {offset(part.armed_at)}, freeze sent {offset(part.freeze_sent_at)}, held {offset(part.held_at)}, "
        f"release sent {offset(part.release_sent_at)}, released {offset(part.released_at)} (ms)",
        indent="  ",
    )
    yield from told(beats_text(part, certificate, offset), indent="  ")
    if part.broken:
        yield from told(f"the hold broke: {part.broken}", indent="  ")
    if part.held_uptime_seconds:
        since, until = part.held_uptime_seconds
        yield f"  by its own account held without a break for {1000 * (until - since):.0f} ms"
    else:
        yield "  it did not say itself that it was held without a break"
    yield from told(identity_text(part.before, part.after), indent="  ")
    yield (
        "  "
        + {
            True: "a fresh write went through afterwards",
            False: "NO FRESH WRITE WENT THROUGH AFTERWARDS",
            None: "no fresh write was tried afterwards",
        }[part.confirmed]
    )


def beats_text(part: HeldPart, certificate: Certificate, offset: Offsets) -> str:
    """The heartbeats around the cut."""
    asked, seen = certificate.cut_asked_at, certificate.cut_seen_at
    before = [beat for beat in part.beats if asked and beat.answered_at <= asked]
    after = [beat for beat in part.beats if seen and beat.sent_at >= seen]
    text = f"heartbeats {len(part.beats)}"
    text += f"; last before the cut answered {offset(before[-1].answered_at)}" if before else "; none before the cut"
    if not after:
        return f"{text}; none after it"
    return f"{text}; first after it asked {offset(after[0].sent_at)}, answered {offset(after[0].answered_at)}"


def identity_text(before: PodState, after: PodState | None) -> str:
    """Whether the pod is who it was."""
    if after is None:
        return f"pod {before.uid}: could not be looked at afterwards"
    facts = ", ".join(f"{key} {value}" for key, value in sorted(before.facts.items()))
    if before == after:
        return f"pod {before.uid}, {before.restarts} restarts{', ' + facts if facts else ''}: the same afterwards"
    now = ", ".join(f"{key} {value}" for key, value in sorted(after.facts.items()))
    return (
        f"pod {before.uid}, {before.restarts} restarts, started {before.started_at or 'unknown'}, {facts}: "
        f"afterwards {after.uid}, {after.restarts} restarts, started {after.started_at or 'unknown'}, {now}"
    )


def cut_lines(certificate: Certificate) -> Iterator[str]:
    """When each volume was cut, by the storage's own clock."""
    if not certificate.cuts:
        yield "no volume was cut"
        return
    first, last = min(cut.cut_at for cut in certificate.cuts), max(cut.cut_at for cut in certificate.cuts)
    how = "as one group" if certificate.group else "one by one"
    count = len(certificate.cuts)
    yield f"{count} volume{'s' if count > 1 else ''} cut {how}, skew {ms(last - first)} ms, by the storage's clock:"
    for cut in sorted(certificate.cuts, key=lambda each: each.cut_at):
        at = f"{cut.cut_at:%H:%M:%S}.{cut.cut_at.microsecond // 1000:03}Z"
        yield from told(f"{at} +{ms(cut.cut_at - first)} ms  {cut.namespace}/{cut.claim}", indent="  ")


class Offsets:
    """Instants as milliseconds from the first freeze."""

    def __init__(self, zero: datetime) -> None:
        self._zero = zero

    def __call__(self, instant: datetime | None) -> str:
        return "never" if instant is None else str(ms(instant - self._zero))


def ms(value: timedelta) -> int:
    """Whole milliseconds."""
    return round(value / MILLISECOND)


def instants(certificate: Certificate) -> Iterator[datetime]:
    """Every known instant of the hold but arming, which may be long before."""
    for part in certificate.parts:
        yield from (each for each in (part.held_at, part.release_sent_at, part.released_at) if each)
        yield from (beat.answered_at for beat in part.beats)
    yield from (each for each in (certificate.cut_asked_at, certificate.cut_seen_at) if each)


def short(name: str) -> str:
    """A name that fits beside a bar; its end tells more than its beginning."""
    name = printable(name)
    return name if len(name) <= LABELS else "…" + name[1 - LABELS :]


def printable(text: str) -> str:
    """Without line breaks and escape sequences, which a pod may have said."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def told(text: str, indent: str = "") -> Sequence[str]:
    """One sentence, in as many lines as it needs."""
    return wrap(
        printable(text), COLUMNS, initial_indent=indent, subsequent_indent=indent + "  ", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
