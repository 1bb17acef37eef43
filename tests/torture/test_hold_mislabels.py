"""500 injected early thaws, restarts, failovers and lost messages: none is labelled application-consistent.

The real driver and holder over the practice range; the engine keeps every acknowledged write with its instant, so what
was true is known without the certificate (research/reliability.md §5, bar 6).
"""

from __future__ import annotations

import random
import secrets
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic

import pytest

from kube.cluster import Cluster
from kube.holding import Hold, held
from practice.range import PracticeRange
from refloat.application import Application, HoldRules, Member
from refloat.certificate import Certificate
from refloat.clock import pause
from refloat.errors import RefloatError
from refloat.inventory import Volume
from refloat.ports.volume_snapshotter import Cut, Ticket, VolumeSnapshot
from refloat.values import Consistency
from refloat.verdict import judged
from tasks.certify import certificate_of
from tests.kube.still import FIRST_FACTS, Writer, left_of
from tests.torture.hold_faults import (
    QUICK,
    SLOW,
    Fault,
    Struck,
    Victim,
    nothing,
    replace_pod,
    restart_container,
    strike_at,
)
from tests.torture.hold_line import HoldLine
from tests.until import until

pytestmark = pytest.mark.timeout(3600)
LANES = 8
"""Holds at once; each has pods and a line of its own."""
SECOND = timedelta(seconds=1)
RULES = HoldRules(
    soft_budget=2 * SECOND, hard_budget=6 * SECOND, lease=3 * SECOND, heartbeat=timedelta(milliseconds=150)
)
APPLICATION = Application(name="ledger", members=(Member(namespace="app"),), hold=RULES)
ANCHORS = ("freeze", "cut", "cut", "cut", "release")
TOO_SLOW = ("no answer in time", "expired", "no word for", "hard limit")


@dataclass(frozen=True)
class Window:
    """Between these instants of `time.monotonic` the cut was made."""

    began: float
    ended: float
    left_at_first: timedelta


@dataclass
class Round:
    """One hold with at most one fault, and what came of it."""

    fault: Fault | None
    rng: random.Random
    anchor: str
    """When its fault strikes: from the start of the hold, of the cut, or of the release."""
    runs: list[str] = field(default_factory=list)
    tries: int = 0
    struck: Struck = field(default_factory=Struck)
    certificate: Certificate | None = None
    """None: the run was refused, nothing was cut."""
    held_at: float | None = None
    window: Window | None = None
    written: int = 0
    """Writes acknowledged while the cut was made."""
    error: str = ""
    took: float = 0.0
    """Seconds, all tries together."""

    @property
    def is_inside(self) -> bool:
        """Whether the fault struck between the part's "held" and the cut seen."""
        if self.fault is None or self.window is None or self.struck.began is None or self.struck.ended is None:
            return False
        if self.fault.strike is nothing:
            return True
        return self.held_at is not None and self.held_at < self.struck.began and self.struck.ended < self.window.ended

    @property
    def is_mislabelled(self) -> bool:
        """Whether the certificate says more than is true."""
        if not self.is_best:
            return False
        return self.written > 0 or (self.fault is not None and self.fault.breaks and self.is_inside)

    @property
    def is_best(self) -> bool:
        """Whether its label is the best there is."""
        return self.certificate is not None and self.certificate.verdict is Consistency.APPLICATION

    @property
    def is_slow(self) -> bool:
        """Whether it was this machine that took too long: a lower label is right then, whatever was meant."""
        parts = self.certificate.parts if self.certificate else ()
        words = [self.error, *(part.broken or "" for part in parts)]
        return bool(self.certificate and self.certificate.late) or any(
            sign in each for sign in TOO_SLOW for each in words
        )

    def __str__(self) -> str:
        name = self.fault.name if self.fault else "no fault"
        told = (self.certificate.verdict.value, self.certificate.reasons) if self.certificate else self.error
        return f"{name}: struck {self.struck} held {self.held_at} cut {self.window} written {self.written} said {told}"


