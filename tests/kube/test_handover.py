"""Handover: real volumes change hands, whatever instant a run dies at, and hold their data exactly once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kube.cluster import Cluster
from kube.handover import VOLUME, abandon_volume, discard_claim, filling_spec, was_handed_over
from kube.home import HOME, ensure_home
from kube.marks import FILLED, RECOVERY
from refloat.application import RUN_LABEL
from refloat.errors import NotReady, ObjectExists, TransferFailed
from refloat.recovery_point import new_id
from tests.contract.given import claim, job, pod, run_pod, sh, until, until_gone
from tests.kube.filling import CLAIM, DATA, Died, Filling, Mortal

MOST_WRITES = 20
FILLED_AFTER, MARKED_AFTER, GONE_AFTER, RESERVED_AFTER, CREATED_AFTER = range(2, 7)
"""How many writes a handover has done by then, where refloat's namespace is there: claim, filled, marked, …"""


@pytest.fixture
def filling(cluster: Cluster, namespace: str) -> Filling:
    """A claim to be filled, of the default class."""
    return Filling(cluster, namespace)


def test_a_claim_is_filled_and_handed_over(filling: Filling) -> None:
    """Bound in the application's namespace with the point's bytes and own metadata; nothing temporary is left."""
    filling.hydrate()
    made = filling.assert_done()
    assert made["metadata"]["labels"] == {"app": "shop"}
    assert made["spec"]["resources"]["requests"]["storage"] == "16Mi"
    assert filling.extractions == 1
    assert was_handed_over(filling.cluster, made, filling.point_id)
    assert not was_handed_over(filling.cluster, made, new_id())


def test_again_it_does_nothing(filling: Filling) -> None:
    """A recovery that is run again keeps what it filled, though newer data may be in it."""
    filling.hydrate()
    filling.hydrate()
    filling.assert_done()
    assert filling.extractions == 1


@pytest.mark.lane("lab")
@pytest.mark.parametrize("mode", ["Immediate", "WaitForFirstConsumer"])
def test_both_binding_modes(cluster: Cluster, namespace: str, mode: str) -> None:
    """Classes that bind at once, and those that wait for the mover's pod."""
    classes = [each for each in cluster.list("StorageClass.storage.k8s.io") if each["volumeBindingMode"] == mode]
    if not classes:
        pytest.skip(f"NOT RUN: no StorageClass binds {mode}")
    filling = Filling(cluster, namespace, storage_class=classes[0]["metadata"]["name"])
    filling.hydrate()
    assert filling.assert_done()["spec"]["storageClassName"] == filling.storage_class


def deaths(filling_of: Any) -> Iterator[tuple[Filling, Mortal]]:
    """One filling for every write of a handover, each broken off right after that write."""
    for last in range(MOST_WRITES):
        filling = filling_of()
        mortal = Mortal(filling.cluster, last)
        try:
            filling.hydrate(cluster=mortal)
        except Died:
            yield filling, mortal
        else:
            assert last > 6, "a handover writes more than this: the deaths were not injected"
            return
    raise AssertionError("it never came to its end")


@pytest.mark.timeout(600)
def test_a_death_after_any_write_converges(cluster: Cluster, namespace: str) -> None:
    """The next run, under another id, finishes: one claim, one volume, the data once, nothing marked any more."""
    injected = 0
    for filling, mortal in deaths(lambda: Filling(cluster, namespace)):
        injected += 1
        filling.hydrate()
        filling.assert_done()
        is_filled = "patch" in mortal.writes
        assert filling.extractions <= (1 if is_filled else 2), mortal.writes
    assert injected > 6


def test_a_filled_claim_is_not_filled_again(filling: Filling) -> None:
    """The marker outlives the run that set it."""
    ensure_home(filling.cluster)
    with pytest.raises(Died):
        filling.hydrate(cluster=Mortal(filling.cluster, FILLED_AFTER))
    left = filling.cluster.find(CLAIM, filling.home_name, HOME)
    assert left is not None and left["metadata"]["annotations"].get(FILLED) == filling.point_id
    filling.hydrate()
    filling.assert_done()
    assert filling.extractions == 1


