"""Movers: their bytes, result and progress; every way in which one ends badly is named, and nothing of it stays."""

from __future__ import annotations

import _thread
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kube.cluster import Cluster
from kube.home import HOME
from kube.jobs import Limits, how_it_ended, start, why_it_died
from kube.mover_job import JOB, job_of
from kube.runs import leave
from kube.sweep import sweep
from practice.access import Fault
from practice.range import PracticeRange
from refloat.errors import NotReady, TransferFailed, WrongKey
from tests.contract.given import pod
from tests.contract.given import start as start_pod
from tests.kube.cutting import in_home, left_of
from tests.kube.moving import PASSWORD, Moving, Vault, home_claim, silent_store, vault_for

Object = dict[str, Any]
SHORT = timedelta(seconds=1)
FILL = (
    "mkdir -p /volume/d/e && echo one > /volume/d/one && echo two > /volume/d/e/two && chmod 640 /volume/d/one && sync"
)
LOOK = "cd /volume && find d -type f -exec sha256sum {} + | sort; stat -c '%n %a' d/one"


@pytest.fixture
def moving(cluster: Cluster, tmp_path: Path) -> Iterator[Moving]:
    """A run of its own on one lane, with a vault; swept at the end."""
    made = Moving(cluster, vault_for(cluster, tmp_path))
    yield made
    sweep(cluster, run=made.run, dry_run=False)
    assert left_of(cluster, made.run) == []


@pytest.fixture
def busy(practice: PracticeRange) -> Iterator[Moving]:
    """A run on a practice range of its own, whose movers ask a store that never answers."""
    cluster = Cluster.open(kubeconfig=str(practice.kubeconfig))
    with silent_store() as address:
        keys = {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "other"}
        environment = {**keys, "AWS_REGION": "us-east-1", "REFLOAT_PASSWORD": PASSWORD}
        made = Moving(cluster, Vault("s3://bucket/vault", "refloat/mover:any", environment))
        yield made
    leave(cluster, made.run)


def test_there_and_back(moving: Moving) -> None:
    """Archived from one claim and extracted into another: the same bytes and modes; told as it went; nothing left."""
    cluster = moving.cluster
    source, target = home_claim(cluster, moving.run, "source"), home_claim(cluster, moving.run, "target")
    in_home(cluster, source, FILL)
    archived = moving.move("archive", source)
    archived.raise_if_failed()
    assert (archived.files, archived.data_bytes) == (2, 8)
    assert archived.tree
    assert moving.told[-1].is_last
    assert moving.told[-1].bytes_done == 8
    assert moving.left() == []
    moving.move("extract", target, tree=archived.tree, top=archived.top).raise_if_failed()
    assert in_home(cluster, target, LOOK) == in_home(cluster, source, LOOK)
    assert moving.left() == []


def test_a_named_failure_comes_back_as_itself(moving: Moving) -> None:
    """The mover's own error, through its termination message."""
    name = home_claim(moving.cluster, moving.run, "source")
    result = moving.move("archive", name, environment={"REFLOAT_PASSWORD": "another"})
    with pytest.raises(WrongKey):
        result.raise_if_failed()
    assert moving.left() == []


def test_an_earlier_try_is_removed_first(moving: Moving) -> None:
    """What a dead process left under the same name, half made, does not stand in the way."""
    name = home_claim(moving.cluster, moving.run, "source")
    made = job_of(moving.spec("archive"), claim="gone", image="refloat/none:missing", labels={}, timeout=SHORT)
    start(moving.cluster, made, {"REFLOAT_PASSWORD": "old"})
    assert len(moving.left()) >= 2
    moving.move("archive", name).raise_if_failed()
    assert moving.left() == []


def test_a_claim_that_is_not_there(moving: Moving) -> None:
    """Not ready, in the cluster's words, once it has waited long enough."""
    limits = Limits(placed=timedelta(seconds=2), started=timedelta(seconds=2))
    with pytest.raises(NotReady, match=r"mover of app/data was not (placed|started) within 2 s: .*nowhere"):
        moving.move("archive", "nowhere", limits=limits)
    assert moving.left() == []


