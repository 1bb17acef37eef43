"""Readiness: workloads are waited for by kubectl's rules, and what does not run is named with its reason."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from kube.apply import apply_plan
from kube.cluster import Cluster
from kube.readiness import state_of, targets_of, wait_ready
from refloat.errors import ProbeFailed
from refloat.plan import Planned
from refloat.recovery_point import new_id
from tests.contract.given import IMAGE, STAYS, container, job, pod
from tests.kube import points
from tests.kube.points import PLACE, planned, point_of

Object = dict[str, Any]
LONG = timedelta(seconds=90)


def short(cluster: Cluster) -> timedelta:
    """Long enough for the reason to show on this lane."""
    return timedelta(seconds=1 if cluster.is_practice_range else 6)


def recovered(cluster: Cluster, namespace: str, *objects: Object) -> Planned:
    """The objects, created by a plan."""
    made = planned(cluster, point_of([points.account("web"), *objects]), namespace)
    assert made.plan.blockers == ()
    apply_plan(cluster, made.plan, made.manifests, run=new_id(), on_done=lambda _: None)
    return made


def failure(cluster: Cluster, made: Planned, timeout: timedelta | None = None) -> str:
    """What is said of the plan's workloads, which must not become ready."""
    with pytest.raises(ProbeFailed) as failed:
        wait_ready(cluster, targets_of(made.plan), timeout=timeout or short(cluster), on_progress=lambda _: None)
    return failed.value.message


def test_every_kind_becomes_ready(cluster: Cluster, namespace: str) -> None:
    """One line of evidence for each workload, told as it happens; configuration is nothing to wait for."""
    made = recovered(
        cluster, namespace, points.config(), points.deployment(replicas=2), points.stateful_set(),
        pod(PLACE, "alone"), job(PLACE, "long", STAYS), job(PLACE, "short", "true"), points.cron_job(),
    )  # fmt: skip
    told: list[str] = []
    evidence = wait_ready(cluster, targets_of(made.plan), timeout=LONG, on_progress=told.append)
    assert sorted(told) == sorted(evidence)
    for start in (
        f"Deployment {namespace}/web 2/2 available after ", f"StatefulSet {namespace}/db 1/1 ready after ",
        f"Pod {namespace}/alone ready after ", f"Job {namespace}/long running after ", f"Job {namespace}/short ",
    ):  # fmt: skip
        assert [line for line in evidence if line.startswith(start)], start
    assert len(evidence) == 5


def test_what_is_kept_is_waited_for_too(cluster: Cluster, namespace: str) -> None:
    """A re-run proves the same as the run before."""
    made = recovered(cluster, namespace, points.deployment())
    again = planned(cluster, point_of([points.deployment()]), namespace)
    assert [step.action for step in again.plan.objects if step.ref.kind == "Deployment.apps"] == ["keep"]
    assert len(wait_ready(cluster, targets_of(again.plan), timeout=LONG, on_progress=lambda _: None)) == 1
    assert made.plan.point_id != again.plan.point_id


def test_nothing_to_wait_for_is_ready(cluster: Cluster, namespace: str) -> None:
    """An application of configuration alone."""
    made = recovered(cluster, namespace, points.config())
    assert wait_ready(cluster, targets_of(made.plan), timeout=LONG, on_progress=lambda _: None) == []


def test_a_container_that_ends_is_named_with_its_exit_code(cluster: Cluster, namespace: str) -> None:
    """And with the workload, its pod and the container; that it is ready between start and end counts for nothing."""
    broken = points.deployment(containers=[container("exit 7")])
    said = failure(cluster, recovered(cluster, namespace, broken, points.stateful_set()), 2 * short(cluster))
    assert "1 of 2 workloads are not ready" in said
    assert f"Deployment {namespace}/web: 0/1 available" in said
    assert "pod web-" in said
    assert "container main" in said
    assert "exit code 7" in said


def test_a_missing_secret_is_named(cluster: Cluster, namespace: str) -> None:
    """The container waits for what is not in the point."""
    env = [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "no-such-secret", "key": "password"}}}]
    said = failure(cluster, recovered(cluster, namespace, points.deployment(containers=[container(STAYS, env=env)])))
    assert "CreateContainerConfigError" in said
    assert "no-such-secret" in said


def test_an_image_that_is_not_there_is_named(cluster: Cluster, namespace: str) -> None:
    """By the kubelet's reason for waiting."""
    made = container(STAYS) | {"image": f"{IMAGE.partition(':')[0]}:missing", "imagePullPolicy": "Never"}
    said = failure(cluster, recovered(cluster, namespace, points.deployment(containers=[made])))
    assert "ErrImage" in said or "ImagePull" in said


def test_a_claim_that_stays_pending_is_named(cluster: Cluster, namespace: str) -> None:
    """The pod cannot be scheduled, and why."""
    waiting = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "waits", "namespace": namespace},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": "16Mi"}},
        },
    }  # fmt: skip
    cluster.create(waiting)
    said = failure(cluster, recovered(cluster, namespace, pod(PLACE, "alone", claims={"/data": "waits"})))
    assert f"Pod {namespace}/alone: Pending" in said
    assert "claim waits is Pending" in said


