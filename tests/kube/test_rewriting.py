"""Rewriting: names change where an object names them, and nowhere else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kube.rewriting import mentions, rewrite
from refloat.errors import IntegrityError
from refloat.plan import Mappings

MOVED = Mappings(namespaces={"shop": "shop-copy", "bank": "bank-copy"}, storage_classes={"fast": "slow"})


def rewritten(obj: dict[str, Any], mappings: Mappings = MOVED) -> dict[str, Any]:
    """The object after rewriting its JSON."""
    return rewrite(json.dumps(obj).encode(), mappings)


def an(kind: str, api_version: str = "v1", **fields: Any) -> dict[str, Any]:
    """An object of namespace shop."""
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "web", "namespace": "shop"}, **fields}


def test_an_object_moves_to_its_new_namespace() -> None:
    """metadata.namespace follows the mapping; one that is not mapped stays."""
    assert rewritten(an("ConfigMap"))["metadata"]["namespace"] == "shop-copy"
    other = an("ConfigMap") | {"metadata": {"name": "web", "namespace": "other"}}
    assert rewritten(other)["metadata"]["namespace"] == "other"


def test_a_namespace_is_renamed() -> None:
    """The Namespace object itself; its labels come along."""
    obj = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"team": "a"}}}
    assert rewritten(obj)["metadata"] == {"name": "shop-copy", "labels": {"team": "a"}}


def test_two_namespaces_may_change_places() -> None:
    """The mapping is applied once, not one entry after the other."""
    swapped = Mappings(namespaces={"shop": "bank", "bank": "shop"})
    subjects = [{"kind": "ServiceAccount", "name": "a", "namespace": each} for each in ("shop", "bank", "other")]
    obj = rewritten(an("RoleBinding", "rbac.authorization.k8s.io/v1", subjects=subjects), swapped)
    assert obj["metadata"]["namespace"] == "bank"
    assert [each["namespace"] for each in obj["subjects"]] == ["bank", "shop", "other"]
    host = an("Service", spec={"type": "ExternalName", "externalName": "db.bank.svc.cluster.local"})
    assert rewritten(host, swapped)["spec"]["externalName"] == "db.shop.svc.cluster.local"


def test_policies_and_affinities_follow() -> None:
    """Selectors on the name label every namespace bears, and lists of namespaces."""
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop", "team": "shop"}}}
    policy = an("NetworkPolicy", "networking.k8s.io/v1", spec={"podSelector": {}, "ingress": [{"from": [peer]}]})
    labels = rewritten(policy)["spec"]["ingress"][0]["from"][0]["namespaceSelector"]["matchLabels"]
    assert labels == {"kubernetes.io/metadata.name": "shop-copy", "team": "shop"}
    expression = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["shop", "other"]}
    term = {"namespaces": ["shop", "other"], "namespaceSelector": {"matchExpressions": [expression]}}
    rule = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    found = rewritten(an("Pod", spec={"affinity": rule, "containers": []}))["spec"]["affinity"]["podAffinity"]
    term = found["requiredDuringSchedulingIgnoredDuringExecution"][0]
    assert term["namespaces"] == ["shop-copy", "other"]
    assert term["namespaceSelector"]["matchExpressions"][0]["values"] == ["shop-copy", "other"]


def test_custom_objects_follow_by_convention() -> None:
    """Routes and monitors name namespaces in fields of the same names."""
    route = an("HTTPRoute", "gateway.networking.k8s.io/v1", spec={"rules": [{"backendRefs": [{"namespace": "shop"}]}]})
    assert rewritten(route)["spec"]["rules"][0]["backendRefs"] == [{"namespace": "shop-copy"}]
    monitor = an("ServiceMonitor", "monitoring.coreos.com/v1", spec={"namespaceSelector": {"matchNames": ["shop"]}})
    assert rewritten(monitor)["spec"]["namespaceSelector"] == {"matchNames": ["shop-copy"]}


def test_storage_classes_are_mapped_wherever_claims_are_described() -> None:
    """Claims, claim templates, ephemeral volumes, and the old annotation."""
    spec = {"storageClassName": "fast"}
    claim = an("PersistentVolumeClaim", spec=spec)
    claim["metadata"]["annotations"] = {"volume.beta.kubernetes.io/storage-class": "fast"}
    made = rewritten(claim)
    assert made["spec"]["storageClassName"] == "slow"
    assert made["metadata"]["annotations"] == {"volume.beta.kubernetes.io/storage-class": "slow"}
    templates = [{"metadata": {"name": "data"}, "spec": spec}, {"metadata": {"name": "log"}, "spec": {}}]
    found = rewritten(an("StatefulSet", "apps/v1", spec={"volumeClaimTemplates": templates}))
    assert [each["spec"] for each in found["spec"]["volumeClaimTemplates"]] == [{"storageClassName": "slow"}, {}]
    volume = {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": spec}}}
    pod = rewritten(an("Pod", spec={"containers": [], "volumes": [volume]}))
    assert pod["spec"]["volumes"][0]["ephemeral"]["volumeClaimTemplate"]["spec"] == {"storageClassName": "slow"}


def test_the_applications_own_text_is_not_touched() -> None:
    """A key that happens to be called namespace, a variable, a label: all of it is the application's."""
    obj = an("ConfigMap", data={"namespace": "shop", "host": "db.shop.svc"})
    obj["metadata"]["labels"] = {"namespace": "shop"}
    made = rewritten(obj)
    assert (made["data"], made["metadata"]["labels"]) == (obj["data"], obj["metadata"]["labels"])
    container = {"name": "c", "env": [{"name": "namespace", "value": "shop"}], "args": ["shop"]}
    pod = rewritten(an("Pod", spec={"containers": [container]}))
    assert pod["spec"]["containers"] == [container]


def test_host_names_left_in_text_are_found() -> None:
    """So that a person can be told; not the new name, and not without a renaming."""
    obj = an("ConfigMap", data={"host": "postgres://db.shop.svc.cluster.local/x"})
    assert list(mentions(rewritten(obj), MOVED)) == ["shop"]
    assert list(mentions(rewritten(an("ConfigMap", data={"host": "db.shop-copy.svc"})), MOVED)) == []
    assert list(mentions(obj, Mappings())) == []


@pytest.mark.parametrize(
    "bad",
    [
        b"", b"[]", b"null", b"{", b"\xff", b'{"kind": "Pod"}', b'{"apiVersion": "v1", "kind": "Pod", "metadata": {}}',
        b'{"apiVersion": "v1", "kind": "Pod", "metadata": []}', b"[" * 100_000, b'{"a": "' + b"x" * (3 << 20) + b'"}',
    ],
    ids=["empty", "list", "null", "cut", "binary", "no name", "no metadata", "wrong metadata", "deep", "large"],
)  # fmt: skip
def test_what_is_no_manifest_is_refused(bad: bytes) -> None:
    """Bytes of a point are judged, not believed."""
    with pytest.raises(IntegrityError):
        rewrite(bad, MOVED)


FIELDS = ["namespace", "namespaces", "namespaceSelector", "matchLabels", "storageClassName", "a", "data"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=30,
)


@settings(deadline=None)
@given(spec=JSON)
def test_any_json_is_rewritten_the_same_way_twice(spec: Any) -> None:
    """Whatever a custom object holds: no exception, the same answer again, and without mappings no change."""
    obj = an("Anything", "example.org/v1", spec=spec)
    assert rewritten(obj) == rewritten(obj)
    assert rewritten(obj, Mappings()) == obj