def test_pod_security_admits_both_pods(cluster: Cluster, namespace: str) -> None:
    """`baseline` enforced: the pods as they are; and the check is real, for more than they ask is refused."""
    enforced = {"pod-security.kubernetes.io/enforce": "baseline"}
    cluster.patch("Namespace", namespace, None, {"metadata": {"labels": enforced}})
    moving = Moving(cluster, Vault("s3://b/p", "refloat/mover:any", {}))
    for action in ("archive", "extract"):
        template = job_of(moving.spec(action), claim="c", image="i:1", labels={}, timeout=SHORT)["spec"]["template"]
        spec = {**template["spec"], "serviceAccountName": "default"}
        about = {"name": action, "namespace": namespace, "labels": template["metadata"]["labels"]}
        made = {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": spec}
        start_pod(cluster, pod(namespace, f"account-{action}"))
        assert cluster.create(made, dry_run=True)["spec"]["automountServiceAccountToken"] is False
        context = spec["containers"][0]["securityContext"]
        assert context["capabilities"]["drop"] == ["ALL"]
        assert spec["volumes"][0]["persistentVolumeClaim"]["readOnly"] is (action == "archive")
        assert PASSWORD not in str(made)


# ---- ends nobody wished for


def kill(moving: Moving) -> Callable[[Object], object]:
    return lambda one: moving.cluster.delete("Pod", one["metadata"]["name"], HOME, grace_seconds=0)


def drain(moving: Moving) -> Callable[[Object], object]:
    return lambda one: moving.cluster.delete("Pod", one["metadata"]["name"], HOME)


def remove_job(moving: Moving) -> Callable[[Object], object]:
    return lambda one: moving.cluster.delete(JOB, one["metadata"]["ownerReferences"][0]["name"], HOME)


def swept(moving: Moving) -> Callable[[Object], object]:
    return lambda _: sweep(moving.cluster, run=moving.run, dry_run=False)


@pytest.mark.parametrize("meddle", [kill, drain, remove_job, swept])
def test_a_mover_that_is_taken_away(busy: Moving, meddle: Callable[[Moving], Callable[[Object], object]]) -> None:
    """Pod killed or drained, Job deleted, run swept by somebody else: a failure that says so and may be tried again."""
    name = home_claim(busy.cluster, busy.run, "source")
    meddler = busy.when_it_runs(meddle(busy))
    with pytest.raises(TransferFailed, match=r"mover of app/data (was removed|ended without a trace|ended with)"):
        busy.move("archive", name)
    meddler.join(10)
    assert not meddler.is_alive()
    assert busy.left() == []


def test_a_mover_that_takes_too_long(busy: Moving) -> None:
    """The cluster itself ends it, and the limit is named; not the cancellation the mover saw."""
    name = home_claim(busy.cluster, busy.run, "source")
    with pytest.raises(TransferFailed, match="did not end within 2 s"):
        busy.move("archive", name, timeout=timedelta(seconds=2))
    assert busy.left() == []


def test_interrupted(busy: Moving) -> None:
    """Ctrl-C while a mover works: the interruption goes on, and Job, pod and Secret are gone."""
    name = home_claim(busy.cluster, busy.run, "source")
    busy.when_it_runs(lambda _: _thread.interrupt_main())
    with pytest.raises(KeyboardInterrupt):
        busy.move("archive", name)
    assert busy.left() == []


def test_an_image_that_cannot_be_pulled(busy: Moving) -> None:
    """Named quickly, with what to do."""
    name = home_claim(busy.cluster, busy.run, "source")
    with pytest.raises(TransferFailed, match=r"image refloat/none:missing cannot be pulled: .*not found") as failure:
        busy.move("archive", name, image="refloat/none:missing", limits=Limits(pulled=SHORT))
    assert "REFLOAT_MOVER_IMAGE" in failure.value.guidance
    assert busy.left() == []


def terminated(**state: Any) -> Object:
    """The status of a pod whose mover ended so."""
    return {"containerStatuses": [{"name": "mover", "state": {"terminated": state}}]}


def disrupted(**condition: str) -> Object:
    """The status of a pod that was taken off its node."""
    return {"conditions": [{"type": "DisruptionTarget", "status": "True", **condition}]}


ENDS = {
    "needed more than 2Gi": terminated(exitCode=137, reason="OOMKilled"),
    "off its node, Evicted: low on ephemeral-storage": {"reason": "Evicted", "message": "low on ephemeral-storage"},
    "off its node, Preemption: by web": disrupted(reason="Preemption", message="by web"),
    "128, StartError, no python3, and no": terminated(exitCode=128, reason="StartError", message="no python3"),
    "was lost": {"phase": "Unknown"},
}


@pytest.mark.parametrize("words", ENDS)
def test_ends_as_kubelets_tell_them(words: str) -> None:
    """Shapes of core/v1 PodStatus (the first was seen on the lab), in words."""
    assert words in how_it_ended({"metadata": {"name": "p"}, "spec": {}, "status": ENDS[words]})


def test_a_mover_without_a_pod() -> None:
    """Whether its Job is still there makes a difference to whoever looks for it."""
    assert "its Job was removed" in why_it_died(None, None, SHORT)
    assert "before it had a pod" in why_it_died(None, {"status": {}}, SHORT)


# ---- faults of the API server


@pytest.mark.parametrize(
    "fault",
    [
        Fault("drop", r"/pods/[^/]+/log", method="GET", nth=1, times=2),
        Fault("answer", r"/pods\?.*watch=true.*job-name|/pods\?.*job-name.*watch=true", nth=1, times=3, status=500),
        Fault("drop", r"/pods\?.*job-name.*watch=true|/pods\?.*watch=true.*job-name", nth=2, times=2),
        Fault("drop", r"/namespaces/refloat/jobs/", method="GET", nth=2, times=2),
    ],
    ids=["log dropped", "watch refused", "watch dropped", "Job unreadable"],
)
def test_a_faltering_api_server_does_not_end_a_mover(practice: PracticeRange, tmp_path: Path, fault: Fault) -> None:
    """Log, watch and reads break while it works: its bytes and its result arrive, and its progress in the end."""
    cluster = Cluster.open(kubeconfig=str(practice.kubeconfig))
    moving = Moving(cluster, vault_for(cluster, tmp_path))
    name = home_claim(cluster, moving.run, "source")
    in_home(cluster, name, FILL)
    practice.access.inject(fault)
    for attempt in range(3):
        moving.move("archive", name, volume=f"app/data-{attempt}").raise_if_failed()
    assert fault.fired >= 1
    assert moving.told[-1].bytes_done == 8
    assert moving.left() == []
    leave(cluster, moving.run)
