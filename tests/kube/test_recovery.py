"""The recovery line on one cluster: planned, filled, applied, ready, asked again; a StatefulSet on real volumes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from kube.apply import apply_plan, create_namespaces
from kube.cluster import Cluster
from kube.readiness import targets_of, wait_ready
from kube.rewriting import rewrite
from kube.sanitise import manifest_bytes
from refloat.plan import Planned
from refloat.recovery_point import CataloguedPoint, new_id
from tests.contract.given import claim, sh, until_gone
from tests.kube import points
from tests.kube.filling import CLAIM, Filling
from tests.kube.points import PLACE, planned, point_of

Point = tuple[CataloguedPoint, dict[str, bytes]]
WITHIN = timedelta(seconds=90)


def recover(cluster: Cluster, point: Point, namespace: str) -> tuple[Planned, int]:
    """Carry the plan out, as flows/recover.py does; how many objects were created."""
    made = planned(cluster, point, namespace)
    assert made.plan.blockers == ()
    run = new_id()
    create_namespaces(cluster, made.plan, made.manifests, run=run)
    for volume in made.plan.volumes:
        if volume.action == "hydrate":
            manifest = rewrite(made.manifests[volume.manifest_path], made.plan.mappings)
            filling = Filling(
                cluster, namespace, volume.claim, made.plan.point_id, volume.storage_class, manifest["spec"]
            )
            filling.hydrate(run=run)
    created = apply_plan(cluster, made.plan, made.manifests, run=run, on_done=lambda _: None)
    wait_ready(cluster, targets_of(made.plan), timeout=WITHIN, on_progress=lambda _: None)
    return made, created


def test_a_stateful_application_comes_back_and_stays(cluster: Cluster) -> None:
    """Its set runs on the filled claim; asked again nothing is done, newer data stays; another point is refused."""
    name = f"refloat-test-{new_id()[:8]}"
    objects = [points.stateful_set(), points.service("db"), points.config(), claim(PLACE, "data-db-0")]
    volumes = [points.volume_copy(objects[-1])]
    point = point_of(objects, volumes)
    try:
        _, created = recover(cluster, point, name)
        assert created == 3
        assert sh(cluster, name, "db-0", "cat /data/filled") == f"{point[0].point.id}\n"
        assert [each["metadata"]["name"] for each in cluster.list(CLAIM, name)] == ["data-db-0"]
        pod = cluster.get("Pod", "db-0", name)["metadata"]["uid"]
        sh(cluster, name, "db-0", "echo newer > /data/newer")
        again, created = recover(cluster, point, name)
        assert created == 0
        assert again.plan.count("keep") == len(point[0].point.objects)
        assert cluster.get("Pod", "db-0", name)["metadata"]["uid"] == pod
        assert sh(cluster, name, "db-0", "cat /data/newer") == "newer\n"
        other = planned(cluster, point_of(objects, volumes), name).plan
        assert [blocker.subject for blocker in other.blockers] == [f"{CLAIM} {name}/data-db-0"]
    finally:
        cluster.delete("Namespace", name)
    until_gone(cluster, "Namespace", name)


def test_what_is_alive_is_kept_but_for_its_claim(cluster: Cluster) -> None:
    """A point made of what runs here, planned onto it: every object equals its own manifest, and the claim blocks."""
    name = f"refloat-test-{new_id()[:8]}"
    first = point_of([points.stateful_set(), points.service("db"), claim(PLACE, "data-db-0")],
                     [points.volume_copy(claim(PLACE, "data-db-0"))])  # fmt: skip
    try:
        recover(cluster, first, name)
        living: list[dict[str, Any]] = [
            cluster.get("StatefulSet.apps", "db", name), cluster.get("Service", "db", name),
            cluster.get(CLAIM, "data-db-0", name),
        ]  # fmt: skip
        back = [{**obj, "metadata": {**obj["metadata"], "namespace": PLACE}} for obj in living]
        point = point_of(back, [points.volume_copy(back[-1])])
        for obj in living:  # as if nobody had recovered them
            assert b"recovered" not in manifest_bytes(obj)
        kinds = (("StatefulSet.apps", "db"), ("Service", "db"), (CLAIM, "data-db-0"))
        for kind, each in kinds:
            notes = {"refloat.io/recovered-from": None, "refloat.io/recovered-by": None}
            cluster.patch(kind, each, name, {"metadata": {"annotations": notes}})
        plan = planned(cluster, point, name).plan
        assert {step.ref.kind: step.action for step in plan.objects} == {
            "Namespace": "keep", "StatefulSet.apps": "keep", "Service": "keep",
        }  # fmt: skip
        assert {step.detail for step in plan.objects} == {"exists", "equal"}
        assert [blocker.subject for blocker in plan.blockers] == [f"{CLAIM} {name}/data-db-0"]
    finally:
        cluster.delete("Namespace", name)
    until_gone(cluster, "Namespace", name)
