"""Bars 3 and 4: whatever happens to a hold, at any step of it, its server takes writes again in time; nothing is left.

Real servers under write load; the victim is a process that runs the real hold. Seconds run from the fault until a fresh
client's write is acknowledged: 2 where a session or the end of an input lets go, the lease + 2 by lease or watchdog.
"""

from __future__ import annotations

import importlib.util
import os
import queue
import random
import secrets
import signal
import statistics
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from practice.range import PracticeRange
from refloat.clock import monotonic_seconds
from refloat.values import Consistency
from tests.torture.letting_go import Held, Lane, Probes, until
from tests.torture.release_faults import FAULTS, LAYERS, STEPS, Happening, Scene
from tests.torture.servers import SERVERS, Postgresql, free_port

SHORT = {"lease": "3s", "softBudget": "10s", "hardBudget": "10s", "heartbeat": "1s"}
WHOLE = {"lease": "10s", "softBudget": "10s", "hardBudget": "30s", "heartbeat": "1s"}
PROOF = Consistency.APPLICATION.value


ENOUGH_FAILURES = 3
UNFROZEN_SECONDS = 60
"""While nothing is frozen, holders bear silence for so long (`kube/holder.sh`)."""
SLOWNESS = 3
"""What a fresh client needs of itself, measured before each hold, may delay a release so many times over."""


@dataclass(frozen=True)
class Order:
    """One run that is to be."""

    step: str
    fault: str
    kind: type[Happening]
    seed: int


@dataclass(frozen=True)
class Outcome:
    """One run that was: seconds from the fault to a fresh write, of at most so many."""

    order: Order
    seconds: float
    limit: float
    verdict: str
    is_late: bool
    """Beyond the bar, but not beyond the slowness of the machine."""


def carry_out(lane: Lane, order: Order, rules: dict[str, str]) -> Outcome:
    """One hold, one fault; everything that must be true afterwards."""
    rng, happening, own = random.Random(order.seed), order.kind(), lane.own_seconds()
    run = f"t{secrets.token_hex(4)}"
    victim = lane.victim(order.step, run, rules, rng.uniform(0.1, 1.5), happening.without_server_lease)
    try:
        victim.wait_for_step()
        begun = monotonic_seconds()
        held = Held(lane.name)
        lease, hard = (float(rules[name].removesuffix("s")) for name in ("lease", "hardBudget"))
        scene = Scene(lane, victim, held, run, lease, hard, Probes(lane.server), begun)
        happening.inject(scene)
        if happening.without_server_lease or order.fault in LAYERS:
            wait_until_writable(scene, happening.limit(scene))
        happening.settle(scene)
        until("every holder has ended", lambda: not held.alive(), max(hard, UNFROZEN_SECONDS) + 5)
        scene.probes.stop()
        happening.finish(scene)
        if order.fault != "SIGKILL":
            assert victim.ended() == 0 and victim.end is not None
    finally:
        victim.destroy()
        happening.lift()
        lane.wire.heal()
    let_go_at = scene.probes.acknowledged_at(lane.writer.last_wait_ended(scene.since))
    outcome = Outcome(
        order,
        let_go_at - scene.since,
        happening.limit(scene) + SLOWNESS * own,
        victim.end["verdict"] if victim.end else "none",
        let_go_at - scene.since > happening.limit(scene),
    )
    check(scene, outcome, happening)
    return outcome


def wait_until_writable(scene: Scene, limit: float) -> None:
    """A fresh write goes through although nobody has put anything right yet."""
    asked = scene.since
    until(
        "a fresh write while only one layer was left",
        lambda: any(is_good and ended > asked for _, ended, is_good in list(scene.probes.seen)),
        limit + 5,
    )


