"""What goes wrong with a hold on purpose: early thaws, restarts, failovers, lost and late messages, overrun cuts.

A fault is handed one part and strikes it; it tells whether there was anything to strike.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import monotonic

from tests.kube.still import Writer
from tests.torture.hold_line import HoldLine


@dataclass
class Victim:
    """One part under a hold, the line to it, and what must be undone after the round."""

    writer: Writer
    line: HoldLine
    rng: random.Random
    over: threading.Event = field(default_factory=threading.Event)
    """Set when the hold is over: no fault goes on for longer."""
    stopped: list[int] = field(default_factory=list)

    def send(self, number: signal.Signals, pids: Iterable[int | None]) -> bool:
        """Signal these processes of its own folder; whether there were any."""
        alive = [pid for pid in pids if pid is not None and pid in self.writer.processes()]
        if number is signal.SIGSTOP:
            self.stopped += alive
        return sum(sent(number, pid) for pid in alive) > 0

    def undo(self) -> None:
        """Wake what was stopped; the line is whole again."""
        stopped, self.stopped = self.stopped, []
        self.send(signal.SIGCONT, stopped)
        self.line.heal()


def sent(number: signal.Signals, pid: int) -> bool:
    """Whether the process was still there to be signalled."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


Strike = Callable[[Victim], bool]


def kill_holder(victim: Victim) -> bool:
    """The shell dies at once; its watchdog lives."""
    return victim.send(signal.SIGKILL, victim.writer.holders())


def kill_watchdog_then_thaw(victim: Victim) -> bool:
    """Nobody watches any more, then the writers go on."""
    killed = victim.send(signal.SIGKILL, victim.writer.watchdogs())
    return thaw(victim) and killed


def thaw(victim: Victim) -> bool:
    """Behind the holder's back: the session that holds the lock is ended, or the pause lifted."""
    if victim.writer.style == "session":
        return victim.send(signal.SIGKILL, [victim.writer.client()])
    try:
        (victim.writer.folder / "paused").unlink()
    except FileNotFoundError:
        return False
    return True


def replace_pod(victim: Victim) -> bool:
    """Deleted and made anew under the same name."""
    victim.writer.replace()
    return True


def restart_container(victim: Victim) -> bool:
    """The engine dies, and the kubelet starts it again."""
    return victim.send(signal.SIGKILL, victim.writer.server())


def fail_over(victim: Victim) -> bool:
    """Another primary."""
    victim.writer.tell("replica 2")
    return True


def fail_over_and_back(victim: Victim) -> bool:
    """The same primary as before, on another timeline."""
    victim.writer.tell("primary 3")
    return True


def pull(victim: Victim) -> bool:
    """The connection ends."""
    return victim.line.pull() > 0


def mute(victim: Victim) -> bool:
    """Its answers no longer come."""
    victim.line.answers.clear()
    return True


def deafen(victim: Victim) -> bool:
    """It no longer hears us."""
    victim.line.words.clear()
    return True


def lag(victim: Victim) -> bool:
    """Its answers come late."""
    victim.line.answers.clear()
    victim.over.wait(victim.rng.uniform(0.1, 4.0))
    victim.line.answers.set()
    return True


def stop_holder(victim: Victim) -> bool:
    """It stands still, its watchdog does not."""
    return victim.send(signal.SIGSTOP, victim.writer.holders())


def pause_holder(victim: Victim) -> bool:
    """It stands still for a while."""
    stopped = stop_holder(victim)
    victim.over.wait(victim.rng.uniform(0.1, 2.5))
    victim.send(signal.SIGCONT, victim.stopped)
    return stopped


def pause_container(victim: Victim) -> bool:
    """Holder, watchdog and client stand still for longer than any lease, the engine does not."""
    shells = [*victim.writer.watchdogs(), *victim.writer.holders(), victim.writer.client()]
    stopped = victim.send(signal.SIGSTOP, shells)
    victim.over.wait(4.5)
    victim.send(signal.SIGCONT, victim.stopped)
    return stopped


def nothing(victim: Victim) -> bool:
    """For cuts that take too long: the harness makes them."""
    return True


@dataclass(frozen=True)
class Fault:
    """A kind of fault. ``cut_seconds`` is how long the cut takes, from and to."""

    strike: Strike
    breaks: bool = True
    """Whether a hold in whose time it strikes can never be proven; else what was written decides."""
    cut_seconds: tuple[float, float] = (0.2, 0.6)
    is_overrun: bool = False
    """The cut goes on although its time is over, and nobody says so."""

    @property
    def name(self) -> str:
        """For people."""
        return "cut too long" if self.cut_seconds[0] > 1 and self.strike is nothing else self.strike.__name__


SLOW = (
    Fault(mute),
    Fault(deafen),
    Fault(stop_holder),
    Fault(pause_container, breaks=False, cut_seconds=(4.8, 5.2), is_overrun=True),
    Fault(nothing, cut_seconds=(6.5, 7.0), is_overrun=True),
)
QUICK = (
    Fault(thaw),
    Fault(kill_holder),
    Fault(kill_watchdog_then_thaw),
    Fault(replace_pod),
    Fault(restart_container),
    Fault(fail_over),
    Fault(fail_over_and_back),
    Fault(nothing, cut_seconds=(2.1, 2.5)),
    Fault(pull),
    Fault(lag, breaks=False),
    Fault(pause_holder, breaks=False),
)


@dataclass
class Struck:
    """When a fault struck, on the clock of `time.monotonic`; None: there was nothing to strike."""

    began: float | None = None
    ended: float | None = None


def strike_at(fault: Fault, victim: Victim, delay: float, into: Struck) -> threading.Thread:
    """Let the fault strike after so many seconds, unless the hold is over before."""

    def wait_and_strike() -> None:
        if victim.over.wait(delay):
            return
        began = monotonic()
        if fault.strike(victim):
            into.began, into.ended = began, monotonic()

    thread = threading.Thread(target=wait_and_strike, name=fault.name, daemon=True)
    thread.start()
    return thread
