"""The application's lease: never two runs at once, no living one robbed, a dead one's hold let go before."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta

import pytest

from kube.application_lease import ApplicationLease, hold_application
from kube.cluster import Cluster
from kube.hold_record import HOLD, THAWED, HeldPlace, record_of
from kube.home import HOME, ensure_home
from kube.marks import annotations_of, labels_of
from kube.runs import LEASE
from kube.sweep import sweep
from kube.thawing import lease_of, left_holds, name_of_lease
from practice.access import Fault
from practice.range import PracticeRange
from refloat.application import RUN_LABEL, HoldRules
from refloat.clock import now
from refloat.errors import LeaseHeld, QuiesceFailed, ThawUnconfirmed
from refloat.recovery_point import new_id
from tests.contract.given import unique
from tests.kube.frozen import Frozen, lease, record, say_renewed
from tests.kube.still import Writer

HOUR = timedelta(hours=1)
OFTEN = timedelta(milliseconds=50)
WATCHED = timedelta(milliseconds=400)
ROUNDS = 50


@pytest.fixture
def app(cluster: Cluster) -> Iterator[str]:
    """An application's name; no lease of it outlives the test."""
    ensure_home(cluster)
    name = unique("app")
    yield name
    cluster.delete(LEASE, name_of_lease(name), HOME)


def died(cluster: Cluster, app: str, *places: HeldPlace) -> str:
    """A run that died an hour ago, with these parts on record."""
    run = new_id()
    left: list[ApplicationLease] = []
    with suppress(KeyboardInterrupt), hold_application(cluster, app, run) as mine:
        left.append(mine)
        if places:
            mine.record(record(run, *places))
        raise KeyboardInterrupt
    if not places:  # it left in good order: put back what a killed process would have left
        with hold_application(cluster, app, run) as mine:
            mine.record(record(run))
    say_renewed(cluster, app, now() - HOUR)
    return run


@contextmanager
def renewing(cluster: Cluster, app: str, behind: timedelta) -> Iterator[None]:
    """Somebody renews the lease all the time, whose clock is wrong by so much."""
    over, begun = threading.Event(), threading.Event()

    def renew() -> None:
        while not over.is_set():
            say_renewed(cluster, app, now() - behind)
            begun.set()

    thread = threading.Thread(target=renew)
    thread.start()
    begun.wait()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_second_run_is_refused_and_told_by_whom(cluster: Cluster, app: str) -> None:
    """While one is at work; afterwards nothing is left and the next one may."""
    first, second = new_id(), new_id()
    with hold_application(cluster, app, first) as mine:
        since = lease(cluster, app)["spec"]["acquireTime"][:19]
        with pytest.raises(LeaseHeld, match=rf"run {first} is at work on {app} since {since}Z") as refused:
            hold_application(cluster, app, second).__enter__()
        assert (refused.value.code, refused.value.exit_code) == ("LEASE-HELD", 42)
        mine.check_held()
        assert RUN_LABEL not in labels_of(lease(cluster, app))
        sweep(cluster, run=first, dry_run=False)
        mine.check_held()
    assert lease_of(cluster, app) is None
    with hold_application(cluster, app, second):
        pass
    assert lease_of(cluster, app) is None


def test_never_two_holders(cluster: Cluster, app: str) -> None:
    """Two threads at one instant, many times over: one has it, the other is refused."""
    won = 0
    for _ in range(ROUNDS):
        at_once, both_tried = threading.Barrier(2), threading.Barrier(2)

        def attempt(run: str, at_once: threading.Barrier = at_once, tried: threading.Barrier = both_tried) -> bool:
            at_once.wait()
            try:
                with hold_application(cluster, app, run):
                    tried.wait()
                    return True
            except LeaseHeld:
                tried.wait()
                return False

        with ThreadPoolExecutor(2) as pool:
            outcomes = list(pool.map(attempt, [new_id(), new_id()]))
        assert sum(outcomes) == 1
        won += outcomes[0]
    assert lease_of(cluster, app) is None


def test_a_dead_runs_lease_is_taken_after_its_hold_is_let_go(cluster: Cluster, namespace: str, app: str) -> None:
    """The engine writes again before the next run has the lease; who did it is on the lease."""
    frozen = Frozen(cluster, namespace, "db").start()
    dead = died(cluster, app, frozen.place)
    assert frozen.is_frozen
    run = new_id()
    with hold_application(cluster, app, run, watched_for=WATCHED) as mine:
        assert not frozen.is_frozen
        found = lease(cluster, app)
        assert (found["spec"]["holderIdentity"], found["spec"]["leaseTransitions"]) == (run, 1)
        assert record_of(found) is None and dead != run
        assert f"run {run}" in annotations_of(found)[THAWED]
        mine.check_held()
    assert lease_of(cluster, app) is None


def test_two_take_over_at_once(cluster: Cluster, app: str) -> None:
    """One of them gets a dead run's lease."""
    for _ in range(3):
        died(cluster, app)
        at_once, both_tried = threading.Barrier(2), threading.Barrier(2)

        def attempt(run: str, at_once: threading.Barrier = at_once, tried: threading.Barrier = both_tried) -> bool:
            at_once.wait()
            try:
                with hold_application(cluster, app, run, watched_for=OFTEN):
                    tried.wait()
                    return True
            except LeaseHeld:
                tried.wait()
                return False

        with ThreadPoolExecutor(2) as pool:
            assert sum(pool.map(attempt, [new_id(), new_id()])) == 1


