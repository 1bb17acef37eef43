"""Recovery points made of plain objects, as protecting them would give; no vault is needed to plan and to apply."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from kube.cluster import Cluster
from kube.membership import ref_of
from kube.planning import make_plan
from kube.sanitise import manifest_bytes, manifest_path
from refloat.plan import Mappings, Planned
from refloat.recovery_point import CataloguedPoint, ObjectCopy, RecoveryPoint, VolumeCopy, new_id
from refloat.values import Consistency
from tests.contract.given import container, template

Object = dict[str, Any]
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
PLACE = "shop"
"""The namespace the points come from; no cluster under test has it."""


def namespace_of_point(**labels: str) -> Object:
    """The point's Namespace object."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": PLACE, "labels": labels}}


def volume_copy(claim: Object, data_bytes: int = 17) -> VolumeCopy:
    """A claim's data, of this many bytes."""
    name, spec = claim["metadata"]["name"], claim["spec"]
    return VolumeCopy(
        namespace=PLACE, claim=name, tree="c" * 64, path=f"volumes/{PLACE}/{name}", driver="some.driver",
        storage_class=spec.get("storageClassName"), requested_bytes=16 << 20, access_modes=("ReadWriteOnce",), files=1,
        data_bytes=data_bytes, added_bytes=data_bytes, cut_at=NOON,
    )  # fmt: skip


def point_of(objects: Sequence[Object], volumes: Sequence[VolumeCopy] = ()) -> tuple[CataloguedPoint, dict[str, bytes]]:
    """The recovery point of these objects, and its manifests."""
    copies, manifests = [], {}
    for obj in [namespace_of_point(), *objects]:
        ref = ref_of(obj)
        copies.append(
            ObjectCopy(ref=ref, api_version=obj["apiVersion"], path=manifest_path(ref), reason="in the namespace")
        )
        manifests[manifest_path(ref)] = manifest_bytes(obj)
    point = RecoveryPoint(
        id=new_id(), application="shop", cluster="elsewhere", run=new_id(), started_at=NOON, cut_at=NOON,
        sealed_at=NOON + timedelta(minutes=1), consistency=Consistency.CRASH, cut_method="none",
        objects=tuple(copies), volumes=tuple(volumes), refloat_version="0",
    )  # fmt: skip
    return CataloguedPoint(point=point, snapshot_id="a" * 64, tree="b" * 64), manifests


def into(namespace: str, **classes: str) -> Mappings:
    """The mapping of the points' namespace."""
    return Mappings(namespaces={PLACE: namespace}, storage_classes=classes)


def planned(
    cluster: Cluster, point: tuple[CataloguedPoint, dict[str, bytes]], namespace: str, **classes: str
) -> Planned:
    """The plan to recover a point into a namespace."""
    chosen, manifests = point
    return Planned(make_plan(cluster, chosen, manifests, into(namespace, **classes)), manifests)


def config(name: str = "settings", **data: str) -> Object:
    """A ConfigMap of the point."""
    meta = {"name": name, "namespace": PLACE, "labels": {"app": "shop"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data or {"greeting": "welcome"}}


def account(name: str = "web") -> Object:
    """A ServiceAccount of the point."""
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": PLACE}}


def service(name: str = "web") -> Object:
    """A Service of the point, with the address its old cluster gave."""
    spec = {"selector": {"app": name}, "ports": [{"port": 80}], "clusterIP": "10.1.2.3", "clusterIPs": ["10.1.2.3"]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": PLACE}, "spec": spec}


def role() -> list[Object]:
    """A Role and its RoleBinding to the account `web`."""
    group = "rbac.authorization.k8s.io"
    meta = {"name": "web", "namespace": PLACE}
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]
    subjects = [{"kind": "ServiceAccount", "name": "web", "namespace": PLACE}]
    reference = {"apiGroup": group, "kind": "Role", "name": "web"}
    return [
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": reference,
            "subjects": subjects,
        },
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": dict(meta), "rules": rules},
    ]


def deployment(name: str = "web", replicas: int = 1, **spec: Any) -> Object:
    """A Deployment of the point that runs and waits."""
    pods = template({"app": name}, **spec)
    wanted = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": pods}
    meta = {"name": name, "namespace": PLACE}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": wanted}


def stateful_set(name: str = "db", script: str = "", **spec: Any) -> Object:
    """A StatefulSet of the point with one claim template `data`, mounted at /data."""
    mount = [{"name": "data", "mountPath": "/data"}]
    made = container(script, volumeMounts=mount) if script else None
    pods = template({"app": name}, **({"containers": [made]} if made else {}), **spec)
    for each in pods["spec"]["containers"]:
        each["volumeMounts"] = mount
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}}
    wanted = {
        "replicas": 1, "serviceName": name, "selector": {"matchLabels": {"app": name}}, "template": pods,
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}],
    }  # fmt: skip
    meta = {"name": name, "namespace": PLACE}
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta, "spec": wanted}


def cron_job(name: str = "nightly", *, suspend: bool = False) -> Object:
    """A CronJob of the point."""
    pods = template({"app": name}, "true", restartPolicy="Never")
    spec = {"schedule": "0 3 * * *", "suspend": suspend, "jobTemplate": {"spec": {"template": pods}}}
    meta = {"name": name, "namespace": PLACE}
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": meta, "spec": spec}
