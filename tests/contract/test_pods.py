"""Pods: their end, message, output, environment, readiness and deletion."""

from __future__ import annotations

from typing import Any

import pytest

from kube.cluster import Cluster
from refloat.errors import Forbidden, Rejected
from tests.contract.given import (
    STAYS,
    condition,
    config_map,
    container,
    pod,
    run_pod,
    sh,
    start,
    until,
    until_gone,
    until_phase,
)

Object = dict[str, Any]


def ended(obj: Object, name: str = "main") -> Object:
    """The terminated state of a container."""
    rows = obj["status"].get("containerStatuses", [])
    state = next((row["state"] for row in rows if row["name"] == name), {})
    return dict(state.get("terminated", {}))


def waiting(obj: Object) -> str:
    """Why the first container waits."""
    rows = obj["status"].get("containerStatuses") or [{}]
    return str(rows[0].get("state", {}).get("waiting", {}).get("reason", ""))


def test_success_with_a_message_and_output(cluster: Cluster, namespace: str) -> None:
    """The termination message is what the container wrote; the log is what it printed, both streams."""
    script = "echo one; echo two >&2; printf done > /dev/termination-log"
    start(cluster, pod(namespace, "p", script))
    obj = until_phase(cluster, "p", namespace, "Succeeded")
    assert (ended(obj)["exitCode"], ended(obj)["reason"], ended(obj)["message"]) == (0, "Completed", "done")
    assert sorted(cluster.log_lines(namespace, "p", "main")) == ["one", "two"]
    assert obj["spec"]["nodeName"] and obj["status"]["startTime"]
    assert condition(obj, "Ready")["reason"] == "PodCompleted"


def test_failure(cluster: Cluster, namespace: str) -> None:
    """A pod that is never restarted fails with its container's exit code."""
    start(cluster, pod(namespace, "p", "exit 3"))
    obj = until_phase(cluster, "p", namespace, "Failed")
    assert (ended(obj)["exitCode"], ended(obj)["reason"]) == (3, "Error")
    assert "message" not in ended(obj)


def test_a_signal_is_128_and_its_number(cluster: Cluster, namespace: str) -> None:
    """As shells count."""
    start(cluster, pod(namespace, "p", "python3 -c 'import os; os.kill(os.getpid(), 9)'; exit $?"))
    assert ended(until_phase(cluster, "p", namespace, "Failed"))["exitCode"] == 137


def test_the_log_as_a_fallback_message(cluster: Cluster, namespace: str) -> None:
    """FallbackToLogsOnError: the end of the log, only after a failure, only without a message."""
    policy = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    start(cluster, pod(namespace, "p", containers=[container("echo why; exit 1", **policy)]))
    cluster.create(pod(namespace, "q", containers=[container("echo why", **policy)]))
    assert ended(until_phase(cluster, "p", namespace, "Failed"))["message"] == "why\n"
    assert "message" not in ended(until_phase(cluster, "q", namespace, "Succeeded"))


def test_a_long_message_is_cut(cluster: Cluster, namespace: str) -> None:
    """At 4096 bytes: what must arrive whole has to fit."""
    start(cluster, pod(namespace, "p", "head -c 5000 /dev/zero | tr '\\0' x > /dev/termination-log"))
    assert ended(until_phase(cluster, "p", namespace, "Succeeded"))["message"] == "x" * 4096


def test_the_environment(cluster: Cluster, namespace: str) -> None:
    """Values, keys of Secrets and ConfigMaps, whole ones with a prefix, fields of the pod, and $(…)."""
    meta = {"name": "s", "namespace": namespace}
    cluster.create({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"password": "geheim"}})
    cluster.create(config_map(namespace, "c", COLOUR="blue", SIZE="big"))
    env = [
        {"name": "PLAIN", "value": "a value"},
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "s", "key": "password"}}},
        {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "COLOUR"}}},
        {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "no", "key": "x", "optional": True}}},
        {"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "BOTH", "value": "$(PLAIN)/$(WHO)/$(UNKNOWN)/$$(PLAIN)"},
    ]
    sources = [{"configMapRef": {"name": "c"}, "prefix": "C_"}, {"secretRef": {"name": "s"}}]
    script = 'echo "$PLAIN|$PASSWORD|$COLOUR|${NONE-unset}|$WHO|$BOTH|$C_SIZE|$password|$1"'
    made = container(script, env=env, envFrom=sources)
    made["command"] += ["sh", "$(WHO)"]
    start(cluster, pod(namespace, "p", containers=[made]))
    until_phase(cluster, "p", namespace, "Succeeded")
    (line,) = cluster.log_lines(namespace, "p", "main")
    assert line == "a value|geheim|blue|unset|p|a value/p/$(UNKNOWN)/$(PLAIN)|big|geheim|p"


