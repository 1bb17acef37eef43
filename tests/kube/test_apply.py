"""Applying: the plan and nothing else, in order, marked, never over what exists, and through passing refusals."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from typing import Any, cast

import pytest

from kube.apply import apply_plan, create_namespaces, resume_schedules
from kube.cluster import Cluster
from kube.levels import level_of
from kube.marks import RECOVERED_BY, RECOVERED_FROM, SUSPENDED
from kube.membership import ref_of
from kube.sanitise import manifest_bytes, sanitise
from practice.access import Fault
from practice.range import PracticeRange
from refloat.application import RUN_LABEL
from refloat.errors import ObjectExists, RefloatError, Rejected
from refloat.plan import Planned
from refloat.recovery_point import new_id
from tests.contract.given import claim, until
from tests.kube import points
from tests.kube.points import PLACE, namespace_of_point, planned, point_of

Object = dict[str, Any]


def carry_out(cluster: Cluster, made: Planned, *, run: str = "0123456789abcdef") -> tuple[int, list[str]]:
    """Create namespaces, then the rest; how many, and what was told."""
    told: list[str] = []
    assert made.plan.blockers == ()
    create_namespaces(cluster, made.plan, made.manifests, run=run)
    return apply_plan(cluster, made.plan, made.manifests, run=run, on_done=told.append), told


class Watched:
    """A cluster that notes what is created, in order."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._guard = cluster, threading.Lock()
        self.created: list[Object] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster, name)

    def create(self, obj: Object, **options: Any) -> Object:
        """Create and remember."""
        made = self._cluster.create(obj, **options)
        if not options:
            with self._guard:
                self.created.append(made)
        return made


def test_everything_is_created_by_level(cluster: Cluster, namespace: str) -> None:
    """What an object needs is there before it; each bears the point's id, and no label by which sweeps find things."""
    point = point_of(
        [points.cron_job(), points.deployment(), points.service(), *points.role(), points.account(), points.config()]
    )
    watched = Watched(cluster)
    made = planned(cluster, point, namespace)
    created, told = carry_out(cast("Cluster", watched), made)
    assert created == len(watched.created) == len(told) == 7
    levels = [level_of(ref_of(obj).kind) for obj in watched.created]
    assert levels == sorted(levels)
    assert len(set(levels)) == 3
    for obj in watched.created:
        meta = obj["metadata"]
        assert meta["namespace"] == namespace
        assert meta["annotations"][RECOVERED_FROM] == point[0].point.id
        assert meta["annotations"][RECOVERED_BY] == "0123456789abcdef"
        assert RUN_LABEL not in (meta.get("labels") or {})
    [binding] = [obj for obj in watched.created if obj["kind"] == "RoleBinding"]
    assert binding["subjects"][0]["namespace"] == namespace


def test_what_was_recovered_is_protected_as_it_was(cluster: Cluster, namespace: str) -> None:
    """Marks of a recovery are not the application's: they are in no later point."""
    point = point_of([points.config(), points.cron_job()])
    carry_out(cluster, planned(cluster, point, namespace))
    for kind, name in (("ConfigMap", "settings"), ("CronJob.batch", "nightly")):
        clean = sanitise(cluster.get(kind, name, namespace))
        assert "annotations" not in clean["metadata"]
        assert clean.get("spec", {}).get("suspend", False) is False


def test_a_missing_namespace_is_made_with_its_labels(cluster: Cluster) -> None:
    """And only a missing one; it may be asked for twice."""
    name = f"refloat-test-{new_id()[:8]}"
    point = point_of([points.config()])
    path = next(path for path in point[1] if "Namespace" in path)
    point[1][path] = manifest_bytes(namespace_of_point(team="a"))
    made = planned(cluster, point, name)
    try:
        create_namespaces(cluster, made.plan, made.manifests, run=new_id())
        create_namespaces(cluster, made.plan, made.manifests, run=new_id())
        live = cluster.get("Namespace", name)
        assert live["metadata"]["labels"]["team"] == "a"
        assert live["metadata"]["labels"]["kubernetes.io/metadata.name"] == name
        assert carry_out(cluster, planned(cluster, point, name))[0] == 1
    finally:
        cluster.delete("Namespace", name)


def test_again_it_creates_what_is_missing(cluster: Cluster, namespace: str) -> None:
    """The same plan, run after a break: what is there and ours is kept, and counted as not created."""
    made = planned(cluster, point_of([points.config(), points.service(), points.account()]), namespace)
    assert carry_out(cluster, made)[0] == 3
    cluster.delete("Service", "web", namespace)
    created, told = carry_out(cluster, made)
    assert created == 1
    assert [line for line in told if line.endswith("created")] == [f"Service {namespace}/web created"]


