"""The consistency certificate: what was seen of a hold and of the cuts within it, as the recovery point keeps it.

Instants ``*_at`` are of refloat's own clock and say when refloat sent or received something; ``*_uptime_seconds`` are
the holder's own, of the node's clock that never goes back. Nothing compares the two: proof is by order of messages,
so that a clock that is an hour wrong in a pod proves and disproves nothing.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import AwareDatetime, Field

from refloat.duration import Duration
from refloat.values import Consistency, Value


class Beat(Value):
    """One round trip to a holder, which looked whether it still holds before it answered."""

    number: int
    sent_at: AwareDatetime
    answered_at: AwareDatetime
    uptime_seconds: float


class PodState(Value):
    """Who a pod was at one look: restarts and replacements cannot hide."""

    uid: str
    restarts: int = Field(description="Of the container that was held.")
    started_at: str = Field(default="", description="When that container started, as the cluster says.")
    facts: dict[str, str] = Field(
        default_factory=dict, description="The engine's own words: role, timeline, started; what must not change."
    )


class HeldPart(Value):
    """One server, or one database of it, held in one container."""

    namespace: str
    pod: str
    container: str
    engine: str
    part: str = ""
    method: str
    stops_writes: bool
    ends_with: Literal["session", "server", "watchdog", "nothing"]
    before: PodState
    after: PodState | None = Field(default=None, description="None: the pod could not be looked at again.")
    armed_at: AwareDatetime
    freeze_sent_at: AwareDatetime | None = None
    held_at: AwareDatetime | None = Field(default=None, description="None: it never said that it holds.")
    beats: tuple[Beat, ...] = ()
    release_sent_at: AwareDatetime | None = None
    released_at: AwareDatetime | None = Field(default=None, description="None: its release was not heard of.")
    held_uptime_seconds: tuple[float, float] | None = Field(
        default=None, description="The holder's last line: held without a break from, until. None: it did not say so."
    )
    broken: str | None = Field(default=None, description="Why the hold ended early, in the holder's or our words.")
    confirmed: bool | None = Field(default=None, description="Whether a fresh write went through; None: not tried.")

    @property
    def name(self) -> str:
        """``namespace/pod``, with the part where there is one."""
        return f"{self.namespace}/{self.pod}" + (f" ({self.part})" if self.part else "")


class Unheld(Value):
    """A running pod with a volume in the point that was not held, and why."""

    namespace: str
    pod: str
    reason: str
    is_whole_by_one_cut: bool = Field(default=False, description="Its engine recovers from one atomic cut by itself.")


class VolumeCut(Value):
    """When the storage fixed one volume's image, by the storage's own clock."""

    namespace: str
    claim: str
    cut_at: AwareDatetime


class Certificate(Value):
    """The proof behind a point's label."""

    verdict: Consistency
    reasons: tuple[str, ...] = Field(default=(), description="Why the verdict is no higher, one sentence each.")
    cut_asked_at: AwareDatetime | None = Field(default=None, description="After the last part said that it holds.")
    cut_seen_at: AwareDatetime | None = Field(default=None, description="All volumes were seen to be cut.")
    group: bool = Field(default=False, description="One instant for all volumes by the driver.")
    cuts: tuple[VolumeCut, ...] = ()
    parts: tuple[HeldPart, ...] = ()
    unheld: tuple[Unheld, ...] = ()
    changes: tuple[str, ...] = Field(
        default=(), description="What came or went, until after the cut, among claims and pods that mount one."
    )
    late: bool = Field(default=False, description="The cut came after the hold's budget; parts had been released.")
    lease: Duration = timedelta(seconds=10)
    soft_budget: Duration = timedelta(seconds=10)
    hard_budget: Duration = timedelta(seconds=30)

    @property
    def freeze_skew(self) -> timedelta:
        """Latest minus earliest instant at which a part said that it holds; zero without a hold."""
        held = [part.held_at for part in self.parts if part.held_at]
        return max(held) - min(held) if held else timedelta(0)

    @property
    def hold(self) -> timedelta:
        """From the first freeze sent to the last release heard of: the longest any writer can have waited."""
        starts = [part.freeze_sent_at for part in self.parts if part.freeze_sent_at]
        ends = [part.released_at for part in self.parts if part.released_at]
        return max(ends) - min(starts) if starts and ends else timedelta(0)
