"""The hold itself: arm every part, freeze in order, beat, prove, release in reverse, confirm; whatever fails, let go.

Plain functions in the caller's thread; one daemon thread beats. Nothing here asks Prefect or the vault. What ends the
hold when this process dies is in the containers (`kube/holder.sh`) and in the engines, never here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby

from kube.cluster import Cluster
from kube.held_part import HOLDER_BASES, AddedPath, OneClock, Part, PlannedPart, holder_text, look
from kube.hooks import signals_ignored
from kube.sessions import within
from kube.side_by_side import in_parallel
from refloat.application import HoldRules
from refloat.certificate import HeldPart, PodState
from refloat.clock import Deadline, pause
from refloat.errors import QuiesceFailed, RefloatError, ThawUnconfirmed

ARM_SECONDS = 20.0
"""Holds nothing yet: connections, and a flush so that the hold is short."""
FREEZE_SECONDS = 8.0
"""For one rank; engines give up their own waiting after 5 s."""
RELEASE_SECONDS = 5.0
ANSWER_SECONDS = 3.0
"""A holder that has not answered a beat by then no longer counts as holding."""
BETWEEN_SECONDS = 5.0
THAW_LIMIT = timedelta(seconds=10)
THAW_AGAIN = timedelta(milliseconds=500)


@dataclass
class Hold:
    """A hold under way, and what is known of it afterwards."""

    rules: HoldRules
    parts: list[Part]
    clock: OneClock
    ends: Deadline | None = None
    records: list[HeldPart] = field(default_factory=list)
    """Filled when the hold is over."""

    @property
    def left(self) -> timedelta:
        """Of the soft budget; the lot when nothing is held."""
        return max(timedelta(0), self.ends.remaining) if self.ends else self.rules.soft_budget

    @property
    def last(self) -> frozenset[str]:
        """Volumes (``namespace/claim``) to be cut after the others, and after ``between``."""
        return frozenset[str]().union(*(part.planned.last for part in self.parts))

    @property
    def added(self) -> dict[AddedPath, bytes]:
        """Files that the copies of volumes need besides; known after ``between``."""
        return {place: text for part in self.parts for place, text in part.added.items()}

    def between(self) -> None:
        """What engines must do after the first cuts and before the last ones.

        Raises:
            QuiesceFailed: One could not, or holds no more.
        """
        for part in self.parts:
            if part.planned.last:
                with part.guard:
                    part.between(within(BETWEEN_SECONDS))

    @property
    def is_whole(self) -> bool:
        """Whether every part still holds, as far as has been heard."""
        return all(part.state == "held" for part in self.parts)


@contextmanager
def held(cluster: Cluster, planned: Sequence[PlannedPart], rules: HoldRules, *, run: str) -> Iterator[Hold]:
    """Hold every part while the block runs; the block cuts. At its end: a second round trip, release, confirm.

    Raises:
        QuiesceFailed: A part could not be held; every part was let go before this is raised.
        ThawUnconfirmed: A part did not show that it takes writes again; the message holds the command for it.
    """
    one = OneClock()
    hold = Hold(rules, [Part(each, one) for each in sorted(planned, key=lambda each: (each.rank, each.name))], one)
    beating = Beating(hold)
    try:
        try:
            arm(cluster, hold, run)
            beating.start()
            hold.ends = Deadline.after(rules.soft_budget)
            freeze(hold)
            yield hold
        finally:
            with signals_ignored():
                beating.stop()
                let_go(cluster, hold)
    except QuiesceFailed as failure:
        failure.add_note("every pod was let go")
        raise


def arm(cluster: Cluster, hold: Hold, run: str) -> None:
    """Open every session and wait until every watchdog is armed."""
    rules = hold.rules

    def open_one(numbered: tuple[int, Part]) -> None:
        number, part = numbered
        part.token = f"{run}-{number}"
        text = holder_text(part.planned.script, token=part.token, lease=rules.lease, hard=rules.hard_budget)
        part.arm(cluster, text)
        part.armed(within(ARM_SECONDS))

    in_parallel(open_one, list(enumerate(hold.parts)))


def freeze(hold: Hold) -> None:
    """Rank by rank; the parts of one rank together.

    Raises:
        QuiesceFailed: One could not be held, or one that was held is no more.
    """
    for _, group in groupby(hold.parts, key=lambda part: part.planned.rank):
        with ExitStack() as guards:
            rank = [guarded(part, guards) for part in group]
            for part in rank:
                part.freeze()
            deadline = within(FREEZE_SECONDS)
            for part in rank:
                part.frozen(deadline)
    check_whole(hold)


def guarded(part: Part, guards: ExitStack) -> Part:
    """The part, this thread's alone until the guards are left."""
    guards.enter_context(part.guard)
    return part


def check_whole(hold: Hold) -> None:
    """Nothing has broken so far; an empty hold is whole."""
    for part in hold.parts:
        if part.state != "held":
            raise QuiesceFailed(
                f"{part.planned.script.engine} in {part.planned.name} is no longer held: {part.broken}",
                pod=str(part.planned.place),
            )