def test_files_from_secrets_and_maps(cluster: Cluster, namespace: str) -> None:
    """Keys become files; items choose and rename."""
    meta = {"name": "s", "namespace": namespace}
    cluster.create({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"a": "1", "b": "2"}})
    cluster.create(config_map(namespace, "c", script="echo from a map"))
    volumes = [
        {"name": "s", "secret": {"secretName": "s", "items": [{"key": "b", "path": "sub/b"}]}},
        {"name": "c", "configMap": {"name": "c"}},
        {"name": "scratch", "emptyDir": {}},
    ]
    mounts = [{"name": "s", "mountPath": "/etc/s"}, {"name": "c", "mountPath": "/etc/c"}]
    mounts.append({"name": "scratch", "mountPath": "/scratch"})
    script = "cat /etc/s/sub/b; ls /etc/s; sh /etc/c/script; echo x > /scratch/x; cat /scratch/x"
    start(cluster, pod(namespace, "p", containers=[container(script, volumeMounts=mounts)], volumes=volumes))
    until_phase(cluster, "p", namespace, "Succeeded")
    assert "".join(cluster.log_lines(namespace, "p", "main")) == "2subfrom a mapx"


def test_a_missing_secret_is_waited_for(cluster: Cluster, namespace: str) -> None:
    """CreateContainerConfigError until it is there, then the pod runs."""
    env = [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "a"}}}]
    start(cluster, pod(namespace, "p", containers=[container("exit 0", env=env)]))
    obj = until(
        cluster,
        "Pod",
        "p",
        namespace,
        lambda obj: waiting(obj) == "CreateContainerConfigError",
        "waiting for the Secret",
    )
    assert obj["status"]["phase"] == "Pending"
    meta = {"name": "s", "namespace": namespace}
    cluster.create({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"a": "1"}})
    until_phase(cluster, "p", namespace, "Succeeded")


def test_a_missing_account_is_refused(cluster: Cluster, namespace: str) -> None:
    """Before the pod exists."""
    with pytest.raises(Forbidden, match="nobody"):
        start(cluster, pod(namespace, "p", serviceAccountName="nobody"))


def test_an_image_that_is_not_there(cluster: Cluster, namespace: str) -> None:
    """The pod stays Pending and says why."""
    made = container("exit 0") | {"image": "refloat.invalid/no/such:missing", "imagePullPolicy": "Never"}
    start(cluster, pod(namespace, "p", containers=[made]))
    obj = until(cluster, "Pod", "p", namespace, lambda obj: waiting(obj) == "ErrImageNeverPull", "no image")
    assert obj["status"]["phase"] == "Pending"


def test_readiness_is_what_the_probe_says(cluster: Cluster, namespace: str) -> None:
    """Not ready, ready, and not ready again."""
    probe = {"exec": {"command": ["test", "-f", "/work/ready"]}, "periodSeconds": 1, "failureThreshold": 1}
    run_pod(cluster, pod(namespace, "p", containers=[container(STAYS, readinessProbe=probe)]))

    def until_ready(status: str) -> Object:
        return until(
            cluster, "Pod", "p", namespace, lambda obj: condition(obj, "Ready").get("status") == status, "readiness"
        )

    assert condition(until_ready("False"), "ContainersReady")["reason"] == "ContainersNotReady"
    sh(cluster, namespace, "p", "touch /work/ready")
    assert until_ready("True")["status"]["containerStatuses"][0]["ready"] is True
    sh(cluster, namespace, "p", "rm /work/ready")
    until_ready("False")


