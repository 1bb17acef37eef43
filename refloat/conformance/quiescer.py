"""The conformance suite of `Quiescer`: what every recipe must do on a real server under write load, as plain functions.

Each check takes a `Bench`, a way to one server in a container: refloat's own tests bring one over the practice range, a
plug-in's author brings one over whatever runs there. A check raises `AssertionError` with a sentence on what is wrong,
and gives the seconds it measured, where it measures some:

    findings = run(bench)
    assert all(finding.is_kept for finding in findings)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from refloat.clock import monotonic_seconds, pause
from refloat.conformance.object_store import require
from refloat.conformance.quiescer_bench import IN_FLIGHT, LEASE, USUAL_LEASE, Bench, Hold, Holder, Traffic, gone, opened
from refloat.errors import InvalidDocument

SHORT_HARD = timedelta(seconds=4)
AT_ONCE, BY_LEASE = 2.0, 12.0
"""Seconds until writes go on: where the session's end is seen, and by the lease."""
REFUSED_WITHIN = 7.5
FUNCTIONS = ("arm", "freeze", "beat", "release", "facts", "undo")

Check = Callable[[Bench], float | None]


@dataclass(frozen=True)
class Finding:
    """How one check ended: ``wrong`` is None when it is kept; ``seconds`` until writes went on, where measured."""

    check: str
    promise: str
    wrong: str | None
    seconds: float | None = None

    @property
    def is_kept(self) -> bool:
        """Whether the recipe does as the contract says."""
        return self.wrong is None


def run(bench: Bench, checks: Sequence[Check] | None = None) -> list[Finding]:
    """The checks (all when omitted) in order; a failing one does not keep the others from running."""
    return [_finding(check, bench) for check in (CHECKS if checks is None else checks)]


def _finding(check: Check, bench: Bench) -> Finding:
    name, promise = check.__name__, (check.__doc__ or "").strip()
    try:
        return Finding(name, promise, None, check(bench))
    except AssertionError as wrong:
        return Finding(name, promise, str(wrong))
    except Exception as foreign:  # noqa: BLE001 - a check that cannot run keeps nothing
        return Finding(name, promise, f"{type(foreign).__name__}: {foreign}")


def it_says_what_it_holds(bench: Bench) -> None:
    """There is something to hold, every function is there, and no password is in any text but the container's own."""
    scripts = bench.quiescer.scripts(bench.place, bench.options, bench.ask)
    require(bool(scripts), "it finds nothing to hold")
    for script in scripts:
        require(script.engine == bench.quiescer.engine, f"the engine is {script.engine!r}")
        missing = [name for name in FUNCTIONS if f"{name}()" not in script.functions]
        require(not missing, f"no function {', '.join(missing)}")
        texts = (repr(script), script.functions, *script.thaw, *script.confirm, *script.settings.values())
        require(not any(secret in text for secret in bench.secrets for text in texts), "a password is in its texts")


def an_unknown_option_is_refused(bench: Bench) -> None:
    """InvalidDocument, which names it."""
    try:
        bench.quiescer.scripts(bench.place, {**bench.options, "no-such-option": "x"}, bench.ask)
    except InvalidDocument as refused:
        require("no-such-option" in refused.message, "the message does not name the option")
        return
    raise AssertionError("an unknown option was taken")


def thaw_and_confirm_need_no_hold(bench: Bench) -> None:
    """Each ends with 0 when nothing is held, a second time too."""
    for script in bench.quiescer.scripts(bench.place, bench.options, bench.ask):
        for command, name in ((script.thaw, "thaw"), (script.confirm, "confirm")):
            codes = [bench.run(command) for _ in range(2)]
            require(codes == [0, 0], f"{name} with nothing held ended with {codes}")


def no_write_is_acknowledged_while_held(bench: Bench) -> float | None:
    """From HELD to release writes wait, reads go on, confirm fails in its time; then all go on, and nothing is left."""
    with Traffic(bench) as traffic, opened(bench) as hold:
        held = hold.freeze()
        hold.beat()
        bench.read()
        if hold.stops_writes:
            codes, over = list[int | None](), threading.Event()

            def confirm() -> None:
                codes.append(bench.run(hold.scripts[-1].confirm))
                over.set()

            asking = threading.Thread(target=confirm)
            asking.start()
            hold.keep(8, until=over)
            asking.join()
            require(bool(codes) and codes[0] not in (0, None), f"confirm ended with {codes} while it was held")
        else:
            hold.keep(1)
        hold.beat()
        released = hold.release()
        if hold.stops_writes:
            traffic.none_between(held, released)
        seconds = traffic.goes_on(released, AT_ONCE)
        for script in hold.scripts:
            require(bench.run(script.confirm) == 0, "confirm failed after the release")
    gone(bench)
    return seconds


def the_end_of_its_input_lets_go(bench: Bench) -> float | None:
    """When refloat's session is closed, writes go on at once."""
    return _let_go(bench, lambda holder, _: holder.close(), lambda _: AT_ONCE, lease=USUAL_LEASE)