def test_a_hold_that_will_not_go_keeps_the_next_run_out(practice: PracticeRange) -> None:
    """The dead run's lease stays as it is, with the record."""
    cluster = Cluster.open(kubeconfig=str(practice.kubeconfig))
    ensure_home(cluster)
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "app"}})
    frozen = Frozen(cluster, "app", "db").start()
    dead = died(cluster, "shop", frozen.place)
    fault = practice.access.inject(Fault("answer", r"/pods/db/exec", status=500, times=99))
    with pytest.raises(ThawUnconfirmed, match="kubectl exec -n app db -c main -- rm -f /work/locked"):
        hold_application(cluster, "shop", new_id(), watched_for=WATCHED).__enter__()
    assert fault.fired == 1
    found = lease(cluster, "shop")
    assert (found["spec"]["holderIdentity"], HOLD in annotations_of(found)) == (dead, True)


@pytest.mark.parametrize("behind", [HOUR, -HOUR], ids=["behind", "ahead"])
def test_a_clock_an_hour_wrong(cluster: Cluster, app: str, behind: timedelta) -> None:
    """A living run is not taken for dead, nor a dead one for alive."""
    other = new_id()
    with hold_application(cluster, app, other, every=HOUR):
        with renewing(cluster, app, behind), pytest.raises(LeaseHeld, match=other):
            hold_application(cluster, app, new_id(), watched_for=WATCHED).__enter__()
        say_renewed(cluster, app, now() - behind)
        with hold_application(cluster, app, new_id(), watched_for=WATCHED) as mine:
            mine.check_held()


def test_a_lost_lease_is_noticed_before_anything_is_frozen(cluster: Cluster, app: str) -> None:
    """Taken over or removed: the run that slept is told, and leaves the new holder's lease alone."""
    slept, run = new_id(), new_id()
    with hold_application(cluster, app, slept, every=HOUR) as mine:
        say_renewed(cluster, app, now() - HOUR)
        with hold_application(cluster, app, run, watched_for=WATCHED) as theirs:
            for act in (mine.check_held, mine.hold_is_over, lambda: mine.record(record(slept))):
                with pytest.raises(LeaseHeld, match=f"run {slept} lost the lease of {app}: run {run} has it"):
                    act()
            mine.leave()
            theirs.check_held()
            assert HOLD not in annotations_of(lease(cluster, app))
            cluster.delete(LEASE, name_of_lease(app), HOME)
            with pytest.raises(LeaseHeld, match="somebody removed it"):
                theirs.check_held()


def test_it_is_renewed_in_the_background(cluster: Cluster, app: str) -> None:
    """Without anybody asking."""
    with hold_application(cluster, app, new_id(), every=OFTEN):
        first = lease(cluster, app)["spec"]["renewTime"]
        cluster.wait(
            LEASE, name_of_lease(app), HOME, lambda obj: obj is not None and obj["spec"]["renewTime"] > first,
            timeout=timedelta(seconds=20), what="the lease is renewed",
        )  # fmt: skip


def test_the_hold_is_on_record_until_it_is_over(
    practice: PracticeRange, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With all that a thaw needs; a run that ends without having confirmed leaves lease and record."""
    cluster, rules = Cluster.open(kubeconfig=str(practice.kubeconfig)), HoldRules()
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "app"}})
    writer = Writer(cluster, "app", "one", tmp_path_factory.mktemp("one"), "server")
    writer.start()
    with hold_application(cluster, "shop", "r1") as mine:
        kept = mine.record_hold([writer.planned()], rules)
        (found,) = left_holds(cluster)
        assert (found.record, found.lives, found.is_over) == (kept, True, False)
        assert kept.deadline - kept.recorded_at == kept.over_after == timedelta(seconds=20 + 8 + 30)
        assert (kept.parts[0].thaw, kept.parts[0].pod) == (("sh", "-c", "rm -f paused"), "one")
        mine.hold_is_over()
        assert left_holds(cluster) == []
    assert lease_of(cluster, "shop") is None
    with hold_application(cluster, "shop", "r2") as mine:
        mine.record_hold([writer.planned()], rules)
    assert [each.record.run for each in left_holds(cluster)] == ["r2"]


def test_a_record_too_large_is_refused(cluster: Cluster, app: str) -> None:
    """Before anything is frozen, and the lease stays whole."""
    place = HeldPlace(namespace="n", pod="p", uid="u", container="c", engine="e", thaw=("sh", "-c", "x" * (100 << 10)))
    with hold_application(cluster, app, new_id()) as mine:
        with pytest.raises(QuiesceFailed, match="annotations of a lease may have 262144"):
            mine.record(record(mine.run, place))
        mine.record(record(mine.run, place.model_copy(update={"thaw": ("sh", "-c", "x" * (80 << 10))})))
        mine.hold_is_over()
    assert lease_of(cluster, app) is None
