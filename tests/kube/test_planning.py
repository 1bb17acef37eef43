"""Planning: what a recovery would do, on a target that is empty, half done, done, foreign, or cannot take it."""

from __future__ import annotations

from typing import Any

import pytest

from kube.apply import apply_plan, create_namespaces
from kube.cluster import Cluster
from kube.marks import RECOVERED_FROM
from kube.planning import make_plan
from practice.access import Identity
from practice.range import PracticeRange
from refloat.errors import IntegrityError
from refloat.plan import Mappings, Planned, RecoveryPlan
from refloat.recovery_point import new_id
from tests.contract.given import claim, until, until_gone
from tests.kube import points
from tests.kube.filling import CLAIM, Filling
from tests.kube.points import PLACE, planned, point_of

Object = dict[str, Any]


def actions(plan: RecoveryPlan) -> dict[str, str]:
    """What happens to each object and volume, by kind and name."""
    objects = {f"{s.ref.kind.partition('.')[0]} {s.ref.name}": s.action for s in plan.objects}
    return objects | {f"volume {s.claim}": s.action for s in plan.volumes}


def reasons(plan: RecoveryPlan) -> dict[str, str]:
    """Why the plan is blocked, by subject."""
    return {blocker.subject: blocker.reason for blocker in plan.blockers}


def whole_shop() -> list[Object]:
    """Objects of every level, in no particular order."""
    return [
        points.deployment(), points.stateful_set(), points.config(), points.service(), points.account(), *points.role(),
        claim(PLACE, "data-db-0"), points.cron_job(),
    ]  # fmt: skip


@pytest.fixture
def shop() -> Any:
    """A point of the whole shop, with data."""
    objects = whole_shop()
    return point_of(objects, [points.volume_copy(claim(PLACE, "data-db-0"))])


@pytest.fixture
def away(cluster: Cluster) -> Any:
    """The name of a namespace that is not there, and is removed when a test made it."""
    name = f"refloat-test-{new_id()[:8]}"
    yield name
    cluster.delete("Namespace", name)


def test_everything_is_created_where_nothing_is(cluster: Cluster, shop: Any, away: str) -> None:
    """Levels in order, claims with data apart, nothing blocks, and asking creates nothing."""
    plan = planned(cluster, shop, away).plan
    assert set(actions(plan).values()) == {"create", "hydrate"}
    levels = {f"{s.ref.kind.partition('.')[0]}": s.level for s in plan.objects}
    assert levels["Namespace"] < levels["ServiceAccount"] == levels["Role"] == levels["ConfigMap"]
    assert levels["Role"] < levels["RoleBinding"] <= levels["Service"] < levels["StatefulSet"]
    assert [step.level for step in plan.objects] == sorted(step.level for step in plan.objects)
    assert "PersistentVolumeClaim" not in levels
    [volume] = plan.volumes
    assert (volume.namespace, volume.claim, volume.action, volume.tree) == (away, "data-db-0", "hydrate", "c" * 64)
    assert plan.blockers == ()
    assert plan.namespaces == (away,)
    assert cluster.find("Namespace", away) is None


def test_a_raw_block_volume_blocks(cluster: Cluster, away: str) -> None:
    """It is never filled as if it were a folder."""
    copy = points.volume_copy(claim(PLACE, "data-db-0")).model_copy(update={"mode": "device", "chunk_bytes": 1 << 20})
    plan = planned(cluster, point_of([claim(PLACE, "data-db-0")], [copy]), away).plan
    [blocker] = plan.blockers
    assert blocker.subject.endswith("/data-db-0")
    assert "raw block volume" in blocker.reason


def test_the_same_target_gives_the_same_plan(cluster: Cluster, shop: Any, namespace: str) -> None:
    """An approval refers to a digest: it must not change by itself."""
    assert planned(cluster, shop, namespace).plan.digest == planned(cluster, shop, namespace).plan.digest


def carry_out(cluster: Cluster, made: Planned) -> int:
    """Create what the plan creates but volumes."""
    create_namespaces(cluster, made.plan, made.manifests, run=new_id())
    return apply_plan(cluster, made.plan, made.manifests, run=new_id(), on_done=lambda _: None)


def test_what_this_recovery_made_is_kept(cluster: Cluster, away: str) -> None:
    """After a whole recovery there is nothing left to do, whatever controllers and people added since."""
    point = point_of([each for each in whole_shop() if each["kind"] != CLAIM])
    assert carry_out(cluster, planned(cluster, point, away)) == len(point[0].point.objects) - 1
    cluster.patch("Deployment.apps", "web", away, {"spec": {"replicas": 2}})
    plan = planned(cluster, point, away).plan
    assert set(actions(plan).values()) == {"keep"}
    assert plan.blockers == ()


