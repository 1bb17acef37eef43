"""Step *certify*: what was seen of the hold and the cuts → the certificate; too low a label ends the run."""

from __future__ import annotations

from collections.abc import Sequence

from refloat.application import Application
from refloat.certificate import Certificate, HeldPart, Unheld, VolumeCut
from refloat.errors import ConsistencyTooLow
from refloat.policy import ProtectionPolicy
from refloat.ports.volume_snapshotter import Cut, VolumeSnapshot
from refloat.values import Consistency
from refloat.verdict import judged
from tasks.step import note, step, warn


@step("certify")
def certify(
    application: Application,
    policy: ProtectionPolicy,
    cut: Cut,
    parts: Sequence[HeldPart],
    unheld: Sequence[Unheld],
    changes: Sequence[str],
) -> Certificate:
    """Judge the facts; say the verdict and why it is no higher.

    Raises:
        ConsistencyTooLow: The verdict is below what the policy accepts, or inconsistent where the application's
            document does not allow that.
    """
    found = judged(certificate_of(application, cut, parts, unheld, changes))
    note("certify", f"{found.verdict.value}, held {found.hold.total_seconds():.2f} s" if parts else found.verdict.value)
    for reason in found.reasons:
        (warn if parts else note)("certify", reason)
    is_allowed = found.verdict is Consistency.INCONSISTENT and application.hold.allow_inconsistent
    if found.verdict < policy.accept and not is_allowed:
        raise ConsistencyTooLow(
            f"the point would be {found.verdict.value}, the policy accepts {policy.accept.value} at least: "
            + "; ".join(found.reasons),
        )
    return found


def certificate_of(
    application: Application,
    cut: Cut,
    parts: Sequence[HeldPart],
    unheld: Sequence[Unheld],
    changes: Sequence[str],
) -> Certificate:
    """The facts as they are, not yet judged."""
    rules = application.hold
    return Certificate(
        verdict=Consistency.INCONSISTENT,
        cut_asked_at=cut.asked_at,
        cut_seen_at=cut.seen_at,
        group=cut.ticket is not None and cut.ticket.method == "group-snapshot",
        cuts=tuple(cut_of(each) for each in cut.snapshots),
        parts=tuple(parts),
        unheld=tuple(unheld),
        changes=tuple(changes),
        late=cut.is_late,
        lease=rules.lease,
        soft_budget=rules.soft_budget,
        hard_budget=rules.hard_budget,
    )


def cut_of(snapshot: VolumeSnapshot) -> VolumeCut:
    """When one volume's image was fixed."""
    assert snapshot.cut_at is not None
    return VolumeCut(namespace=snapshot.volume.namespace, claim=snapshot.volume.claim, cut_at=snapshot.cut_at)
