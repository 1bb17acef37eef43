"""A bench for quiescers: one server in a container under write load, the holders of one hold, and what they answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from typing import Protocol

from refloat.clock import monotonic_seconds, pause
from refloat.conformance.object_store import require
from refloat.errors import RefloatError
from refloat.ports.quiescer import HoldScript, Place, Quiescer

LEASE = timedelta(seconds=4)
"""Where the lease is what lets go; longer than a busy machine keeps a beat waiting."""
USUAL_LEASE = timedelta(seconds=10)
HARD = timedelta(seconds=30)
IN_FLIGHT = 1.0
"""Within so many seconds after HELD a client may still see the answer that came before it."""
BEAT = timedelta(seconds=0.5)
BETWEEN = timedelta(seconds=0.03)
ANSWER, ARM = 5.0, 20.0


class Holder(Protocol):
    """One holder (`kube/holder.sh`) in the container, with its standard input and output."""

    def say(self, line: str) -> None:
        """Give it one line; one that has ended swallows it."""
        ...

    def hear(self, seconds: float) -> str | None:
        """Its next line; None when it has ended, or there is none in time."""
        ...

    def close(self) -> None:
        """End its input, and leave; at once, twice as well."""
        ...

    def kill(self) -> None:
        """SIGKILL to its shell alone; its watchdog and client live on."""
        ...

    def stop(self, *, all_of_it: bool) -> None:
        """SIGSTOP to its shell, or to all of it: shell, watchdog and client; until ``discard``."""
        ...

    def discard(self) -> None:
        """Whatever is left of it is killed, stopped or not."""
        ...


class Bench(Protocol):
    """One server in a container, and clients of it that are not refloat's."""

    quiescer: Quiescer
    place: Place
    options: dict[str, str]
    secrets: tuple[str, ...]
    """Passwords the recipe reads in the container; they may appear nowhere else."""
    own_seconds: float
    """What the server itself may need, once it was let go, until it takes writes: 0, or how long it takes to start."""

    def ask(self, command: Sequence[str]) -> str:
        """As `refloat.ports.quiescer.Ask`."""
        ...

    def run(self, command: Sequence[str]) -> int | None:
        """The exit code of a command in the container; None when it has not ended after 10 s."""
        ...

    def hold(self, script: HoldScript, *, lease: timedelta, hard: timedelta) -> Holder:
        """Start a holder for a script, with a token of its own."""
        ...

    def write(self) -> None:
        """One write over a fresh connection; returns once it is acknowledged, raises when it is refused."""
        ...

    def read(self) -> None:
        """One read over a fresh connection; raises when it takes longer than 5 s."""
        ...

    def in_the_way(self) -> AbstractContextManager[None] | None:
        """A client's doing that the freeze has to wait for, for 20 s; None: nothing can be in this engine's way."""
        ...

    def leftovers(self) -> Sequence[str]:
        """Holders' processes and folders that there are."""
        ...


class Traffic:
    """A client that writes without a break, each write over a connection of its own, and when each was acknowledged."""

    def __init__(self, bench: Bench) -> None:
        self._bench, self._over, self._news = bench, threading.Event(), threading.Condition()
        self.acknowledged: list[tuple[float, float]] = []
        """When each was begun and acknowledged."""
        self._thread = threading.Thread(target=self._write, name="traffic", daemon=True)

    def __enter__(self) -> Traffic:
        self._thread.start()
        self.goes_on(monotonic_seconds(), ANSWER)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _write(self) -> None:
        while not self._over.is_set():
            begun = monotonic_seconds()
            try:
                self._bench.write()
            except Exception:  # noqa: BLE001 - a refused write is one that was not acknowledged
                pause(timedelta(seconds=0.1))
                continue
            with self._news:
                self.acknowledged.append((begun, monotonic_seconds()))
                self._news.notify_all()
            pause(BETWEEN)

    def goes_on(self, since: float, limit: float, *, is_fresh: bool = False) -> float:
        """Seconds from ``since`` until the next write (``is_fresh``: begun since) was acknowledged.

        Raises:
            AssertionError: More than ``limit``.
        """

        def first() -> float | None:
            ends = (end for begun, end in self.acknowledged if (begun if is_fresh else end) > since)
            return next(ends, None)

        limit += self._bench.own_seconds
        with self._news:
            self._news.wait_for(lambda: first() is not None, timeout=max(0.0, since + limit + 10 - monotonic_seconds()))
            found = first()
        require(found is not None, f"no write was acknowledged {limit + 10:.0f} s after")
        assert found is not None
        require(found - since <= limit, f"a write was acknowledged only after {found - since:.1f} s, not {limit} s")
        return found - since

    def none_between(self, held: float, released: float) -> None:
        """None was acknowledged between the two instants."""
        for begun, end in list(self.acknowledged):
            is_in = held < end < released and (begun > held or end > held + IN_FLIGHT)
            require(not is_in, f"a write was acknowledged {end - held:.2f} s after HELD, before the release")


