"""Expiry: recovery points that retention gives up leave the catalogue; their data goes with the next prune."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from refloat.clock import now
from refloat.errors import NoEligibleRecoveryPoint
from refloat.policy import Retention
from refloat.recovery_point import RecoveryPoint
from refloat.retention import Decision, decide
from vault.catalogue import records
from vault.files import FileKind, key_of, stored
from vault.judging import KnownDead, nobody_is_known_dead
from vault.repository import OpenVault

IsVerified = Callable[[RecoveryPoint], bool]


@dataclass(frozen=True)
class ExpiryPlan:
    """What becomes of every point of one application. ``names``: its snapshot records, by point id."""

    application: str
    decisions: tuple[Decision, ...]
    names: dict[str, tuple[str, ...]] = field(repr=False)

    @property
    def expiring(self) -> list[RecoveryPoint]:
        """The points that go, oldest first."""
        return [each.point for each in self.decisions if not each.is_kept]

    def as_json(self) -> dict[str, Any]:
        """For scripts."""
        return {"application": self.application, "points": [each.as_json() for each in self.decisions]}


def plan_expiry(
    vault: OpenVault,
    application: str,
    retention: Retention,
    *,
    at: datetime | None = None,
    is_verified: IsVerified | None = None,
) -> ExpiryPlan:
    """Decide about every point; nothing is changed. ``at``: now, by this machine's clock when not given.

    Raises:
        NoEligibleRecoveryPoint: The vault holds no point of the application.
        ClocksDisagree: The newest point or the store is of the future.
        IntegrityError: A snapshot record or a descriptor is damaged: what is not readable is not decided about.
    """
    stored_at = {name: found.modified_at for name, found in stored(vault.store, FileKind.SNAPSHOT)}
    names, points = defaultdict[str, list[str]](list), dict[str, RecoveryPoint]()
    for each in records(vault, application):
        if each.snapshot_id in stored_at:  # else it was sealed since: the next expiry's
            names[each.point.id].append(each.snapshot_id)
            points[each.point.id] = each.point
    if not points:
        raise NoEligibleRecoveryPoint(f"{vault.url} holds no recovery point of {application}")
    received = {point_id: min(stored_at[name] for name in mine) for point_id, mine in names.items()}
    decisions = decide(points.values(), retention, at or now(), received=received, is_verified=is_verified)
    return ExpiryPlan(application, tuple(decisions), {point_id: tuple(mine) for point_id, mine in names.items()})


def expire(
    vault: OpenVault,
    shown: ExpiryPlan,
    retention: Retention,
    *,
    run: str,
    is_dead: KnownDead = nobody_is_known_dead,
    is_verified: IsVerified | None = None,
) -> list[RecoveryPoint]:
    """Remove the snapshot records of the points that the plan lets expire, under an exclusive lock; those points.

    Everything is decided again under the lock: what is to be kept by now is kept. Broken off, it is simply run again.

    Raises:
        LeaseHeld: Somebody uses the vault; or the lock was lost on the way, and nothing more was removed.
        ClocksDisagree: This machine's clock, the store's, or the newest point's differ.
        IntegrityError: A snapshot record or a descriptor is damaged; nothing was removed.
    """
    with vault.lock(run, is_exclusive=True, is_dead=is_dead) as lock:
        fresh = plan_expiry(vault, shown.application, retention, is_verified=is_verified)
        approved = {point.id for point in shown.expiring}
        going = [point for point in fresh.expiring if point.id in approved]
        lock.confirm()
        for point in going:
            for name in fresh.names[point.id]:
                lock.require()
                vault.store.delete(key_of(FileKind.SNAPSHOT, name))
    return going