class Lane:
    """Two engines, one held by a session and one by a pause, and the line to them."""

    def __init__(self, number: int, practice: PracticeRange, base: Path, stack: ExitStack) -> None:
        self.cluster = Cluster.open(kubeconfig=str(practice.kubeconfig))
        self.line = stack.enter_context(HoldLine(practice.kubeconfig, base, str(number)))
        self.writers = [
            Writer(self.cluster, "app", f"{style}-{number}", base / f"{style}-{number}", style)
            for style in ("session", "server")
        ]
        for writer in self.writers:
            writer.start()

    def ready(self) -> None:
        """Wait until both write, as they did at first."""
        for writer in self.writers:
            writer.tell(FIRST_FACTS)
        for writer in self.writers:
            until(lambda writer=writer: goes_on(writer), f"{writer.name} writes")  # type: ignore[misc]

    def run(self, round_: Round) -> None:
        """Tries until the fault has struck; the later ones in the midst of the cut."""
        while round_.struck.began is None and round_.tries < 4:
            round_.tries += 1
            self.ready()
            begun = monotonic()
            self.once(round_)
            round_.took += monotonic() - begun
            if round_.fault is None:
                return

    def once(self, round_: Round) -> None:
        """One hold."""
        fault, rng = round_.fault, round_.rng
        writer = rng.choice(self.writers)
        victim = Victim(writer, self.line, rng)
        anchor = round_.anchor if round_.tries == 1 else "cut"
        seconds = rng.uniform(*(fault.cut_seconds if fault else (0.2, 0.6)))
        threads: list[threading.Thread] = []

        def strike(at: str) -> None:
            if fault is not None and fault.strike is not nothing and at == anchor:
                span = {"freeze": 0.35, "cut": min(seconds, 0.6) * 0.9, "release": 0.08}[at]
                threads.append(strike_at(fault, victim, rng.uniform(0, span), round_.struck))

        run = f"mislabel-{secrets.token_hex(4)}"
        round_.runs.append(run)
        planned = [each.planned(self.line.cluster, rank=rank) for rank, each in enumerate(self.writers)]
        hold: Hold | None = None
        strike("freeze")
        try:
            with held(self.line.cluster, planned, RULES, run=run) as hold:
                strike("cut")
                cut, round_.window = self.cut(hold, seconds, is_overrun=fault is not None and fault.is_overrun)
                strike("release")
        except RefloatError as failure:
            round_.error = str(failure)
        victim.over.set()
        for thread in threads:
            thread.join()
        victim.undo()
        if hold is not None and round_.window is not None:
            self.conclude(round_, hold, cut, writer)
        if fault is not None and fault.strike is replace_pod:
            for place in left_of(run):
                shutil.rmtree(place)  # as a pod's memory goes with the pod
        if fault is not None and fault.strike is restart_container:
            writer.replace()  # the kubelet would wait longer and longer

    def cut(self, hold: Hold, seconds: float, *, is_overrun: bool) -> tuple[Cut, Window]:
        """As the step group snapshot does, by storage that takes so long."""
        asked, left = hold.clock.instant(), hold.left
        began = monotonic()
        is_late = timedelta(seconds=seconds) > left and not is_overrun
        pause(left if is_late else timedelta(seconds=seconds))
        window = Window(began, monotonic(), left)
        seen = hold.clock.instant()
        names = {f"app/{writer.name}": writer.name for writer in self.writers}
        ticket = Ticket("run", "group-snapshot", (), names)
        snapshots = tuple(snapshot(writer.name, asked) for writer in self.writers)
        return Cut(asked, None if is_late else seen, ticket, snapshots), window

    def conclude(self, round_: Round, hold: Hold, cut: Cut, victim: Writer) -> None:
        """The certificate as the step certify makes it, and what really happened."""
        assert round_.window is not None
        round_.certificate = judged(certificate_of(APPLICATION, cut, hold.records, (), ()))
        to_monotonic = monotonic() - hold.clock.instant().timestamp()
        part = next(each for each in hold.records if each.pod == victim.name)
        round_.held_at = part.held_at.timestamp() + to_monotonic if part.held_at else None
        round_.written = sum(each.writes_between(round_.window.began, round_.window.ended) for each in self.writers)
        is_cut_fault = round_.fault is not None and round_.fault.strike is nothing
        if is_cut_fault and round_.window.ended - round_.window.began >= round_.window.left_at_first.total_seconds():
            round_.struck = Struck(round_.window.began, round_.window.ended)


def snapshot(name: str, cut_at: datetime) -> VolumeSnapshot:
    """One volume's image, cut."""
    volume = Volume("app", name, "", "Bound", "", "practice", "", None, 1, (), "Filesystem")
    return VolumeSnapshot(volume, name, "app", "ready", cut_at)


