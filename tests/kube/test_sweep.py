"""The sweep: everything a run left goes with its data, nothing else does, and a run that lives is left alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest

from kube.cluster import Cluster
from kube.home import HOME, ensure_home, labels_in_run, name_in_run, run_of_name
from kube.jobs import start
from kube.marks import FILLED, RECOVERY
from kube.mover_job import job_of
from kube.runs import attend, leave, name_of_lease
from kube.snapshot_objects import CONTENT, GROUP, GROUP_CONTENT, GROUP_LABEL, SNAPSHOT
from kube.snapshots import wait_cut, wait_ready
from kube.sweep import sweep
from practice.range import PracticeRange
from providers.snapshotters.csi import open_snapshotter
from refloat import clock
from refloat.application import RUN_LABEL
from refloat.errors import ConfigError, NotReady
from refloat.recovery_point import new_id
from refloat.transfer import MoverSpec
from tests.contract.given import claim, config_map, until
from tests.kube.cutting import CLAIM, LEASE, left_of, volumes_in_use
from tests.kube.filling import Died, Filling, Mortal

MINUTE = timedelta(minutes=1)


def broken_off(cluster: Cluster, namespace: str, run: str, *, group: bool) -> set[str]:
    """A run that died in the middle of upload: cuts, one exposed, a mover's Job and Secret, labels; handles."""
    volumes, snapshotter = volumes_in_use(cluster, namespace, "one", "two"), open_snapshotter(cluster)
    ticket = snapshotter.begin(volumes, run=run, labels={}, group=group)
    cuts = wait_cut(snapshotter, ticket, timeout=MINUTE)
    exposure = snapshotter.expose(wait_ready(snapshotter, cuts[0], timeout=MINUTE), run=run, labels={})
    spec = MoverSpec(action="archive", run=run, volume=volumes[0].name, vault_url="s3://b/p")
    job = job_of(spec, claim=exposure.claim, image="refloat/none:missing", labels={}, timeout=MINUTE)
    start(cluster, job, {"REFLOAT_PASSWORD": "secret"})
    cluster.patch(CLAIM, "two", namespace, {"metadata": {"labels": {GROUP_LABEL: run}}})
    leave(cluster, run)
    return {str(each.handle) for each in cuts}


@pytest.mark.parametrize("group", [True, False], ids=["group", "each"])
def test_everything_of_a_run_goes(cluster: Cluster, namespace: str, group: bool) -> None:
    """What would be removed is said first and removed then; the application and another run keep what is theirs."""
    run, other = new_id(), new_id()
    handles = broken_off(cluster, namespace, run, group=group)
    bystander = config_map(HOME, f"other-{other}", labels_in_run(other))
    cluster.create({**bystander, "kind": "Secret"})
    left = left_of(cluster, run)
    kinds = {entry.partition(" ")[0] for entry in left}
    assert {"Job.batch", "Secret", CLAIM, SNAPSHOT, CONTENT, LEASE, "label"} | ({GROUP} if group else set()) <= kinds

    found = sweep(cluster, run=run, dry_run=True)
    assert set(left_of(cluster, run)) >= set(left)
    gone = sweep(cluster, run=run, dry_run=False)
    assert {str(ref) for ref in gone} >= {str(ref) for ref in found}
    assert left_of(cluster, run) == []
    for kind in (CONTENT, GROUP_CONTENT):
        assert not [each for each in cluster.list(kind) if any(handle in str(each) for handle in handles)]
    assert {each["metadata"]["name"] for each in cluster.list(CLAIM, namespace)} == {"one", "two"}
    assert left_of(cluster, other) == [f"Secret other-{other}"]
    assert sweep(cluster, run=run, dry_run=False) == []
    cluster.delete("Secret", f"other-{other}", HOME)


def test_what_will_not_go_is_named(cluster: Cluster) -> None:
    """A finalizer nobody takes off: the sweep says what it is, and has removed the rest."""
    run = new_id()
    ensure_home(cluster)
    stuck = claim(HOME, f"stuck-{run}", labels_in_run(run))
    stuck["metadata"]["finalizers"] = ["example.org/never"]
    cluster.create(stuck)
    cluster.create({**config_map(HOME, f"free-{run}", labels_in_run(run)), "kind": "Secret"})
    try:
        with pytest.raises(NotReady, match=rf"stuck-{run} \(held by .*example.org/never"):
            sweep(cluster, run=run, dry_run=False, within=timedelta(seconds=1))
        assert cluster.find("Secret", f"free-{run}", HOME) is None
    finally:
        cluster.patch(CLAIM, f"stuck-{run}", HOME, {"metadata": {"finalizers": None}})


@pytest.mark.parametrize("group", [True, False], ids=["group", "each"])
def test_cuts_whose_namespace_is_gone(
    cluster: Cluster, namespace: str, group: bool, request: pytest.FixtureRequest
) -> None:
    """With a class that retains, contents outlive their namespace, labelled by nobody; found by name, data and all."""
    run, kind = new_id(), GROUP_CONTENT if group else CONTENT
    volumes, snapshotter = volumes_in_use(cluster, namespace, "one", "two"), open_snapshotter(cluster)
    ticket = snapshotter.begin(volumes, run=run, labels={}, group=group)
    handles = {str(each.handle) for each in wait_cut(snapshotter, ticket, timeout=MINUTE)}
    for each in list(cluster.list(kind)):
        if any(handle in str(each) for handle in handles):
            cluster.patch(kind, each["metadata"]["name"], None, {"spec": {"deletionPolicy": "Retain"}})
    if group:
        name, what = ticket.names[volumes[0].name], "the group, all its members made"
        until(cluster, GROUP, name, namespace, lambda obj: bool((obj.get("status") or {}).get("readyToUse")), what)
    cluster.delete("Namespace", namespace)
    cluster.wait("Namespace", namespace, None, lambda obj: obj is None, timeout=MINUTE, what="namespace gone")
    assert [each for each in cluster.list(kind) if any(handle in str(each) for handle in handles)], "kept by its policy"
    sweep(cluster, run=run, dry_run=False)
    assert left_of(cluster, run) == []
    if cluster.is_practice_range:
        root = request.getfixturevalue("shared_range").root
        assert not [path for handle in handles for path in root.rglob(f"*{handle}")]


