"""What an operator applies: served, applied twice without harm, and no more rights than the page says."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from kube.cluster import Cluster
from kube.home import HOME, SERVICE_ACCOUNT
from kube.kinds import name_of
from refloat import __version__
from tests.deployments.installing import CONTROLLER, documents, install, place, uninstall

Object = dict[str, Any]


@pytest.fixture
def installed(cluster: Cluster) -> Iterator[Cluster]:
    """A cluster of either lane with the manifests applied."""
    made = install(cluster)
    try:
        yield cluster
    finally:
        uninstall(cluster, made)


def test_every_document_applies_and_names_only_served_kinds(installed: Cluster) -> None:
    """And once more, as an upgrade does."""
    for doc in documents():
        assert installed.serves(name_of(doc))
        before = installed.get(*place(doc))
        after = installed.apply(doc)
        assert before["metadata"]["uid"] == after["metadata"]["uid"]
        assert before.get("spec") == after.get("spec") and before.get("rules") == after.get("rules")


def test_names_are_those_of_the_code() -> None:
    """Where movers run and who they are: kube.home makes what is missing in the same shape."""
    by_place = {place(doc): doc for doc in documents()}
    assert len(by_place) == len(documents())
    mover = by_place["ServiceAccount", SERVICE_ACCOUNT, HOME]
    assert mover["automountServiceAccountToken"] is False
    labels = by_place["Namespace", HOME, None]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "baseline"
    assert all(doc["metadata"]["labels"]["app.kubernetes.io/part-of"] == "refloat" for doc in documents())


def test_nobody_gets_more_than_the_page_says() -> None:
    """No wildcard verbs, no way around RBAC, everything only for the controller; the wide roles are bound to nobody."""
    roles = {doc["metadata"]["name"]: doc for doc in documents() if doc["kind"] == "ClusterRole"}
    rules = [rule for doc in documents() if doc["kind"] in ("Role", "ClusterRole") for rule in doc["rules"]]
    assert not {verb for rule in rules for verb in rule["verbs"]} & {"*", "escalate", "bind", "impersonate", "update"}
    assert all("*" not in rule["resources"] for rule in roles["refloat-controller"]["rules"])
    bindings = [doc for doc in documents() if doc["kind"].endswith("RoleBinding")]
    given = {
        (doc["kind"], doc["roleRef"]["name"], s["kind"], s["namespace"], s["name"])
        for doc in bindings
        for s in doc["subjects"]
    }
    assert given == {
        ("RoleBinding", "refloat-controller", "ServiceAccount", HOME, CONTROLLER),
        ("ClusterRoleBinding", "refloat-controller", "ServiceAccount", HOME, CONTROLLER),
        ("RoleBinding", "refloat-janitor", "ServiceAccount", HOME, "janitor"),
    }


def test_the_janitor_is_one_of_this_version_and_may_do_little() -> None:
    """One replica, an account of its own, this version's image; no Secret, no volume, and nothing is deleted."""
    (deployment,) = [doc for doc in documents() if doc["kind"] == "Deployment"]
    spec = deployment["spec"]["template"]["spec"]
    assert (deployment["spec"]["replicas"], spec["serviceAccountName"]) == (1, "janitor")
    assert [each["image"] for each in spec["containers"]] == [f"refloat/janitor:{__version__}"]
    rules = [
        rule for doc in documents() if doc["metadata"]["name"] == "refloat-janitor" for rule in doc.get("rules", [])
    ]
    assert sorted(one for rule in rules for one in rule_by_rule(rule)) == [
        ("", "events", "create"),
        ("", "pods", "get"),
        ("", "pods/exec", "create"),
        ("", "pods/exec", "get"),
        *(("coordination.k8s.io", "leases", verb) for verb in ("get", "list", "patch")),
    ]


# ---- on a real cluster: who may do what


def test_recovery_may_grant_what_protection_was_granted() -> None:
    """An application's binding of refloat-protect is recovered with it, and RBAC lets nobody grant what he lacks."""
    roles = {doc["metadata"]["name"]: doc["rules"] for doc in documents() if doc["kind"] == "ClusterRole"}
    held = [rule for rule in roles["refloat-recover"] for rule in rule_by_rule(rule)]
    for group, resource, verb in (one for rule in roles["refloat-protect"] for one in rule_by_rule(rule)):
        assert {(group, resource, verb), ("*", "*", verb)} & set(held), f"{verb} {resource}.{group}"


def rule_by_rule(rule: Object) -> list[tuple[str, str, str]]:
    return list(product(rule["apiGroups"], rule["resources"], rule["verbs"]))