def check(scene: Scene, outcome: Outcome, happening: Happening) -> None:
    """In time, nothing left, stopped while held, and nothing certified that was not so."""
    lane, victim = scene.lane, scene.victim
    assert outcome.seconds <= outcome.limit, (
        f"let go after {outcome.seconds:.2f} s, {outcome.limit:.2f} are allowed; {scene.probes.told(scene.since)}"
    )
    assert not lane.folders(scene.run), f"left: {lane.folders(scene.run)}"
    assert not scene.held.alive(), f"left: {scene.held.alive()}"
    until("no session of the hold is left in the server", lambda: lane.holds() == 0, 5)
    if "held" in victim.marks:
        ended = min(scene.since, victim.marks.get("second beat", scene.since))  # what follows it is the release
        if outcome.verdict == PROOF:
            ended = victim.marks["cut seen"]
        slipped = lane.writer.between(victim.marks["held"], ended)
        assert not slipped, f"{slipped} writes were acknowledged while it was held"
    if happening.breaks and outcome.order.step != "release sent" and victim.end is not None:
        assert outcome.verdict != PROOF, f"certified: {victim.end}"
        is_told = victim.end["error"] or any(victim.end["broken"]) or not happening.breaks_sessions
        assert is_told, f"nothing broke: {victim.end}"


def orders(engine: str, number: int, rng: random.Random, kinds: dict[str, type[Happening]]) -> list[Order]:
    """So many runs: every step with every fault as often, in any order."""
    server = SERVERS[engine]
    pairs = [
        (step, fault, kind)
        for fault, kind in kinds.items()
        for step in kind.steps
        if (step != "half held" or server.parts > 1)
        and (server.ends_with_session or not kind.is_for_sessions_only)
        and (step not in ("armed", "freeze sent") or not kind.is_slow_when_armed or rules_of_run() is WHOLE)
    ]
    chosen: list[tuple[str, str, type[Happening]]] = []
    while len(chosen) < number:
        rng.shuffle(pairs)
        chosen += pairs
    return [Order(step, fault, kind, rng.randrange(1 << 32)) for step, fault, kind in chosen[:number]]


@contextmanager
def lanes_of(engine: str, number: int, tmp_path: Path) -> Iterator[list[Lane]]:
    """So many servers of one engine, each in a pod of one practice range."""
    needed(engine)
    with ExitStack() as stack:
        # servers run as users of their own, who must get to their folders
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp", prefix="hold-torture-")))
        root.chmod(0o755)
        practice = stack.enter_context(PracticeRange(tmp_path / "range"))
        lanes: list[Lane] = []
        for _ in range(number):
            name = f"{engine}-{secrets.token_hex(3)}"
            (root / name).mkdir()
            lane = Lane(practice, SERVERS[engine](root / name, free_port()), name)
            lanes.append(stack.enter_context(lane.serving()))
        yield lanes


def needed(engine: str) -> None:
    """Skip where the engine or its quiescer is not there."""
    if SERVERS[engine](Path("/nowhere"), 0).program() is None:
        pytest.skip(f"NOT RUN: no {engine} server is installed here")
    if importlib.util.find_spec(f"providers.quiescers.{engine}") is None:
        pytest.skip(f"NOT RUN: there is no quiescer for {engine}")