def test_what_appeared_since_the_plan_is_left_alone(cluster: Cluster, namespace: str) -> None:
    """One that differs stops the recovery and is named; one in the same words is as good as ours."""
    made = planned(cluster, point_of([points.config(), points.config("other")]), namespace)
    theirs = points.config(greeting="theirs")
    cluster.create(theirs | {"metadata": {"name": "settings", "namespace": namespace}})
    same = points.config("other")
    cluster.create(same | {"metadata": same["metadata"] | {"namespace": namespace}})
    with pytest.raises(ObjectExists, match=f"ConfigMap {namespace}/settings exists.*differs in data.greeting"):
        carry_out(cluster, made)
    assert cluster.get("ConfigMap", "settings", namespace)["data"] == {"greeting": "theirs"}
    assert RECOVERED_FROM not in (cluster.get("ConfigMap", "other", namespace)["metadata"].get("annotations") or {})


def test_a_refused_object_is_named_with_the_reason(cluster: Cluster, namespace: str) -> None:
    """After everything else of its level was tried; higher levels are not begun."""
    point = point_of([points.config(), points.service(), points.deployment()])
    made = planned(cluster, point, namespace)
    bad = points.service()
    bad["spec"] = {"ports": [{"port": 80}], "type": "NoSuchType", "selector": {}}
    bad["metadata"]["labels"] = {"bad": "not a label value!"}
    path = next(step.source_path for step in made.plan.objects if step.ref.kind == "Service")
    manifests = {**made.manifests, path: json.dumps(bad).encode()}
    with pytest.raises(Rejected, match=rf"^Service {namespace}/web: .*label"):
        carry_out(cluster, Planned(made.plan, manifests))
    assert cluster.find("ConfigMap", "settings", namespace) is not None
    assert cluster.find("Deployment.apps", "web", namespace) is None


def test_schedules_wait_for_the_workloads(cluster: Cluster, namespace: str) -> None:
    """A CronJob is created suspended and resumed at the end; one that was suspended in the point stays so."""
    point = point_of([points.cron_job(), points.cron_job("paused", suspend=True)])
    made = planned(cluster, point, namespace)
    carry_out(cluster, made)

    def states() -> dict[str, tuple[bool, bool]]:
        jobs = cluster.list("CronJob.batch", namespace)
        return {
            each["metadata"]["name"]: (each["spec"]["suspend"], SUSPENDED in each["metadata"]["annotations"])
            for each in jobs
        }

    assert states() == {"nightly": (True, True), "paused": (True, False)}
    resume_schedules(cluster, made.plan)
    assert states() == {"nightly": (False, False), "paused": (True, False)}
    cluster.patch("CronJob.batch", "nightly", namespace, {"spec": {"suspend": True}})
    resume_schedules(cluster, planned(cluster, point, namespace).plan)
    assert states()["nightly"] == (True, False), "what a person suspended since stays suspended"


FAULTS = [
    Fault("answer", r"/configmaps(\?|$)", method="POST", status=500),
    Fault("answer", r"/configmaps(\?|$)", method="POST", status=503, times=3),
    Fault("drop", r"/configmaps(\?|$)", method="POST"),
    Fault("drop-after", r"/configmaps(\?|$)", method="POST"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.act}-{fault.status}-{fault.times}")
def test_passing_refusals_are_outlasted(practice: PracticeRange, fault: Fault) -> None:
    """A webhook that does not answer, a lost connection, an answer that never came: created, once."""
    cluster = Cluster.open(kubeconfig=str(practice.kubeconfig))
    made = planned(cluster, point_of([points.config()]), "default")
    practice.access.inject(fault)
    carry_out(cluster, made)
    assert fault.fired == fault.times
    assert cluster.get("ConfigMap", "settings", "default")["data"] == {"greeting": "welcome"}


def test_a_refusal_that_does_not_pass_is_told_at_last(practice: PracticeRange) -> None:
    """Patience is bounded."""
    cluster = Cluster.open(kubeconfig=str(practice.kubeconfig))
    made = planned(cluster, point_of([points.config()]), "default")
    fault = practice.access.inject(Fault("answer", r"/configmaps(\?|$)", method="POST", status=500, times=1000))
    with pytest.raises(RefloatError, match="ConfigMap default/settings"):
        apply_plan(
            cluster, made.plan, made.manifests, run=new_id(), on_done=print, patience=timedelta(milliseconds=600)
        )
    assert fault.fired > 1


def test_claims_with_data_are_not_created_here(cluster: Cluster, namespace: str) -> None:
    """They come filled, from the handover."""
    wanted = claim(PLACE, "data-db-0")
    made = planned(cluster, point_of([wanted, points.config()], [points.volume_copy(wanted)]), namespace)
    assert carry_out(cluster, made)[0] == 1
    assert cluster.find("PersistentVolumeClaim", "data-db-0", namespace) is None


def test_pods_find_their_account(cluster: Cluster, namespace: str) -> None:
    """A bare pod is admitted only where its account is; both are of the point."""
    pod = points.deployment()["spec"]["template"]
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "alone", "namespace": PLACE},
        "spec": {**pod["spec"], "serviceAccountName": "web"},
    }  # fmt: skip
    assert carry_out(cluster, planned(cluster, point_of([pod, points.account()]), namespace))[0] == 2
    until(cluster, "Pod", "alone", namespace, lambda obj: obj["spec"]["serviceAccountName"] == "web", "there")