def silence_lets_go(bench: Bench) -> float | None:
    """Without a beat writes go on after the lease, and the holder never says again that it holds."""
    return _let_go(bench, lambda _, __: None, lambda _: BY_LEASE, is_silent=True, still_speaks=True)


def a_killed_holder_lets_go(bench: Bench) -> float | None:
    """SIGKILL to the holder: its client's end, or its watchdog, lets go."""
    return _let_go(
        bench,
        lambda holder, _: holder.kill(),
        lambda hold: AT_ONCE if hold.is_session else BY_LEASE,
    )


def the_last_layer_alone_lets_go(bench: Bench) -> float | None:
    """All of the holder stands still: the server's timer lets go; where it has none, its watchdog alone."""
    return _let_go(
        bench,
        lambda holder, hold: holder.stop(all_of_it=not hold.has_no_timer),
        lambda _: BY_LEASE,
        is_silent=True,
    )


def _let_go(
    bench: Bench,
    fault: Callable[[Holder, Hold], None],
    limit: Callable[[Hold], float],
    *,
    is_silent: bool = False,
    still_speaks: bool = False,
    lease: timedelta = LEASE,
) -> float | None:
    """Hold under writes, put the fault in, and measure; writes must have waited until then."""
    with Traffic(bench) as traffic, opened(bench, lease=lease) as hold:
        held = hold.freeze()
        hold.keep(1.2)
        at = monotonic_seconds()
        for holder in hold.holders:
            fault(holder, hold)
        seconds = traffic.goes_on(at, limit(hold))
        if hold.stops_writes:
            traffic.none_between(held, at)
            if is_silent:
                require(seconds >= LEASE.total_seconds() - 1.5, f"it let go {seconds:.1f} s after the last beat")
        if still_speaks:
            if not hold.stops_writes:
                pause(LEASE + timedelta(seconds=2))
            hold.is_broken()
    gone(bench)
    return seconds if hold.stops_writes else None


def the_hard_limit_lets_go(bench: Bench) -> float | None:
    """However it is beaten, it lets go at the hard limit and says so."""
    with Traffic(bench) as traffic, opened(bench, hard=SHORT_HARD) as hold:
        held = hold.freeze()
        broken = ""
        try:
            hold.keep(SHORT_HARD.total_seconds() + 6)
        except AssertionError as ended:
            broken = str(ended)
        require("BROKEN" in broken, f"after the hard limit it should say BROKEN; {broken or 'it went on'}")
        seconds = traffic.goes_on(held + IN_FLIGHT, SHORT_HARD.total_seconds() + 6)
        hold.is_broken()
    gone(bench)
    return seconds + IN_FLIGHT if hold.stops_writes else None


def thaw_ends_a_hold(bench: Bench) -> float | None:
    """The stand-alone command lets go while the holder holds; the holder notices, and never says HELD after a write."""
    with Traffic(bench) as traffic, opened(bench) as hold:
        held = hold.freeze()
        hold.beat()
        at = monotonic_seconds()
        codes = [bench.run(script.thaw) for script in hold.scripts for _ in range(2)]
        require(set(codes) == {0}, f"thaw of what is held ended with {codes}")
        seconds = traffic.goes_on(at, AT_ONCE)
        # a client may learn late of what came before the hold, and no more is promised than after a write
        traffic.goes_on(monotonic_seconds(), AT_ONCE, is_fresh=True)
        if hold.stops_writes:
            traffic.none_between(held, at)
            hold.is_broken()
    gone(bench)
    return seconds if hold.stops_writes else None


def what_is_in_the_way_is_not_waited_for(bench: Bench) -> float | None:
    """Behind a long transaction or query the freeze fails in about 5 s, and who waited behind it goes on."""
    blocked = bench.in_the_way()
    if blocked is None:
        return None
    with Traffic(bench) as traffic, opened(bench) as hold, blocked:
        begun = monotonic_seconds()
        for holder in hold.holders:
            holder.say("freeze")
        words = [refusal(holder, begun + REFUSED_WITHIN) for holder in hold.holders]
        require("FAILED" in words, f"behind something that takes 20 s the holders said {words}")
        at = monotonic_seconds()
        for holder in hold.holders:
            holder.close()
        traffic.goes_on(at, AT_ONCE)
    gone(bench)
    return at - begun


def refusal(holder: Holder, until: float) -> str:
    """The first word it says until then; beaten meanwhile."""
    while (left := until - monotonic_seconds()) > 0:
        line = holder.hear(left)
        if line is None or line.startswith("refloat "):
            return line.split()[2] if line else "nothing"
    return "nothing"


CHECKS: tuple[Check, ...] = (
    it_says_what_it_holds,
    an_unknown_option_is_refused,
    thaw_and_confirm_need_no_hold,
    no_write_is_acknowledged_while_held,
    the_end_of_its_input_lets_go,
    silence_lets_go,
    a_killed_holder_lets_go,
    the_last_layer_alone_lets_go,
    the_hard_limit_lets_go,
    thaw_ends_a_hold,
    what_is_in_the_way_is_not_waited_for,
)
