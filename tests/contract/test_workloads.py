"""Workloads: Jobs to their end, replicas as many as wanted, StatefulSets in order and with their claims."""

from __future__ import annotations

from typing import Any

import pytest

from kube.cluster import Cluster
from refloat.errors import Rejected
from tests.contract.given import (
    condition,
    container,
    is_bound,
    job,
    names,
    sh,
    start,
    template,
    until,
    until_gone,
    until_phase,
)

Object = dict[str, Any]
JOB, STATEFUL, DEPLOYMENT = "Job.batch", "StatefulSet.apps", "Deployment.apps"


def until_job(cluster: Cluster, name: str, namespace: str, kind: str) -> Object:
    """The Job once it is Complete or Failed."""
    return until(
        cluster, JOB, name, namespace, lambda obj: condition(obj, kind).get("status") == "True", f"{name} {kind}"
    )


def pods_of(cluster: Cluster, namespace: str, labels: str) -> list[Object]:
    """The pods that live."""
    return [one for one in cluster.list("Pod", namespace, labels=labels) if "deletionTimestamp" not in one["metadata"]]


def is_settled(replicas: int) -> Any:
    """Whether a workload has so many replicas, all ready, of its newest generation."""

    def check(obj: Object) -> bool:
        status = obj.get("status") or {}
        seen = status.get("observedGeneration") == obj["metadata"]["generation"]
        counts = (status.get("replicas", 0), status.get("readyReplicas", 0))
        return seen and counts == (replicas, replicas)

    return check


def test_a_job_succeeds(cluster: Cluster, namespace: str) -> None:
    """Its pod carries its labels and its ownership, and the message of the end."""
    start(cluster, job(namespace, "j", "printf result > /dev/termination-log", backoffLimit=0))
    obj = until_job(cluster, "j", namespace, "Complete")
    assert obj["status"]["succeeded"] == 1 and obj["status"]["completionTime"]
    (pod,) = pods_of(cluster, namespace, "batch.kubernetes.io/job-name=j")
    assert pod["metadata"]["labels"]["job-name"] == "j"
    assert pod["metadata"]["ownerReferences"][0]["uid"] == obj["metadata"]["uid"]
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"] == "result"
    cluster.delete(JOB, "j", namespace, propagation="Background")
    until_gone(cluster, "Pod", pod["metadata"]["name"], namespace)


def test_a_job_fails(cluster: Cluster, namespace: str) -> None:
    """With backoffLimit 0 after one pod, which stays for its message to be read."""
    start(cluster, job(namespace, "j", "printf why > /dev/termination-log; exit 2", backoffLimit=0))
    obj = until_job(cluster, "j", namespace, "Failed")
    assert condition(obj, "Failed")["reason"] == "BackoffLimitExceeded" and obj["status"]["failed"] == 1
    (pod,) = pods_of(cluster, namespace, "job-name=j")
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 2


def test_a_jobs_deadline(cluster: Cluster, namespace: str) -> None:
    """activeDeadlineSeconds ends the pods and fails the Job."""
    start(cluster, job(namespace, "j", "sleep 600", backoffLimit=0, activeDeadlineSeconds=2))
    assert condition(until_job(cluster, "j", namespace, "Failed"), "Failed")["reason"] == "DeadlineExceeded"
    until(cluster, JOB, "j", namespace, lambda obj: not obj["status"].get("active"), "no pod left")


def test_a_finished_job_removes_itself(cluster: Cluster, namespace: str) -> None:
    """ttlSecondsAfterFinished."""
    start(cluster, job(namespace, "j", "exit 0", ttlSecondsAfterFinished=1))
    until_gone(cluster, JOB, "j", namespace)


def test_what_may_not_change_in_a_job(cluster: Cluster, namespace: str) -> None:
    """Its template; and restartPolicy Always is no Job's."""
    start(cluster, job(namespace, "j", "exit 0", suspend=True))
    change = {"spec": {"template": {"spec": {"containers": [container("exit 1")]}}}}
    with pytest.raises(Rejected, match="immutable"):
        cluster.patch(JOB, "j", namespace, change)
    wrong = job(namespace, "k", "exit 0")
    wrong["spec"]["template"]["spec"]["restartPolicy"] = "Always"
    with pytest.raises(Rejected, match="restartPolicy"):
        cluster.create(wrong)


def test_a_cron_job_waits_for_its_time(cluster: Cluster, namespace: str) -> None:
    """It is kept and starts nothing by being created."""
    spec = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": job(namespace, "x", "exit 0")["spec"]}}
    cron = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "c", "namespace": namespace},
        "spec": spec,
    }
    assert cluster.create(cron)["spec"]["schedule"] == "0 0 1 1 *"
    assert list(cluster.list(JOB, namespace)) == []