def carry_out_all(lanes: Sequence[Lane], todo: Sequence[Order], rules: dict[str, str]) -> list[Outcome]:
    """All orders, each by the next lane that is free; failures are raised together, each with its order."""
    engine, waiting = lanes[0].server.engine, queue.SimpleQueue[Order]()
    for order in todo:
        waiting.put(order)
    outcomes: list[Outcome] = []
    failures: list[str] = []

    def work(lane: Lane) -> None:
        while len(failures) < ENOUGH_FAILURES:
            try:
                order = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                outcomes.append(outcome := carry_out(lane, order, rules))
                print(
                    f"{engine}: {order.fault} at {order.step}: {outcome.seconds:.2f} s, {outcome.verdict}", flush=True
                )
            except Exception as failure:  # noqa: BLE001 - a run that could not be carried out is a failure as well
                failures.append(f"{lane.name}, {order.fault} at {order.step} (seed {order.seed}): {failure}")
                print(failures[-1], flush=True)

    threads = [threading.Thread(target=work, args=(lane,)) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report(engine, outcomes)
    assert not failures, "; ".join(failures)
    assert len(outcomes) == len(todo)
    return outcomes


def report(engine: str, outcomes: Sequence[Outcome]) -> None:
    """Counters per step and fault, and how long it took."""
    for fault in dict.fromkeys(outcome.order.fault for outcome in outcomes):
        seconds = sorted(outcome.seconds for outcome in outcomes if outcome.order.fault == fault)
        late = sum(outcome.is_late for outcome in outcomes if outcome.order.fault == fault)
        steps = Counter(outcome.order.step for outcome in outcomes if outcome.order.fault == fault)
        proofs = sum(outcome.verdict == PROOF for outcome in outcomes if outcome.order.fault == fault)
        print(
            f"{engine}: {fault}: {len(seconds)} runs, p50 {statistics.median(seconds):.2f} s, "
            f"p99 {seconds[int(0.99 * (len(seconds) - 1))]:.2f} s, max {seconds[-1]:.2f} s, "
            f"{late} beyond the bar, {proofs} certified; "
            + ", ".join(f"{step} {steps[step]}" for step in STEPS if steps[step])
        )


def rules_of_run() -> dict[str, str]:
    """The defaults when there is time, else a short lease."""
    return WHOLE if os.environ.get("REFLOAT_TORTURE") == "1" else SHORT


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("engine", "short", "whole"), [("postgresql", 4, 240), ("mariadb", 2, 140), ("redis", 2, 140)])
def test_whatever_happens_writes_are_possible_again(
    engine: str, short: int, whole: int, tmp_path: Path, rounds: Callable[[int, int], int], seed: int
) -> None:
    """Every fault at every step; in the short form some of them."""
    rng, number = random.Random(f"{seed} {engine}"), rounds(short, whole)
    with lanes_of(engine, min(4, number), tmp_path) as lanes:
        carry_out_all(lanes, orders(engine, number, rng, dict(FAULTS)), rules_of_run())


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("engine", "short"), [("postgresql", 3), ("mariadb", 1), ("redis", 1)])
def test_each_layer_alone_is_enough(
    engine: str, short: int, tmp_path: Path, rounds: Callable[[int, int], int], seed: int
) -> None:
    """All the others stopped, killed or left out; and the hard limit where the victim lives and beats."""
    rng, number = random.Random(f"{seed} {engine}"), rounds(short, 20)
    with lanes_of(engine, min(5, number), tmp_path) as lanes:
        carry_out_all(lanes, orders(engine, number, rng, dict(LAYERS)), rules_of_run())


@pytest.mark.parametrize("engine", list(SERVERS))
def test_without_a_fault_it_is_certified(engine: str, tmp_path: Path) -> None:
    """The harness itself disturbs nothing."""
    with lanes_of(engine, 1, tmp_path) as lanes:
        outcomes = carry_out_all(lanes, [Order("cut begun", "none", Happening, 1)], SHORT)
    assert [outcome.verdict for outcome in outcomes] == [PROOF]


def test_killed_while_its_freeze_waits_for_locks(tmp_path: Path) -> None:
    """What it has locked already is let go by the lease, though others keep it from the rest, one after the other."""
    with lanes_of("postgresql", 1, tmp_path) as lanes, ExitStack() as stack:
        lane, rules = lanes[0], SHORT
        assert isinstance(lane.server, Postgresql)
        own = lane.own_seconds()
        subprocess.run(
            lane.server.psql("shop", "create table first_in_line (); create table last_in_line ()"), check=True
        )
        victim = lane.victim("armed", "waits" + secrets.token_hex(4), rules, 0.1, without=False)
        stack.callback(victim.destroy)
        victim.wait_for_step()
        for table, seconds in (("first_in_line", 4), ("last_in_line", 60)):
            words = lane.server.psql("shop", f"begin; lock table {table}; select pg_sleep({seconds})")
            stack.callback(subprocess.Popen(words, stdout=subprocess.DEVNULL).kill)
        asked = "select count(*) from pg_locks where locktype = 'relation' and mode = '{}' and granted = {}"
        until("two are in the way", lambda: lane.server.number(asked.format("AccessExclusiveLock", "true")) == 2)
        held = Held(lane.name)
        victim.go_on()
        until("the freeze waits", lambda: lane.server.number(asked.format("ExclusiveLock", "false")) > 0)
        killed_at = monotonic_seconds()
        victim.send(signal.SIGKILL)
        probes = Probes(lane.server)
        until("every holder has ended", lambda: not held.alive(), 30)
        probes.stop()
        seconds = probes.acknowledged_at(lane.writer.last_wait_ended(killed_at)) - killed_at
        print(f"postgresql: killed while its freeze waited: {seconds:.2f} s")
        assert seconds <= 5 + SLOWNESS * own, probes.told(killed_at)
        until("no session of the hold is left in the server", lambda: lane.holds() == 0, 5)