def goes_on(writer: Writer) -> bool:
    """Whether it has written something new while we looked."""
    was = writer.count
    pause(timedelta(milliseconds=15))
    return writer.count > was


def drawn(seed: int, faults: int, *, is_whole: bool) -> list[Round]:
    """So many faults, every kind in turn, slow ones first; and holds without a fault.

    In the short form a fault that silences a holder never strikes while that arms: refloat waits 20 s for it then.
    """
    wholes = max(4, faults // 8)
    slow = max(len(SLOW), faults // 8)
    kinds: list[Fault | None] = [SLOW[number % len(SLOW)] for number in range(slow)]
    kinds += [QUICK[number % len(QUICK)] for number in range(faults - slow)]
    kinds += [None] * wholes
    plan = []
    for number, fault in enumerate(kinds):
        rng = random.Random(f"{seed}-{number}")
        anchor = rng.choice(ANCHORS)
        is_fixed = fault in SLOW and (not is_whole or (fault is not None and fault.cut_seconds[0] > 1))
        plan.append(Round(fault, rng, "cut" if is_fixed else anchor))
    return plan


@pytest.fixture
def lanes(ram: Path) -> Iterator[list[Lane]]:
    """A practice range with the engines at work."""
    with PracticeRange(ram / "range") as practice, ExitStack() as stack:
        cluster = Cluster.open(kubeconfig=str(practice.kubeconfig))
        cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "app"}})
        with ThreadPoolExecutor(LANES) as pool:
            yield list(pool.map(lambda number: Lane(number, practice, ram, stack), range(LANES)))


def test_no_hold_is_said_to_be_better_than_it_was(
    lanes: list[Lane], rounds: Callable[[int, int], int], seed: int
) -> None:
    """Each fault strikes at random before, in and after the cut; without a fault the label is the best."""
    plan = drawn(seed, rounds(25, 500), is_whole=rounds(0, 1) == 1)
    waiting, guard = iter(plan), threading.Lock()

    def work(lane: Lane) -> None:
        while True:
            with guard:
                mine = next(waiting, None)
            if mine is None:
                return
            lane.run(mine)

    with ThreadPoolExecutor(LANES) as pool:
        list(pool.map(work, lanes))
    report(plan)
    assert not [str(each) for each in plan if each.is_mislabelled]
    wholes = [each for each in plan if each.fault is None]
    assert not [str(each) for each in wholes if not each.is_best and not each.is_slow]
    assert sum(each.is_best for each in wholes) > len(wholes) // 2, "this machine is too slow to hold anything"
    assert not [str(each) for each in plan if each.fault is not None and each.struck.began is None]
    inside = Counter(each.fault for each in plan if each.fault is not None and each.is_inside)
    if rounds(0, 1):
        assert all(inside[fault] for fault in (*SLOW, *QUICK) if fault.breaks), "every kind struck within a hold"
    assert sum(each.written > 0 for each in plan) > 0, "no fault let a write through: nothing was at stake"
    assert_nothing_left(lanes, [run for each in plan for run in each.runs])


def assert_nothing_left(lanes: Sequence[Lane], runs: Sequence[str]) -> None:
    """No holder, watchdog or client; no folder of theirs; nobody is held."""
    writers = [writer for lane in lanes for writer in lane.writers]

    def strangers() -> list[bytes]:
        return [words for writer in writers for pid, words in writer.processes().items() if pid not in writer.server()]

    until(lambda: not strangers(), "no process of a hold is left")
    assert not [place for run in runs for place in left_of(run)]
    for writer in writers:
        until(lambda writer=writer: goes_on(writer), f"{writer.name} writes")  # type: ignore[misc]


def report(plan: Sequence[Round]) -> None:
    """What happened, a line a fault."""
    kinds = dict.fromkeys(each.fault for each in plan)
    print(f"{'fault':26}{'struck':>8}{'inside':>8}{'wrote':>8}{'refused':>8}{'best label':>11}{'longest, s':>12}")
    for fault in kinds:
        mine = [each for each in plan if each.fault is fault]
        best = sum(each.is_best for each in mine)
        longest = max(each.took for each in mine)
        numbers = (
            sum(each.struck.began is not None for each in mine),
            sum(each.is_inside for each in mine),
            sum(each.written > 0 for each in mine),
            sum(each.certificate is None for each in mine),
        )
        print(
            f"{fault.name if fault else 'no fault':26}"
            + "".join(f"{n:8}" for n in numbers)
            + f"{best:11}{longest:12.1f}"
        )