def deployment(namespace: str, replicas: int) -> Object:
    """A Deployment."""
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template({"app": "web"})}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": spec,
    }


def test_a_deployment_keeps_its_replicas(cluster: Cluster, namespace: str) -> None:
    """Through a ReplicaSet that owns the pods; a lost pod is replaced; zero means zero."""
    start(cluster, deployment(namespace, 2))
    obj = until(cluster, DEPLOYMENT, "web", namespace, is_settled(2), "two ready")
    assert condition(obj, "Available")["status"] == "True"
    (replicas,) = cluster.list("ReplicaSet.apps", namespace)
    assert replicas["metadata"]["ownerReferences"][0]["uid"] == obj["metadata"]["uid"]
    pods = pods_of(cluster, namespace, "app=web")
    assert {one["metadata"]["ownerReferences"][0]["name"] for one in pods} == {replicas["metadata"]["name"]}
    cluster.delete("Pod", pods[0]["metadata"]["name"], namespace, grace_seconds=0)
    until_gone(cluster, "Pod", pods[0]["metadata"]["name"], namespace)
    until(cluster, DEPLOYMENT, "web", namespace, is_settled(2), "two ready again")
    assert pods[0]["metadata"]["name"] not in names(pods_of(cluster, namespace, "app=web"))
    cluster.patch(DEPLOYMENT, "web", namespace, {"spec": {"replicas": 0}}, subresource="scale")
    until(cluster, DEPLOYMENT, "web", namespace, is_settled(0), "none")


def test_a_new_template_replaces_the_pods(cluster: Cluster, namespace: str) -> None:
    """With a second ReplicaSet; the old one stays, empty."""
    start(cluster, deployment(namespace, 1))
    until(cluster, DEPLOYMENT, "web", namespace, is_settled(1), "one ready")
    old = names(pods_of(cluster, namespace, "app=web"))
    cluster.patch(DEPLOYMENT, "web", namespace, {"spec": {"template": {"metadata": {"annotations": {"a": "b"}}}}})
    for name in old:
        until_gone(cluster, "Pod", name, namespace)
    until(cluster, DEPLOYMENT, "web", namespace, is_settled(1), "one ready")
    assert sorted(one["spec"]["replicas"] for one in cluster.list("ReplicaSet.apps", namespace)) == [0, 1]


def test_a_selector_must_match_its_template_and_stays(cluster: Cluster, namespace: str) -> None:
    """422 in both cases."""
    wrong = deployment(namespace, 0)
    wrong["spec"]["selector"] = {"matchLabels": {"app": "other"}}
    with pytest.raises(Rejected, match="selector"):
        cluster.create(wrong)
    cluster.create(deployment(namespace, 0))
    with pytest.raises(Rejected, match="immutable"):
        cluster.patch(DEPLOYMENT, "web", namespace, {"spec": {"selector": {"matchLabels": {"b": "c"}}}})