# ---- what a recovery has filled


def die_filled(filling: Filling, run: str) -> None:
    """Break a recovery off right after its claim was filled and said so."""
    steps = 0
    while True:
        steps += 1
        with pytest.raises(Died):
            filling.hydrate(cluster=Mortal(filling.cluster, steps), run=run)
        claims = list(filling.cluster.list(CLAIM, HOME, labels=f"{RECOVERY}={filling.point_id}"))
        if claims and FILLED in (claims[0]["metadata"].get("annotations") or {}):
            return


def test_what_is_filled_outlives_its_run(cluster: Cluster, namespace: str) -> None:
    """The sweep at a run's end keeps it, the next recovery goes on with it, and a sweep then has nothing to take."""
    filling, run = Filling(cluster, namespace), new_id()
    die_filled(filling, run)
    extractions = filling.extractions
    sweep(cluster, run=run, dry_run=False, keep_filled=True)
    again = new_id()
    filling.hydrate(run=again)
    assert filling.extractions == extractions, "filled once is filled"
    for each in (run, again):
        sweep(cluster, run=each, dry_run=False)
    filling.assert_done()


def test_a_sweep_by_hand_gives_it_up(cluster: Cluster, namespace: str) -> None:
    """Then claim, volume and data are gone, and the next recovery fills anew."""
    filling, run = Filling(cluster, namespace), new_id()
    die_filled(filling, run)
    extractions = filling.extractions
    sweep(cluster, run=run, dry_run=False)
    assert left_of(cluster, run) == []
    filling.hydrate()
    assert filling.extractions == extractions + 1
    filling.assert_done()


# ---- who is dead


@pytest.fixture
def alone(practice: PracticeRange) -> Iterator[Cluster]:
    """A cluster with no other runs."""
    yield Cluster.open(kubeconfig=str(practice.kubeconfig))


def leave_a_secret(cluster: Cluster, run: str, renewed: str | None) -> None:
    """Something of a run's, with a lease renewed at that instant, or none."""
    ensure_home(cluster)
    cluster.create({**config_map(HOME, name_in_run(run, "x"), labels_in_run(run)), "kind": "Secret"})
    if renewed:
        about = {"name": name_of_lease(run), "namespace": HOME, "labels": labels_in_run(run)}
        spec = {"holderIdentity": run, "leaseDurationSeconds": 60, "renewTime": renewed}
        cluster.create({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": about, "spec": spec})


def test_only_dead_runs_are_swept(alone: Cluster) -> None:
    """Dead: a lease nobody renews. Alive: one in use here, one renewed by a machine whose clock is wrong, and whatever
    is too young to tell."""
    names = ("dead", "here", "skewed", "young", "future")
    runs = {name: new_id() for name in names}
    past, future = "2020-01-01T00:00:00.000000Z", "2100-01-01T00:00:00.000000Z"
    attend(alone, runs["here"])
    for name, renewed in (("dead", past), ("here", None), ("skewed", past), ("young", None), ("future", future)):
        leave_a_secret(alone, runs[name], renewed)
    over = threading.Event()

    def renew_with_a_wrong_clock() -> None:
        for minute in range(60):
            patch = {"spec": {"renewTime": f"2020-01-01T00:{minute:02}:00.000000Z"}}
            alone.patch(LEASE, name_of_lease(runs["skewed"]), HOME, patch)
            if clock.pause(timedelta(seconds=1), until=over):
                return

    thread = threading.Thread(target=renew_with_a_wrong_clock)
    thread.start()
    try:
        gone = sweep(alone, run=None, dry_run=False)
    finally:
        over.set()
        thread.join()
        leave(alone, runs["here"])
    dead = [runs["dead"], runs["future"]]
    names_of_dead = {name for run in dead for name in (name_in_run(run, "x"), name_of_lease(run))}
    assert {ref.name for ref in gone} == names_of_dead
    left = {each["metadata"]["labels"][RUN_LABEL] for each in alone.list("Secret", HOME, labels=RUN_LABEL)}
    assert left == {runs["here"], runs["skewed"], runs["young"]}


def test_a_run_is_seen_alive_while_its_process_lives(alone: Cluster) -> None:
    """The lease is made before anything else, renewed, and gone with the run's own sweep."""
    run = new_id()
    attend(alone, run, every=timedelta(seconds=0.2))
    attend(alone, run)
    first = alone.get(LEASE, name_of_lease(run), HOME)["spec"]["renewTime"]
    what = "a renewal"
    until(alone, LEASE, name_of_lease(run), HOME, lambda lease: lease["spec"]["renewTime"] != first, what)
    sweep(alone, run=run, dry_run=False)
    assert alone.find(LEASE, name_of_lease(run), HOME) is None


def test_names_tell_their_run() -> None:
    """The run that gave a name can be read from it, whatever the id looks like; a bad id is refused."""
    for run in (new_id(), "nightly", "a-b", "a"):
        name = name_in_run(run, "app/data")
        assert run_of_name(name) == run
        assert name != name_in_run(run, "app/other")
        assert len(name) <= 63
    assert run_of_name("recover-0123456789") is None
    for bad in ("", "A", "a_b", "x" * 33, "-a", "a-"):
        with pytest.raises(ConfigError):
            name_in_run(bad, "x")