def test_init_containers_come_first(cluster: Cluster, namespace: str) -> None:
    """Each to its end, in order; one that fails holds the pod."""
    mounts = [{"name": "shared", "mountPath": "/work"}]
    inits = [container("echo a > /work/f", "one", volumeMounts=mounts)]
    inits.append(container("echo b >> /work/f", "two", volumeMounts=mounts))
    start(cluster, pod(namespace, "p", "cat /work/f", initContainers=inits))
    until_phase(cluster, "p", namespace, "Succeeded")
    assert list(cluster.log_lines(namespace, "p", "main")) == ["a", "b"]
    cluster.create(pod(namespace, "q", "exit 0", initContainers=[container("exit 1", "one")]))
    obj = until_phase(cluster, "q", namespace, "Failed")
    assert obj["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 1


def test_restarts(cluster: Cluster, namespace: str) -> None:
    """OnFailure: the container is started again, its last end kept, its volumes too."""
    start(cluster, pod(namespace, "p", "test -f /work/f || { touch /work/f; exit 4; }", restartPolicy="OnFailure"))
    row = until_phase(cluster, "p", namespace, "Succeeded")["status"]["containerStatuses"][0]
    assert row["restartCount"] == 1 and row["lastState"]["terminated"]["exitCode"] == 4


def test_following_a_log(cluster: Cluster, namespace: str) -> None:
    """Lines come as they are written; the stream ends with the container."""
    run_pod(cluster, pod(namespace, "p", "echo first; while [ ! -f /work/go ]; do sleep 0.1; done; echo second"))
    lines = cluster.log_lines(namespace, "p", "main", follow=True)
    assert next(lines) == "first"
    sh(cluster, namespace, "p", "touch /work/go")
    assert list(lines) == ["second"]


def test_no_log_yet_and_no_such_container(cluster: Cluster, namespace: str) -> None:
    """400, in words."""
    env = [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "a"}}}]
    start(cluster, pod(namespace, "p", containers=[container("exit 0", env=env)]))
    until(cluster, "Pod", "p", namespace, lambda obj: waiting(obj) == "CreateContainerConfigError", "waiting")
    with pytest.raises(Rejected, match="waiting to start"):
        list(cluster.log_lines(namespace, "p", "main"))
    with pytest.raises(Rejected, match="container other is not valid for pod p"):
        list(cluster.log_lines(namespace, "p", "other"))


def test_a_pod_is_asked_to_end(cluster: Cluster, namespace: str) -> None:
    """SIGTERM, then gone; meanwhile it is marked with its grace."""
    script = "trap 'sleep 1; echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done"
    run_pod(cluster, pod(namespace, "p", script, terminationGracePeriodSeconds=20))
    lines = cluster.log_lines(namespace, "p", "main", follow=True)
    assert next(lines) == "up"
    cluster.delete("Pod", "p", namespace)
    marked = cluster.get("Pod", "p", namespace)["metadata"]
    assert marked["deletionTimestamp"] and marked["deletionGracePeriodSeconds"] == 20
    assert list(lines) == ["bye"]
    until_gone(cluster, "Pod", "p", namespace)


def test_a_pod_that_will_not_end_is_killed(cluster: Cluster, namespace: str) -> None:
    """After its grace."""
    run_pod(cluster, pod(namespace, "p", "trap '' TERM; while :; do sleep 0.1; done", terminationGracePeriodSeconds=1))
    cluster.delete("Pod", "p", namespace)
    until_gone(cluster, "Pod", "p", namespace)


def test_a_pods_deadline(cluster: Cluster, namespace: str) -> None:
    """activeDeadlineSeconds: Failed, reason DeadlineExceeded."""
    start(cluster, pod(namespace, "p", activeDeadlineSeconds=1))
    assert until_phase(cluster, "p", namespace, "Failed")["status"]["reason"] == "DeadlineExceeded"


def test_a_claim_that_is_not_there(cluster: Cluster, namespace: str) -> None:
    """Unschedulable, in words, until it comes."""
    start(cluster, pod(namespace, "p", claims={"/data": "none"}))
    obj = until(
        cluster, "Pod", "p", namespace,
        lambda obj: condition(obj, "PodScheduled").get("reason") == "Unschedulable", "unschedulable",
    )  # fmt: skip
    assert 'persistentvolumeclaim "none" not found' in condition(obj, "PodScheduled")["message"]


def test_what_may_not_change_in_a_pod(cluster: Cluster, namespace: str) -> None:
    """Its spec, nearly all of it; labels may."""
    start(cluster, pod(namespace, "p"))
    with pytest.raises(Rejected, match="pod updates may not change fields"):
        cluster.patch("Pod", "p", namespace, {"spec": {"restartPolicy": "Always"}})
    assert cluster.patch("Pod", "p", namespace, {"metadata": {"labels": {"a": "b"}}})["metadata"]["labels"] == {
        "a": "b"
    }
