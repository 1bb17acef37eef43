"""Isolation of a drill's plan: names of its own, doors closed, schedules suspended, nothing that opens the fence."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kube.isolation import closed, drill_mark, isolate, mappings_of, why_left_out
from kube.rewriting import rewrite
from refloat.application import RUN_LABEL
from refloat.plan import Mappings, ObjectStep, Planned, RecoveryPlan
from refloat.recovery_point import ObjectRef, new_id

RUN = "0123456789abcdef"
NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)


class Point:
    """Of a recovery point only what mappings are made of."""

    def __init__(self, *namespaces: str) -> None:
        refs = [ObjectRef(kind="Secret", namespace=name, name="s") for name in namespaces]
        self.objects = [type("Copy", (), {"ref": ref}) for ref in refs]


@given(st.sets(NAMES, min_size=1, max_size=5))
def test_every_namespace_gets_a_legal_name_of_the_run(names: set[str]) -> None:
    """A DNS label that ends with the run's mark, another one than before."""
    found = mappings_of(Point(*names), RUN).namespaces  # type: ignore[arg-type]
    assert set(found) == names
    for old, new in found.items():
        assert new.endswith(drill_mark(RUN)) and new != old
        assert len(new) <= 63 and new[0].isalnum() and new[-1].isalnum()


def service(kind: str, **spec: Any) -> dict[str, Any]:
    """A Service of a type."""
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"type": kind, **spec}}


@pytest.mark.parametrize(
    "made",
    [
        service("NodePort", ports=[{"port": 80, "nodePort": 30080}], externalTrafficPolicy="Local"),
        service("LoadBalancer", ports=[{"port": 80, "nodePort": 30080}], loadBalancerIP="1.2.3.4",
                loadBalancerSourceRanges=["0.0.0.0/0"], healthCheckNodePort=32000),
        service("ClusterIP", ports=[{"port": 80}], externalIPs=["1.2.3.4"]),
    ],
)  # fmt: skip
def test_services_are_reached_from_within_only(made: dict[str, Any]) -> None:
    """What the server would refuse of another type goes as well."""
    assert closed("Service", made, RUN)
    assert made["spec"] == {"type": "ClusterIP", "ports": [{"port": 80}]}


@pytest.mark.parametrize(
    ("kind", "spec", "is_left_out"),
    [
        ("NetworkPolicy.networking.k8s.io", {}, True),
        ("CiliumNetworkPolicy.cilium.io", {}, True),
        ("Ingress.networking.k8s.io", {}, True),
        ("HTTPRoute.gateway.networking.k8s.io", {}, True),
        ("Job.batch", {}, True),
        ("Service", {"type": "ExternalName", "externalName": "db.example"}, True),
        ("Service", {"type": "ClusterIP"}, False),
        ("StatefulSet.apps", {}, False),
        ("CronJob.batch", {}, False),
    ],
)
def test_what_reaches_outside_is_left_out(kind: str, spec: dict[str, Any], is_left_out: bool) -> None:
    """With a reason in words."""
    assert bool(why_left_out(kind, {"spec": spec})) is is_left_out


def test_the_plan_is_changed_and_says_how() -> None:
    """Left-out objects are gone from it, changed manifests are what is created, and a taken namespace blocks."""
    objects = {
        "ns": ("Namespace", "create", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}),
        "cron": ("CronJob.batch", "create", {
            "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "n", "namespace": "shop"}, "spec": {}}),
        "in": ("Ingress.networking.k8s.io", "create", {
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "i", "namespace": "shop"}}),
        "other": ("Namespace", "keep", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "b"}}),
    }  # fmt: skip
    steps = tuple(
        ObjectStep(ref=ObjectRef(kind=kind, namespace="", name=path), action=action, level=0, source_path=path)  # type: ignore[arg-type]
        for path, (kind, action, _) in objects.items()
    )
    mappings = Mappings(namespaces={"shop": "shop-drill-01234567"})
    plan = RecoveryPlan(
        point_id=new_id(), snapshot_id="s", application="shop", cluster="c", mappings=mappings, namespaces=(),
        objects=steps, volumes=(),
    )  # fmt: skip
    planned = Planned(plan, {path: json.dumps(obj).encode() for path, (_, _, obj) in objects.items()})
    made, said = isolate(planned, RUN)
    assert [step.source_path for step in made.plan.objects] == ["ns", "cron", "other"]
    assert rewrite(made.manifests["cron"], mappings)["spec"] == {"suspend": True}
    namespace = rewrite(made.manifests["ns"], mappings)["metadata"]
    assert namespace == {"name": "shop-drill-01234567", "labels": {RUN_LABEL: RUN}}
    assert [each.subject for each in made.plan.blockers] == ["Namespace other"]
    assert any("left out" in each for each in said)
    assert planned.manifests["cron"] != made.manifests["cron"]