class Hold:
    """All scripts of a server, each in its holder."""

    def __init__(self, scripts: Sequence[HoldScript], holders: Sequence[Holder]) -> None:
        self.scripts, self.holders = scripts, holders
        self.facts: list[list[str]] = []
        self._number = 0

    @property
    def stops_writes(self) -> bool:
        """Whether every script says so."""
        return all(script.stops_writes for script in self.scripts)

    @property
    def is_session(self) -> bool:
        """Whether the end of a session lets every script go."""
        return all(script.ends_with == "session" for script in self.scripts)

    @property
    def has_no_timer(self) -> bool:
        """Whether only the watchdog lets go when nobody speaks."""
        return any(script.ends_with in ("watchdog", "nothing") for script in self.scripts)

    def arm(self) -> None:
        """All of them."""
        self.facts = [answer(holder, "ARMED", ARM) for holder in self.holders]

    def freeze(self) -> float:
        """All of them; the instant when the last one said HELD."""
        for holder in self.holders:
            holder.say("freeze")
        for holder in self.holders:
            answer(holder, "HELD", 10)
        return monotonic_seconds()

    def beat(self) -> None:
        """One round trip to all; each must answer its number, with the facts it had."""
        self._number += 1
        for holder in self.holders:
            holder.say(f"beat {self._number}")
        for holder, facts in zip(self.holders, self.facts, strict=True):
            number, *now = answer(holder, "HELD", ANSWER)
            require(number == str(self._number), f"beat {self._number} was answered by {number}")
            require(now == facts, f"a fact changed in a hold in which nothing happened: {facts} → {now}")

    def keep(self, seconds: float, until: threading.Event | None = None) -> None:
        """Beat for so long, or until the event is set."""
        end = monotonic_seconds() + seconds
        while monotonic_seconds() < end and not (until and until.is_set()):
            self.beat()
            pause(BEAT)

    def release(self) -> float:
        """In reverse; the instant before the first was told to."""
        begun = monotonic_seconds()
        for holder in reversed(self.holders):
            holder.say("release")
        for holder in reversed(self.holders):
            since, until = answer(holder, "RELEASED", ANSWER)
            require(float(since) <= float(until), f"held from {since} to {until}")
        return begun

    def is_broken(self) -> None:
        """None of them says that it holds; those that still speak say BROKEN."""
        for holder in self.holders:
            holder.say("beat 999")
            while (line := holder.hear(ANSWER)) is not None:
                word = line.split()[2] if line.startswith("refloat ") else ""
                require(word != "HELD", f"it let go, and says that it holds: {line}")


def answer(holder: Holder, word: str, seconds: float) -> list[str]:
    """The words after ``word``, which must be the holder's next."""
    end = monotonic_seconds() + seconds
    while (line := holder.hear(end - monotonic_seconds())) is not None:
        if line.startswith("refloat "):
            _, _, said, *rest = line.split()
            require(said == word, f"the holder should say {word}, but said: {line}")
            return rest
    raise AssertionError(f"the holder said no {word} in {seconds:.0f} s")


@contextmanager
def opened(bench: Bench, *, lease: timedelta = USUAL_LEASE, hard: timedelta = HARD) -> Iterator[Hold]:
    """Holders for all scripts, armed; nothing of them is left at the end."""
    scripts = bench.quiescer.scripts(bench.place, bench.options, bench.ask)
    holders = [bench.hold(script, lease=lease, hard=hard) for script in scripts]
    try:
        hold = Hold(scripts, holders)
        hold.arm()
        yield hold
    finally:
        for holder in holders:
            with suppress(RefloatError, OSError):
                holder.close()
        for script, holder in zip(scripts, holders, strict=True):
            holder.discard()
            bench.run(script.thaw)


def gone(bench: Bench) -> None:
    """No holder's process or folder is left, a few seconds later at the latest."""
    end = monotonic_seconds() + LEASE.total_seconds() + 6
    while (left := bench.leftovers()) and monotonic_seconds() < end:
        pause(timedelta(seconds=0.1))
    require(not left, f"left behind: {', '.join(left)}")