def test_an_equal_object_of_somebody_is_kept(cluster: Cluster, namespace: str) -> None:
    """The server's own additions (defaults, addresses, status, labels and annotations of others) make no difference."""
    objects = [points.deployment(), points.config(), points.service(), points.account(), *points.role()]
    point = point_of(objects)
    for obj in objects:
        cluster.create(moved(obj, namespace))
    note = {"metadata": {"annotations": {"other.example/note": "x"}, "labels": {"other": "x"}}}
    cluster.patch("ConfigMap", "settings", namespace, note)
    until(
        cluster, "Deployment.apps", "web", namespace, lambda obj: bool(obj.get("status", {}).get("conditions")), "seen"
    )
    plan = planned(cluster, point, namespace).plan
    assert set(actions(plan).values()) == {"keep"}
    assert plan.blockers == ()


def moved(obj: Object, namespace: str) -> Object:
    """The object in another namespace, without its old address."""
    spec = {"spec": {k: v for k, v in obj["spec"].items() if not k.startswith("clusterIP")}} if "spec" in obj else {}
    subjects = {"subjects": [{**each, "namespace": namespace} for each in obj.get("subjects", [])]}
    made = {**obj, **spec, "metadata": {**obj["metadata"], "namespace": namespace}}
    return {**made, **(subjects if "subjects" in obj else {})}


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (("Deployment.apps", "web", {"spec": {"replicas": 3}}), "spec.replicas"),
        (("ConfigMap", "settings", {"data": {"greeting": "go away"}}), "data.greeting"),
        (("ConfigMap", "settings", {"data": {"more": "x"}}), "data.more"),
        (("ConfigMap", "settings", {"metadata": {"labels": {"app": "bank"}}}), "metadata.labels.app"),
        (("Service", "web", {"spec": {"selector": {"app": "bank"}}}), "spec.selector.app"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_different_object_is_a_conflict(
    cluster: Cluster, namespace: str, change: tuple[str, str, Object], where: str
) -> None:
    """It is named with the field that differs, and what to do; never with the value."""
    objects = [points.deployment(), points.config(), points.service()]
    for obj in objects:
        cluster.create(moved(obj, namespace))
    kind, name, patch = change
    cluster.patch(kind, name, namespace, patch)
    plan = planned(cluster, point_of(objects), namespace).plan
    assert [step.ref.name for step in plan.objects if step.action == "conflict"] == [name]
    [blocker] = plan.blockers
    assert blocker.subject == f"{kind.partition('.')[0]} {namespace}/{name}"
    assert blocker.reason == f"differs in {where}"
    assert "--to-namespace" in blocker.do
    assert "go away" not in plan.model_dump_json()


def test_a_secret_s_value_is_in_no_plan(cluster: Cluster, namespace: str) -> None:
    """Neither the point's nor the target's."""
    meta = {"name": "auth", "namespace": PLACE}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": {"password": "aHVudGVyMg=="}}
    cluster.create(moved(secret, namespace) | {"data": {"password": "b3RoZXI="}})
    made = planned(cluster, point_of([secret]), namespace)
    assert reasons(made.plan) == {f"Secret {namespace}/auth": "differs in data.password"}
    for value in ("aHVudGVyMg==", "b3RoZXI=", "hunter2"):
        assert value not in made.plan.model_dump_json() + repr(made)


def test_somebody_s_claim_blocks(cluster: Cluster, shop: Any, namespace: str) -> None:
    """A living application is never recovered onto: its claim is named."""
    cluster.create(claim(namespace, "data-db-0"))
    plan = planned(cluster, shop, namespace).plan
    assert actions(plan)["volume data-db-0"] == "conflict"
    assert f"{CLAIM} {namespace}/data-db-0" in reasons(plan)


def test_a_claim_of_another_point_blocks(cluster: Cluster, shop: Any, namespace: str) -> None:
    """Recovered, too, but from another state of the data."""
    other = claim(namespace, "data-db-0")
    other["metadata"]["annotations"] = {RECOVERED_FROM: new_id()}
    cluster.create(other)
    assert actions(planned(cluster, shop, namespace).plan)["volume data-db-0"] == "conflict"


def test_a_claim_this_recovery_filled_is_kept(cluster: Cluster, shop: Any, namespace: str) -> None:
    """And one whose handover is not over is gone on with."""
    chosen, _ = shop
    Filling(cluster, namespace, name="data-db-0", point_id=chosen.point.id).hydrate()
    plan = planned(cluster, shop, namespace).plan
    assert actions(plan)["volume data-db-0"] == "keep"
    assert plan.blockers == ()
    volume = cluster.get(CLAIM, "data-db-0", namespace)["spec"]["volumeName"]
    mark = {"metadata": {"labels": {"refloat.io/recovery": chosen.point.id}}}
    cluster.patch("PersistentVolume", volume, None, mark)
    assert actions(planned(cluster, shop, namespace).plan)["volume data-db-0"] == "hydrate"


def test_a_claim_without_data_is_created_empty_and_told(cluster: Cluster, namespace: str) -> None:
    """As a declared exception leaves it."""
    plan = planned(cluster, point_of([claim(PLACE, "cache")]), namespace).plan
    assert actions(plan)["PersistentVolumeClaim cache"] == "create"
    assert [text for text in plan.warnings if "cache is created empty" in text]


@pytest.mark.parametrize("is_mapped", [True, False])
def test_a_missing_storage_class_blocks(cluster: Cluster, namespace: str, is_mapped: bool) -> None:
    """Named, with the classes there are; a mapping to one that exists is well."""
    wanted = claim(PLACE, "data-db-0", storageClassName="gone")
    point = point_of([wanted], [points.volume_copy(wanted)])
    classes = [each["metadata"]["name"] for each in cluster.list("StorageClass.storage.k8s.io")]
    if is_mapped:
        plan = planned(cluster, point, namespace, gone=classes[0]).plan
        assert (plan.blockers, plan.volumes[0].storage_class) == ((), classes[0])
        return
    [blocker] = planned(cluster, point, namespace).plan.blockers
    assert blocker.reason == "storage class gone does not exist"
    assert "--storage-class gone=NEW" in blocker.do
    assert classes[0] in blocker.do


def test_no_default_class_blocks(practice: PracticeRange) -> None:
    """A claim that names no class needs one."""
    cluster = Cluster.open(kubeconfig=str(practice.kubeconfig))
    off = {"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "false"}}}
    cluster.patch("StorageClass.storage.k8s.io", "practice", None, off)
    wanted = claim(PLACE, "data-db-0")
    plan = planned(cluster, point_of([wanted], [points.volume_copy(wanted)]), "default").plan
    assert reasons(plan) == {
        f"{CLAIM} default/data-db-0": "it names no storage class and the target has no default one"
    }


def test_classes_that_pods_need_block_and_others_warn(cluster: Cluster, away: str) -> None:
    """Without its PriorityClass no pod is admitted; without its IngressClass an Ingress is only idle."""
    rule = {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}, "ingressClassName": "no-such"}
    meta = {"name": "web", "namespace": PLACE}
    ingress = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": meta, "spec": rule}
    point = point_of([points.deployment(priorityClassName="no-such"), ingress])
    plan = planned(cluster, point, away).plan
    assert reasons(plan) == {f"Deployment {away}/web": "its PriorityClass no-such does not exist"}
    assert [text for text in plan.warnings if "IngressClass no-such" in text]


def test_a_kind_nobody_serves_blocks(cluster: Cluster, away: str) -> None:
    """Once for the kind, with its version."""
    meta = {"name": "one", "namespace": PLACE}
    strange = {"apiVersion": "refloat-test.example/v1", "kind": "Strange", "metadata": meta, "spec": {}}
    other = {**strange, "metadata": {**meta, "name": "two"}}
    [blocker] = planned(cluster, point_of([strange, other]), away).plan.blockers
    assert "Strange.refloat-test.example" in blocker.subject
    assert "serves no such kind" in blocker.reason


def test_another_version_of_a_kind_blocks(cluster: Cluster, away: str) -> None:
    """What the target would not understand is not sent to it."""
    old = {"apiVersion": "apps/v1beta1", "kind": "Deployment", "metadata": {"name": "web", "namespace": PLACE}}
    [blocker] = planned(cluster, point_of([old | {"spec": {}}]), away).plan.blockers
    assert blocker.reason == "the target serves it as apps/v1"


def test_a_namespace_on_its_way_out_blocks(cluster: Cluster, namespace: str) -> None:
    """Terminating: nothing can be created in it."""
    held = points.config() | {"metadata": {"name": "held", "namespace": namespace, "finalizers": ["refloat.io/test"]}}
    cluster.create(held)
    cluster.delete("Namespace", namespace)
    until(cluster, "Namespace", namespace, None, lambda obj: "deletionTimestamp" in obj["metadata"], "terminating")
    try:
        plan = planned(cluster, point_of([points.config()]), namespace).plan
        assert reasons(plan) == {f"namespace {namespace}": "it is Terminating"}
    finally:
        cluster.patch("ConfigMap", "held", namespace, {"metadata": {"finalizers": None}})
    until_gone(cluster, "Namespace", namespace)


def test_what_admission_refuses_blocks(cluster: Cluster, namespace: str) -> None:
    """The server is asked by a dry run, and its reason is passed on; nothing is created."""
    bad = points.deployment()
    bad["spec"]["selector"] = {"matchLabels": {"app": "not-the-template-s"}}
    point = point_of([bad, points.config()])
    plan = planned(cluster, point, namespace).plan
    assert list(reasons(plan)) == [f"Deployment {namespace}/web"]
    assert "selector" in reasons(plan)[f"Deployment {namespace}/web"]
    assert cluster.find("ConfigMap", "settings", namespace) is None


def test_missing_rights_block_and_are_named(practice: PracticeRange, shop: Any) -> None:
    """An identity that may only read gets a plan with one blocker, and no exception."""
    kinds = ("Namespace", "StatefulSet.apps", "Job.batch", "Secret", "PersistentVolume*")
    reader = Identity("reader", denied=tuple((verb, kind) for kind in kinds for verb in ("create", "patch", "delete")))
    cluster = Cluster.open(kubeconfig=str(practice.kubeconfig_for(practice.access.admit(reader))))
    [blocker] = planned(cluster, shop, "shop-copy").plan.blockers
    assert blocker.subject == "rights"
    for right in ("create Namespace", "create StatefulSet.apps in shop-copy", "create Job.batch in refloat"):
        assert right in blocker.reason
    assert "get" not in blocker.reason
    assert "Deployment" not in blocker.reason


def test_what_may_not_be_read_blocks_too(practice: PracticeRange, shop: Any) -> None:
    """Not being allowed to look is no proof of absence."""
    blind = Identity("blind", denied=(("get", "Secret"), ("get", "StatefulSet.apps"), ("get", "PersistentVolume")))
    cluster = Cluster.open(kubeconfig=str(practice.kubeconfig_for(practice.access.admit(blind))))
    plan = planned(cluster, shop, "shop-copy").plan
    assert "get StatefulSet.apps in shop-copy" in reasons(plan)["rights"]
    assert "get PersistentVolume" in " ".join(blocker.reason for blocker in plan.blockers)


def test_a_misspelt_mapping_blocks(cluster: Cluster) -> None:
    """Otherwise the recovery would go into the old namespace after all."""
    chosen, manifests = point_of([points.config()])
    plan = make_plan(cluster, chosen, manifests, Mappings(namespaces={"shp": "shop-copy"}))
    assert "namespace shp" in reasons(plan)


def test_refloat_s_own_namespace_is_no_target(cluster: Cluster) -> None:
    """Movers and their Secrets live there."""
    assert "namespace refloat" in reasons(planned(cluster, point_of([points.config()]), "refloat").plan)


def test_two_objects_that_would_become_one_block(cluster: Cluster, away: str) -> None:
    """Two namespaces mapped to one."""
    other = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "bank"}, "data": {}}
    chosen, manifests = point_of([points.config(), other])
    plan = make_plan(cluster, chosen, manifests, Mappings(namespaces={PLACE: away, "bank": away}))
    assert f"ConfigMap {away}/settings" in reasons(plan)