def stateful_set(namespace: str, replicas: int) -> Object:
    """A StatefulSet of pods that say when they began, each with a claim."""
    script = "date +%s%N > /data/began; trap 'exit 0' TERM; while :; do sleep 0.1; done"
    pods = template({"app": "db"}, script)
    pods["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}}
    spec = {"serviceName": "db", "replicas": replicas, "selector": {"matchLabels": {"app": "db"}}, "template": pods}
    spec["volumeClaimTemplates"] = [{"metadata": {"name": "data"}, "spec": claim}]
    head = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db", "namespace": namespace}}
    return head | {"spec": spec}


def test_a_stateful_set_starts_in_order_with_its_claims(cluster: Cluster, namespace: str) -> None:
    """Pod 1 after pod 0; each with a claim of its own name, which outlives the set and is taken up again."""
    start(cluster, stateful_set(namespace, 2))
    until(cluster, STATEFUL, "db", namespace, is_settled(2), "two ready")
    assert names(cluster.list("PersistentVolumeClaim", namespace)) == ["data-db-0", "data-db-1"]
    began = [int(sh(cluster, namespace, f"db-{number}", "cat /data/began")) for number in (0, 1)]
    assert began[0] < began[1]
    pod = cluster.get("Pod", "db-1", namespace)
    assert pod["spec"]["hostname"] == "db-1" and pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"] == "1"
    sh(cluster, namespace, "db-1", "echo mine > /data/file")
    before = cluster.get("PersistentVolumeClaim", "data-db-1", namespace)["metadata"]["uid"]
    cluster.delete(STATEFUL, "db", namespace, propagation="Foreground")
    until_gone(cluster, STATEFUL, "db", namespace)
    assert list(cluster.list("Pod", namespace)) == []
    cluster.create(stateful_set(namespace, 2))
    until(cluster, STATEFUL, "db", namespace, is_settled(2), "two ready")
    assert cluster.get("PersistentVolumeClaim", "data-db-1", namespace)["metadata"]["uid"] == before
    assert sh(cluster, namespace, "db-1", "cat /data/file") == "mine\n"


def test_a_stateful_set_takes_up_claims_that_are_there(cluster: Cluster, namespace: str) -> None:
    """Recovery fills claims before the workload comes."""
    set_ = stateful_set(namespace, 1)
    claim = {
        "metadata": {"name": "data-db-0", "namespace": namespace},
        "spec": set_["spec"]["volumeClaimTemplates"][0]["spec"],
    }
    made = cluster.create({"apiVersion": "v1", "kind": "PersistentVolumeClaim", **claim})
    start(cluster, set_)
    until(cluster, STATEFUL, "db", namespace, is_settled(1), "one ready")
    after = until(cluster, "PersistentVolumeClaim", "data-db-0", namespace, is_bound, "bound")
    assert after["metadata"]["uid"] == made["metadata"]["uid"]


def test_a_stateful_set_shrinks_from_the_end(cluster: Cluster, namespace: str) -> None:
    """And keeps the claims."""
    start(cluster, stateful_set(namespace, 2))
    until(cluster, STATEFUL, "db", namespace, is_settled(2), "two ready")
    cluster.patch(STATEFUL, "db", namespace, {"spec": {"replicas": 1}})
    until_gone(cluster, "Pod", "db-1", namespace)
    until(cluster, STATEFUL, "db", namespace, is_settled(1), "one ready")
    assert len(list(cluster.list("PersistentVolumeClaim", namespace))) == 2
    with pytest.raises(Rejected):
        cluster.patch(STATEFUL, "db", namespace, {"spec": {"serviceName": "other"}})


def test_a_daemon_set_has_a_pod_on_every_node(cluster: Cluster, namespace: str) -> None:
    """As many as there are nodes."""
    spec = {"selector": {"matchLabels": {"app": "d"}}, "template": template({"app": "d"})}
    head = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "d", "namespace": namespace}}
    start(cluster, head | {"spec": spec})
    nodes = names(cluster.list("Node"))
    obj = until(
        cluster, "DaemonSet.apps", "d", namespace,
        lambda obj: obj["status"].get("numberReady") == len(nodes), "ready on every node",
    )  # fmt: skip
    assert obj["status"]["desiredNumberScheduled"] == len(nodes)
    assert sorted(one["spec"]["nodeName"] for one in pods_of(cluster, namespace, "app=d")) == nodes


def test_services_get_an_address_and_keep_it(cluster: Cluster, namespace: str) -> None:
    """clusterIP is assigned, survives a PUT without it, and may not change; headless stays headless."""
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80}]}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": namespace}, "spec": spec}
    made = cluster.create(service)
    assert made["spec"]["clusterIP"].count(".") == 3 and made["spec"]["clusterIPs"] == [made["spec"]["clusterIP"]]
    assert made["spec"]["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    assert made["spec"]["type"] == "ClusterIP" and made["spec"]["sessionAffinity"] == "None"
    assert cluster.replace(service)["spec"]["clusterIP"] == made["spec"]["clusterIP"]
    with pytest.raises(Rejected, match="clusterIP"):
        cluster.patch("Service", "web", namespace, {"spec": {"clusterIP": "None"}})
    headless = cluster.create(
        service | {"metadata": {"name": "h", "namespace": namespace}, "spec": spec | {"clusterIP": "None"}}
    )
    assert headless["spec"]["clusterIPs"] == ["None"]


def test_a_service_finds_its_ready_pods(cluster: Cluster, namespace: str) -> None:
    """In its EndpointSlice."""
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80}]}
    meta = {"name": "web", "namespace": namespace}
    cluster.create({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
    start(cluster, deployment(namespace, 1))
    until(cluster, DEPLOYMENT, "web", namespace, is_settled(1), "one ready")
    (pod,) = pods_of(cluster, namespace, "app=web")
    until_phase(cluster, pod["metadata"]["name"], namespace, "Running")
    (slice_,) = cluster.list("EndpointSlice.discovery.k8s.io", namespace, labels="kubernetes.io/service-name=web")

    def has_pod(obj: Object) -> bool:
        rows = [(row["targetRef"]["name"], row["conditions"]["ready"]) for row in obj.get("endpoints") or []]
        return rows == [(pod["metadata"]["name"], True)]

    until(cluster, "EndpointSlice.discovery.k8s.io", slice_["metadata"]["name"], namespace, has_pod, "endpoint")
