"""Certificates for tests: one whose facts prove everything, and what can be taken from it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from refloat.certificate import Beat, Certificate, HeldPart, PodState, Unheld, VolumeCut
from refloat.recovery_point import ObjectCopy, ObjectRef, RecoveryPoint
from refloat.values import Consistency

ZERO = datetime(2026, 11, 25, 4, 23, 35, 73186, tzinfo=UTC)


def at(milliseconds: float) -> datetime:
    """An instant of the hold."""
    return ZERO + timedelta(milliseconds=milliseconds)


def beat(number: int, sent: float) -> Beat:
    """A heartbeat, answered after 2 ms; the node has been up for 100 s at the first freeze."""
    return Beat(number=number, sent_at=at(sent), answered_at=at(sent + 2), uptime_seconds=100 + (sent + 1) / 1000)


def part(pod: str, start: float, **changed: Any) -> HeldPart:
    """A part held over a cut from 50 to 700 ms."""
    state = PodState(
        uid=f"uid-of-{pod}", restarts=1, started_at="2026-11-24T00:00:00Z",
        facts={"role": "primary", "timeline": "4"},
    )  # fmt: skip
    facts = {
        "namespace": "shop", "pod": pod, "container": "db", "engine": "postgresql", "part": "orders",
        "method": "EXCLUSIVE locks on 12 tables of orders", "stops_writes": True, "ends_with": "session",
        "before": state, "after": state, "armed_at": at(start - 40), "freeze_sent_at": at(start),
        "held_at": at(start + 9), "beats": (beat(1, start + 20), beat(2, 400), beat(3, 705)),
        "release_sent_at": at(712), "released_at": at(730 + start), "held_uptime_seconds": (100.009, 100.72),
        "confirmed": True,
    }  # fmt: skip
    return HeldPart.model_validate(facts | changed)


def proving(**changed: Any) -> Certificate:
    """Every fact an application-consistent point needs; two parts, two volumes, one instant."""
    facts = {
        "verdict": Consistency.APPLICATION, "cut_asked_at": at(50), "cut_seen_at": at(700), "group": True,
        "cuts": tuple(VolumeCut(namespace="shop", claim=f"data-{pod}", cut_at=at(3_600_300)) for pod in ("a", "b")),
        "parts": (part("a", 0), part("b", 3)),
    }  # fmt: skip
    return Certificate.model_validate(facts | changed)


def point(certificate: Certificate | None, **changed: Any) -> RecoveryPoint:
    """A point that carries it."""
    ref = ObjectRef(kind="ConfigMap", namespace="shop", name="settings")
    copy = ObjectCopy(ref=ref, api_version="v1", path="objects/shop/ConfigMap/settings.json", reason="named")
    facts = {
        "id": "00112233445566ff", "application": "shop", "cluster": "site-a", "run": "run", "started_at": at(-5000),
        "cut_at": at(300), "sealed_at": at(9000), "consistency": Consistency.APPLICATION,
        "cut_method": "group-snapshot", "volumes": (), "certificate": certificate, "refloat_version": "test",
        "objects": (copy,),
    }  # fmt: skip
    return RecoveryPoint.model_validate(facts | changed)


Loss = Callable[[Certificate], Certificate]


def whole(**changed: Any) -> Loss:
    """Facts of the whole certificate set otherwise."""
    return lambda facts: facts.model_copy(update=changed)


def second(**changed: Any) -> Loss:
    """Facts of its second part set otherwise; the first still proves its own."""
    return lambda facts: facts.model_copy(
        update={"parts": (facts.parts[0], facts.parts[1].model_copy(update=changed), *facts.parts[2:])}
    )


def after(**changed: Any) -> Loss:
    """Its second pod is another afterwards."""

    def lose(facts: Certificate) -> Certificate:
        state = facts.parts[1].after or facts.parts[1].before
        return second(after=state.model_copy(update=changed))(facts)

    return lose


NOBODY = Unheld(namespace="shop", pod="c", reason="no quiescer knows its image")
LOSSES: dict[str, tuple[Loss, str]] = {
    "no part": (whole(parts=()), "nothing was held"),
    "somebody was not held": (whole(unheld=(NOBODY,)), "shop/c was not held: no quiescer knows its image"),
    "a pod with a volume came": (whole(changes=("pod shop/c came while the point was cut",)), "pod shop/c came"),
    "late": (whole(late=True), "after the hold's budget"),
    "cut not asked": (whole(cut_asked_at=None), "no cut was seen within the hold"),
    "cut not seen": (whole(cut_seen_at=None), "no cut was seen within the hold"),
    "asked before the last was held": (whole(cut_asked_at=at(11)), "only after the cut was asked for"),
    "seen after the last beat was sent": (whole(cut_seen_at=at(706)), "no heartbeat after the cut was seen"),
    "does not stop writes": (second(stops_writes=False), "does not stop writes"),
    "broke": (second(broken="the client ended"), "the hold broke: the client ended"),
    "never held": (second(held_at=None), "never held"),
    "held too late": (second(held_at=at(51)), "only after the cut was asked for"),
    "no beats": (second(beats=()), "no heartbeat after the cut was seen"),
    "no beat after the cut": (second(beats=(beat(1, 23), beat(2, 400))), "no heartbeat after the cut was seen"),
    "no release": (second(release_sent_at=None), "released before its last heartbeat"),
    "released before the last beat": (second(release_sent_at=at(703)), "released before its last heartbeat"),
    "no word of its own": (second(held_uptime_seconds=None), "did not say that it held without a break"),
    "held again since": (second(held_uptime_seconds=(100.71, 100.72)), "held at another time"),
    "held until before": (second(held_uptime_seconds=(100.009, 100.5)), "held at another time"),
    "not looked at": (second(after=None), "could not be looked at"),
    "another pod": (after(uid="another"), "the pod was replaced"),
    "restarted": (after(restarts=2), "restarted"),
    "started at another time": (after(started_at="2026-11-25T04:23:35Z"), "restarted"),
    "another role": (after(facts={"role": "replica", "timeline": "4"}), "its role changed from primary to replica"),
    "another timeline": (after(facts={"role": "primary", "timeline": "5"}), "its timeline changed from 4 to 5"),
    "no longer says": (after(facts={"role": "primary"}), "its timeline changed from 4 to None"),
    "says more": (after(facts={"role": "primary", "timeline": "4", "x": "1"}), "its x changed from None to 1"),
}