def test_a_dead_run_s_mover_is_ended_first(filling: Filling) -> None:
    """Its Job goes on after its run died, and would write into the volume beside the next mover."""
    cluster = filling.cluster

    def die_with_mover(home_claim: str) -> None:
        obj = job(HOME, f"mover-{filling.name}", f"while :; do echo stray >> {DATA}/filled; sleep 0.05; done")
        spec = obj["spec"]["template"]["spec"]
        spec["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": home_claim}}]
        spec["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": DATA}]
        cluster.create(obj)
        until(cluster, "Job.batch", f"mover-{filling.name}", HOME, lambda o: o["status"].get("ready") == 1, "running")
        raise Died

    with pytest.raises(Died):
        filling.hydrate(extract=die_with_mover)
    filling.hydrate()
    filling.assert_done()
    assert cluster.find("Job.batch", f"mover-{filling.name}", HOME) is None


def test_a_failed_extraction_goes_on_in_the_same_run(filling: Filling) -> None:
    """A retried step finds its own claim again; its mover is its own, too."""
    run, seen = new_id(), []

    def fail(home_claim: str) -> None:
        seen.append(filling.cluster.get(CLAIM, home_claim, HOME)["metadata"]["uid"])
        raise TransferFailed("the mover was killed")

    with pytest.raises(TransferFailed):
        filling.hydrate(run=run, extract=fail)
    with pytest.raises(TransferFailed):
        filling.hydrate(run=run, extract=fail)
    assert len(set(seen)) == 1
    filling.hydrate()
    filling.assert_done()


def test_a_claim_of_somebody_else_is_left_alone(filling: Filling) -> None:
    """Same name, not of this point: nothing is filled, nothing touched."""
    before = filling.cluster.create(claim(filling.namespace, filling.name))
    with pytest.raises(ObjectExists, match=filling.name):
        filling.hydrate()
    after = filling.cluster.get(CLAIM, filling.name, filling.namespace)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert filling.extractions == 0
    assert list(filling.cluster.list(CLAIM, HOME, labels=f"{RECOVERY}={filling.point_id}")) == []


def test_everything_temporary_bears_the_run(filling: Filling) -> None:
    """The sweep finds claim and volume by the run's label alone, and a later run takes them over."""
    run = new_id()
    ensure_home(filling.cluster)
    with pytest.raises(Died):
        filling.hydrate(run=run, cluster=Mortal(filling.cluster, MARKED_AFTER))
    selector = f"{RUN_LABEL}={run}"
    assert [each["metadata"]["name"] for each in filling.cluster.list(CLAIM, HOME, labels=selector)] == [
        filling.home_name
    ]
    volumes = list(filling.cluster.list(VOLUME, labels=selector))
    assert [each["spec"]["persistentVolumeReclaimPolicy"] for each in volumes] == ["Retain"]
    filling.hydrate()
    assert list(filling.cluster.list(VOLUME, labels=selector)) == []
    filling.assert_done()


@pytest.mark.parametrize("writes", [MARKED_AFTER, GONE_AFTER, RESERVED_AFTER])
def test_an_abandoned_handover_leaves_no_volume(filling: Filling, writes: int) -> None:
    """A sweep after a death between two claims: the data goes with its volume, and the next run begins anew."""
    ensure_home(filling.cluster)
    with pytest.raises(Died):
        filling.hydrate(cluster=Mortal(filling.cluster, writes))
    [volume] = filling.cluster.list(VOLUME, labels=f"{RECOVERY}={filling.point_id}")
    assert abandon_volume(filling.cluster, volume["metadata"]["name"])
    left = filling.cluster.find(CLAIM, filling.home_name, HOME)
    if left:
        discard_claim(filling.cluster, left)
    until_gone(filling.cluster, VOLUME, volume["metadata"]["name"])
    filling.hydrate()
    filling.assert_done()
    assert filling.extractions == 2