def test_hosts_named_in_text_are_told(cluster: Cluster, away: str) -> None:
    """Text is not rewritten: a person must know."""
    point = point_of([points.config(url=f"http://db.{PLACE}.svc:5432")])
    assert [text for text in planned(cluster, point, away).plan.warnings if f"hosts of namespace {PLACE}" in text]


def test_the_default_account_is_completed(cluster: Cluster, namespace: str) -> None:
    """Every namespace is born with one: it gets what the point's has, and is no conflict."""
    account = points.account("default") | {"imagePullSecrets": [{"name": "registry"}]}
    until(cluster, "ServiceAccount", "default", namespace, lambda _: True, "default account")
    point = point_of([account])
    made = planned(cluster, point, namespace)
    assert (actions(made.plan)["ServiceAccount default"], made.plan.blockers) == ("create", ())
    assert carry_out(cluster, made) == 1
    live = cluster.get("ServiceAccount", "default", namespace)
    assert live["imagePullSecrets"] == [{"name": "registry"}]
    assert actions(planned(cluster, point, namespace).plan)["ServiceAccount default"] == "keep"


def test_a_point_that_is_not_whole_is_no_plan(cluster: Cluster) -> None:
    """A manifest that is named and missing, or data without its claim, is a damaged point."""
    chosen, manifests = point_of([points.config()])
    with pytest.raises(IntegrityError, match="settings"):
        make_plan(cluster, chosen, {k: v for k, v in manifests.items() if "settings" not in k}, Mappings())
    lost = chosen.model_copy(
        update={
            "point": chosen.point.model_copy(update={"volumes": (points.volume_copy(claim(PLACE, "data-db-0")),)}),
        }
    )
    with pytest.raises(IntegrityError, match="data-db-0"):
        make_plan(cluster, lost, manifests, Mappings())