def test_a_pod_that_is_not_ready_is_told_from_one_that_does_not_run(cluster: Cluster, namespace: str) -> None:
    """It runs, and its readiness probe fails."""
    probe = {"exec": {"command": ["false"]}, "periodSeconds": 1}
    said = failure(
        cluster,
        recovered(cluster, namespace, points.deployment(containers=[container(STAYS, readinessProbe=probe)])),
    )
    assert "container main runs and is not ready (0 restarts)" in said


def test_pods_that_cannot_be_made_are_explained(cluster: Cluster, namespace: str) -> None:
    """The account is missing: the controller's events say so."""
    if cluster.is_practice_range:
        pytest.skip("NOT RUN: the practice range's controllers write no events")
    said = failure(cluster, recovered(cluster, namespace, points.deployment(serviceAccountName="no-such-account")))
    assert "no-such-account" in said


def test_a_job_that_failed_is_not_waited_for(cluster: Cluster, namespace: str) -> None:
    """It will not become ready: a minute of patience is not spent on it."""
    made = recovered(cluster, namespace, job(PLACE, "broken", "exit 3", backoffLimit=0))
    said = failure(cluster, made, timedelta(minutes=30))
    assert f"Job {namespace}/broken: failed" in said


def test_what_was_removed_is_not_waited_for(cluster: Cluster, namespace: str) -> None:
    """Gone is gone."""
    made = recovered(cluster, namespace, points.deployment())
    cluster.delete("Deployment.apps", "web", namespace)
    assert "does not exist" in failure(cluster, made, timedelta(minutes=30))


def seen(kind: str, spec: Object, status: Object, generation: int = 1) -> bool:
    """Whether an object of this spec and status counts as ready; the controller has seen it."""
    status = {"observedGeneration": 1, **status}
    return state_of(kind, {"metadata": {"generation": generation}, "spec": spec, "status": status}).is_ready


ROLLING = {"replicas": 2, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}}
SAME = {"currentRevision": "a", "updateRevision": "a"}
RULES: list[tuple[str, str, Object, Object, bool]] = [
    ("deployment complete", "Deployment.apps", {"replicas": 2},
     {"updatedReplicas": 2, "replicas": 2, "availableReplicas": 2}, True),
    ("deployment with old pods left", "Deployment.apps", {"replicas": 2},
     {"updatedReplicas": 2, "replicas": 3, "availableReplicas": 3}, False),
    ("deployment not updated", "Deployment.apps", {"replicas": 2},
     {"updatedReplicas": 1, "replicas": 2, "availableReplicas": 2}, False),
    ("deployment not available", "Deployment.apps", {"replicas": 2},
     {"updatedReplicas": 2, "replicas": 2, "availableReplicas": 1}, False),
    ("deployment scaled to none", "Deployment.apps", {"replicas": 0}, {}, True),
    ("set complete", "StatefulSet.apps", ROLLING, {**SAME, "readyReplicas": 2, "updatedReplicas": 2}, True),
    ("set of two revisions", "StatefulSet.apps", ROLLING,
     {"currentRevision": "a", "updateRevision": "b", "readyReplicas": 2, "updatedReplicas": 1}, False),
    ("set updated by hand", "StatefulSet.apps", {"replicas": 2, "updateStrategy": {"type": "OnDelete"}},
     {"currentRevision": "a", "updateRevision": "b", "readyReplicas": 2}, True),
    ("set with a partition", "StatefulSet.apps",
     {"replicas": 2, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}},
     {"currentRevision": "a", "updateRevision": "b", "readyReplicas": 2, "updatedReplicas": 1}, True),
    ("set scaled to none", "StatefulSet.apps", {"replicas": 0}, {}, True),
    ("daemons everywhere", "DaemonSet.apps", {},
     {"desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberAvailable": 3}, True),
    ("daemons missing", "DaemonSet.apps", {},
     {"desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberAvailable": 2}, False),
    ("replica set", "ReplicaSet.apps", {"replicas": 1}, {"availableReplicas": 1}, True),
    ("replica set waiting", "ReplicaSet.apps", {"replicas": 1}, {}, False),
    ("job suspended", "Job.batch", {"suspend": True}, {}, True),
    ("job complete", "Job.batch", {}, {"conditions": [{"type": "Complete", "status": "True"}]}, True),
    ("job starting", "Job.batch", {}, {"active": 1, "ready": 0}, False),
    ("pod ended well", "Pod", {}, {"phase": "Succeeded"}, True),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "spec", "status", "is_ready"), [row[1:] for row in RULES], ids=[r[0] for r in RULES])
def test_rules_of_rollout_status(kind: str, spec: Object, status: Object, is_ready: bool) -> None:
    """As kubectl rollout status judges (rollout_status.go)."""
    assert seen(kind, spec, status) is is_ready


def test_a_status_of_an_older_generation_says_nothing() -> None:
    """The controller has not looked yet: yesterday's replicas are no evidence."""
    status = {"updatedReplicas": 2, "replicas": 2, "availableReplicas": 2}
    assert seen("Deployment.apps", {"replicas": 2}, status, generation=1)
    assert not seen("Deployment.apps", {"replicas": 2}, status, generation=2)