def test_a_sweep_leaves_a_volume_that_arrived(filling: Filling) -> None:
    """Broken off after the application's claim was made: the sweep only tidies up, and the data stays."""
    ensure_home(filling.cluster)
    with pytest.raises(Died):
        filling.hydrate(cluster=Mortal(filling.cluster, CREATED_AFTER))
    [volume] = filling.cluster.list(VOLUME, labels=f"{RECOVERY}={filling.point_id}")
    assert not abandon_volume(filling.cluster, volume["metadata"]["name"])
    filling.hydrate()
    filling.assert_done()
    assert filling.extractions == 1


def test_a_claim_whose_volume_was_given_up_is_made_anew(filling: Filling) -> None:
    """A sweep that came between reservation and claim leaves one that waits for ever: the next run sees that."""
    ensure_home(filling.cluster)
    with pytest.raises(Died):
        filling.hydrate(cluster=Mortal(filling.cluster, RESERVED_AFTER))
    [volume] = filling.cluster.list(VOLUME, labels=f"{RECOVERY}={filling.point_id}")
    assert abandon_volume(filling.cluster, volume["metadata"]["name"])
    waiting = filling.manifest
    waiting["metadata"]["annotations"] = {"refloat.io/recovered-from": filling.point_id}
    waiting["spec"] |= {"volumeName": volume["metadata"]["name"]}
    waiting["spec"]["storageClassName"] = volume["spec"]["storageClassName"]
    filling.cluster.create(waiting)
    until_gone(filling.cluster, VOLUME, volume["metadata"]["name"])
    filling.hydrate()
    filling.assert_done()
    assert filling.extractions == 2


def test_a_claim_swept_while_it_was_filled_is_not_handed_over(filling: Filling) -> None:
    """Its data may be gone already: the run fails, and nothing of it reaches the application."""

    def swept(home_claim: str) -> None:
        filling.extract(home_claim)
        found = filling.cluster.get(CLAIM, home_claim, HOME)
        finalizers = [*found["metadata"].get("finalizers", []), "refloat.io/test"]
        filling.cluster.patch(CLAIM, home_claim, HOME, {"metadata": {"finalizers": finalizers}})
        filling.cluster.delete(CLAIM, home_claim, HOME)

    with pytest.raises(NotReady, match="removed while it was handed over"):
        filling.hydrate(extract=swept)
    filling.cluster.patch(CLAIM, filling.home_name, HOME, {"metadata": {"finalizers": None}})
    until_gone(filling.cluster, CLAIM, filling.home_name, HOME)
    assert filling.cluster.find(CLAIM, filling.name, filling.namespace) is None
    filling.hydrate()
    filling.assert_done()


def test_a_claim_only_readers_may_mount_is_filled_writable(cluster: Cluster, namespace: str) -> None:
    """ReadOnlyMany cannot be filled as such; it arrives as what it was."""
    filling = Filling(cluster, namespace, spec={"accessModes": ["ReadOnlyMany"]})
    filling.hydrate()
    made = cluster.get(CLAIM, filling.name, namespace)
    assert made["spec"]["accessModes"] == ["ReadOnlyMany"]
    assert made["status"]["phase"] == "Bound"


def test_the_claim_to_fill_is_large_enough() -> None:
    """At least what the claim asked for, and the data with room for what a file system needs."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeName": "old"}
    small = filling_spec(spec, None, 1 << 30, 1 << 20)
    assert small == {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": str(1 << 30)}}}
    large = filling_spec({**spec, "selector": {"matchLabels": {"a": "b"}}}, "fast", 1 << 30, 1 << 31)
    assert int(large["resources"]["requests"]["storage"]) >= (1 << 31) * 1.1
    assert (large["storageClassName"], "selector" in large) == ("fast", False)


def test_the_application_may_write(filling: Filling) -> None:
    """A pod of the application's namespace mounts the volume that changed hands and writes into it."""
    filling.hydrate()
    run_pod(filling.cluster, pod(filling.namespace, "writer", claims={DATA: filling.name}))
    assert sh(filling.cluster, filling.namespace, "writer", f"echo x > {DATA}/new && cat {DATA}/new") == "x\n"
