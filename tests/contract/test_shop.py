"""The practice shop runs wherever Kubernetes does: up, orders taken, checkpointed, its claims cut as a group."""

from __future__ import annotations

import json
from typing import Any

from kube.cluster import Cluster
from kube.discovery import discover
from kube.hooks import plan_hooks, run_pre
from practice import shop
from refloat.application import Application, Member
from tests.contract.given import SOON, until
from tests.contract.test_snapshots import GROUP_SNAPSHOT, group, members, until_ready

Object = dict[str, Any]
LABEL = "app.kubernetes.io/part-of"


def run(cluster: Cluster, namespace: str, command: tuple[str, ...]) -> str:
    """A command in the database's container, which must succeed."""
    done = cluster.exec(namespace, shop.POD, shop.CONTAINER, command, timeout=SOON)
    assert done.exit_code == 0, done
    return done.stdout.decode()


def test_the_shop_takes_orders_and_is_cut(cluster: Cluster, namespace: str) -> None:
    """Every object accepted, every workload ready, its Velero hook run, both volumes in one group."""
    for obj in shop.manifests(namespace):
        if obj["kind"] != "Namespace":
            cluster.create(obj)
    for (kind, name), replicas in zip(shop.WORKLOADS, (1, 2), strict=True):

        def is_ready(obj: Object, wanted: int = replicas) -> bool:
            return bool(obj.get("status", {}).get("readyReplicas") == wanted)

        until(cluster, kind, name, namespace, is_ready, f"{name} ready")
    run(cluster, namespace, shop.place(50))
    counted = json.loads(run(cluster, namespace, shop.COUNT))
    assert (counted["orders"], counted["journal"]) == (50, 50)
    application = Application(name="shop", members=(Member(namespace=namespace),))
    records = run_pre(cluster, plan_hooks(application, discover(cluster, application)))
    assert [(record.pod, record.exit_code) for record in records] == [(shop.POD, 0)]
    made = group(cluster, namespace, "g", **{LABEL: "shop"})
    until_ready(cluster, GROUP_SNAPSHOT, "g", namespace)
    assert sorted(members(cluster, namespace, made)) == ["data-db-0", "journal-db-0"]