def beat_all(hold: Hold, number: int) -> None:
    """One round trip to every part that is held: all are asked, then all are heard."""
    asked: list[tuple[Part, datetime]] = []
    for part in hold.parts:
        if part.guard.acquire(blocking=False):
            if part.state == "held":
                asked.append((part, part.beat(number)))
            else:
                part.guard.release()
    deadline = within(ANSWER_SECONDS)
    for part, sent in asked:
        try:
            part.beaten(number, sent, deadline)
        finally:
            part.guard.release()


class Beating:
    """The thread that beats while the main one cuts."""

    def __init__(self, hold: Hold) -> None:
        self._hold, self._over = hold, threading.Event()
        self._thread = threading.Thread(target=self._beat, name="hold beats", daemon=True)
        self.number = 0

    def start(self) -> None:
        """Begin; parts are beaten from the moment they hold."""
        self._thread.start()

    def stop(self) -> None:
        """No beat is under way afterwards. Then the round trip that proves: sent after the cut was seen."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()
            beat_all(self._hold, self.number + 1)

    def _beat(self) -> None:
        while not pause(self._hold.rules.heartbeat, until=self._over):
            self.number += 1
            beat_all(self._hold, self.number)
            if any(part.state == "broken" for part in self._hold.parts):
                release(self._hold)  # the proof is lost: nobody stands still for nothing
                return


def let_go(cluster: Cluster, hold: Hold) -> None:
    """Release in reverse order, thaw what did not answer, confirm all by a fresh write, and look at every pod again.

    Raises:
        ThawUnconfirmed: With the command for each part that did not confirm.
    """
    release(hold)
    touched = [part for part in hold.parts if part.session is not None]
    for part in touched:
        part.close()
    frozen = [part for part in touched if part.freeze_sent_at is not None]
    in_parallel(lambda part: confirm(cluster, part), frozen)
    after = in_parallel(lambda part: seen(cluster, part), hold.parts)
    hold.records = [part.record(state) for part, state in zip(hold.parts, after, strict=True)]
    late = [part for part in frozen if part.confirmed is False]
    if late:
        names = ", ".join(part.planned.name for part in late)
        raise ThawUnconfirmed(
            f"no fresh write went through after the release in: {names}; by hand: "
            + "; ".join(part.planned.thaw_by_hand for part in late)
        )


def release(hold: Hold) -> None:
    """Tell every part that has not been let go, rank by rank in reverse order, and hear what it says.

    A broken one is told, but nobody waits for its word: it is thawed by command.
    """
    left = [part for part in reversed(hold.parts) if part.session is not None and part.state != "released"]
    for _, group in groupby(left, key=lambda part: part.planned.rank):
        with ExitStack() as guards:
            rank = [guarded(part, guards) for part in group]
            for part in rank:
                part.release()
            deadline = within(RELEASE_SECONDS)
            for part in rank:
                if part.state != "broken":
                    part.is_released(deadline)


def confirm(cluster: Cluster, part: Part) -> None:
    """A fresh write; where it or the release fails, thaw by command and try again: its container may be starting anew.

    No pod, no risk.
    """
    script = part.planned.script
    if part.state == "released" and succeeds(cluster, part, script.confirm):
        part.confirmed = True
        return
    limit = Deadline.after(THAW_LIMIT)
    while True:
        succeeds(cluster, part, script.thaw)
        part.confirmed = succeeds(cluster, part, script.confirm)
        if part.confirmed or limit.is_over:
            return
        with suppress(RefloatError):
            state = look(cluster, part.planned.place)
            if state is None or state.uid != part.planned.before.uid:
                part.confirmed = None
                return
        pause(THAW_AGAIN)


def seen(cluster: Cluster, part: Part) -> PodState | None:
    """The pod after the hold; None when it is gone, or nobody can say."""
    try:
        state = look(cluster, part.planned.place)
    except RefloatError:
        return None
    before = part.planned.before
    is_over = state is not None and state.uid == before.uid and (state != before or part.state == "broken")
    if is_over and part.confirmed is not False:  # what may still be frozen needs its watchdog, which needs the folder
        tidy(cluster, part)
    return state


def tidy(cluster: Cluster, part: Part) -> None:
    """Holder and watchdog may have been killed, or gone with their container, but their folder stays: ``/dev/shm`` is
    the pod's.
    """
    folders = [f"{base}/refloat-{part.token}" for base in HOLDER_BASES]
    limit = Deadline.after(THAW_LIMIT)
    while part.token and not succeeds(cluster, part, ("rm", "-rf", *folders)) and not limit.is_over:
        pause(THAW_AGAIN)


def succeeds(cluster: Cluster, part: Part, command: Sequence[str]) -> bool:
    """Whether a command in the part's container ended with 0 in its time."""
    place = part.planned.runs_in
    try:
        return cluster.exec(place.namespace, place.pod, place.container, command, timeout=THAW_LIMIT).exit_code == 0
    except RefloatError:
        return False
