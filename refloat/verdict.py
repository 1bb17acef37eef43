"""The verdict over a certificate: which label its facts prove, and why none higher. It only ever lowers.

Rules: research/reliability.md §3.4. Order of messages is the proof: every part said that it holds before the cut was
asked for, answered a beat sent after the cut had been seen, held without a break by its own account, and is who it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from refloat.certificate import Certificate, HeldPart
from refloat.values import Consistency


def judged(facts: Certificate) -> Certificate:
    """The certificate with its verdict and reasons; what it said of itself before is not believed."""
    base, why = without_a_hold(facts)
    doubts = list(doubts_of(facts))
    if not doubts:
        return facts.model_copy(update={"verdict": Consistency.APPLICATION, "reasons": ()})
    return facts.model_copy(update={"verdict": base, "reasons": (*doubts, *why)})


def without_a_hold(facts: Certificate) -> tuple[Consistency, list[str]]:
    """What the cuts alone prove: one instant, or nothing."""
    if len(facts.cuts) <= 1:
        return Consistency.CRASH, []
    if facts.group:
        return Consistency.GROUP_CRASH, []
    return Consistency.INCONSISTENT, [f"{len(facts.cuts)} volumes were cut one by one, at several instants"]


def doubts_of(facts: Certificate) -> Iterator[str]:
    """Every reason why the hold does not prove the cuts; none: application-consistent."""
    if not facts.parts:
        yield "nothing was held"
    for pod in facts.unheld:
        yield f"{pod.namespace}/{pod.pod} was not held: {pod.reason}"
    yield from facts.changes
    if facts.late:
        yield "the cut came after the hold's budget, when every pod had been released"
    if facts.parts and (facts.cut_asked_at is None or facts.cut_seen_at is None):
        yield "no cut was seen within the hold"
    for part in facts.parts:
        doubt = doubt_of_part(part, facts)
        if doubt:
            yield f"{part.engine} in {part.name}: {doubt}"


def doubt_of_part(part: HeldPart, facts: Certificate) -> str | None:
    """The first reason why this part does not prove the cuts, or None."""
    if not part.stops_writes:
        return f"{part.method} does not stop writes"
    if part.broken:
        return f"the hold broke: {part.broken}"
    if part.held_at is None:
        return "it was never held"
    if facts.cut_asked_at is None or facts.cut_seen_at is None:
        return None  # said once, for all
    return doubt_of_order(part, facts.cut_asked_at, facts.cut_seen_at) or changed(part)


def doubt_of_order(part: HeldPart, asked: datetime, seen: datetime) -> str | None:
    """Why the part's messages do not enclose the cuts, or None."""
    assert part.held_at is not None
    proof = next((beat for beat in part.beats if beat.sent_at >= seen), None)
    if part.held_at > asked:
        return "it was held only after the cut was asked for"
    if proof is None:
        return "it answered no heartbeat after the cut was seen"
    if part.release_sent_at is None or part.release_sent_at < proof.answered_at:
        return "it was released before its last heartbeat was answered"
    if part.held_uptime_seconds is None:
        return "its holder did not say that it held without a break"
    since, until = part.held_uptime_seconds
    is_within = since <= proof.uptime_seconds <= until
    return None if is_within else "its holder says that it held at another time"


def changed(part: HeldPart) -> str | None:
    """What is not as it was before the hold: another pod, a restart, another role or timeline."""
    before, after = part.before, part.after
    if after is None:
        return "the pod could not be looked at after the hold"
    if before.uid != after.uid:
        return "the pod was replaced"
    if (before.restarts, before.started_at) != (after.restarts, after.started_at):
        return "its container was restarted"
    for key in sorted({*before.facts, *after.facts}):
        if before.facts.get(key) != after.facts.get(key):
            return f"its {key} changed from {before.facts.get(key)} to {after.facts.get(key)}"
    return None
