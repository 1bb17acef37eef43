"""What the shipped roles allow and what they do not, on a real cluster; and a whole run with no more than them."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kube.cluster import Cluster
from kube.home import HOME
from kube.rights import Right, missing_rights
from refloat.clock import Deadline, pause
from refloat.registry import open_object_store
from tests.contract.given import claim, config_map, pod, run_pod, sh, unique
from tests.deployments.installing import KNOWN_WITHIN, RBAC, bind

Object = dict[str, Any]
SNAPSHOT, CONTENT = "VolumeSnapshot.snapshot.storage.k8s.io", "VolumeSnapshotContent.snapshot.storage.k8s.io"
PUBLIC = {("list", "PersistentVolumeClaim"), ("list", SNAPSHOT)}
"""What the sweep looks for in every namespace."""


def rights(namespace: str) -> list[Right]:
    """What a run asks for in an application's namespace."""
    kinds = ("Secret", "Deployment.apps", "Role.rbac.authorization.k8s.io", "PersistentVolumeClaim")
    return [
        *(Right("list", kind, namespace) for kind in kinds),
        *(Right(verb, SNAPSHOT, namespace) for verb in ("create", "get", "list", "watch", "delete")),
        Right("patch", "PersistentVolumeClaim", namespace),
        Right("create", "Pod", namespace, subresource="exec"),
    ]


@pytest.mark.lane("lab")
def test_the_controller_may_protect_where_it_is_bound(admin: Cluster, controller: Cluster, place_of_own: str) -> None:
    """Its own namespace and cluster-scoped part always, an application's namespace once the role is bound there."""
    everywhere = [Right(verb, CONTENT) for verb in ("create", "get", "list", "watch", "patch", "delete")]
    at_home = [Right(verb, kind, HOME) for kind in ("Job.batch", "Secret", SNAPSHOT) for verb in ("create", "delete")]
    assert missing_rights(controller, [*everywhere, *at_home]) == []
    assert missing_rights(controller, rights(place_of_own)) == [
        right for right in rights(place_of_own) if (right.verb, right.kind) not in PUBLIC
    ]
    bind(admin, place_of_own, "refloat-protect")
    deadline = Deadline.after(KNOWN_WITHIN)
    while missing_rights(controller, rights(place_of_own)) and not deadline.is_over:
        pause(timedelta(seconds=0.2))
    assert missing_rights(controller, rights(place_of_own)) == []
    never = [Right("list", "Secret", "kube-system"), Right("create", "Pod", place_of_own), Right("get", "Node", None)]
    assert missing_rights(controller, never) == never


@pytest.mark.lane("lab")
def test_a_mover_may_do_nothing(mover: Cluster, place_of_own: str) -> None:
    """Not even look, had somebody given it a token."""
    asked = [*rights(place_of_own), Right("create", CONTENT), Right("get", "Secret", HOME), Right("list", "Pod", HOME)]
    assert missing_rights(mover, asked) == asked


# ---- a whole run


def given(variable: str, what: str) -> str:
    value = os.environ.get(variable, "")
    if not value:
        pytest.skip(f"NOT RUN: {variable} names no {what}")
    return value


@pytest.fixture
def vault() -> Iterator[str]:
    """A vault of the test's own on a store that pods reach too."""
    url = f"{given('REFLOAT_TEST_S3', 'real S3 bucket')}/rights-{secrets.token_hex(4)}"
    yield url
    store = open_object_store(url, os.environ)
    for found in list(store.list()):
        store.delete(found.key)
    store.close()


def refloat(kubeconfig: str, vault: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, logged in by the kubeconfig, with the vault's password and the mover's image."""
    image = given("REFLOAT_MOVER_IMAGE", "image on the nodes")
    return subprocess.run(
        [Path(sys.executable).with_name("refloat"), *words, "--kubeconfig", kubeconfig, "--vault", vault],
        env={
            **os.environ,
            "REFLOAT_PASSWORD": "of the test",
            "REFLOAT_MOVER_IMAGE": image,
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.lane("lab")
def test_a_run_needs_no_more_than_the_controller_may(
    admin: Cluster, controller_kubeconfig: str, place_of_own: str, vault: str
) -> None:
    """Protect and recover as the controller, bound in two namespaces; before it is bound it is told what it lacks."""
    for name in ("a", "b"):
        admin.create(claim(place_of_own, name))
    admin.create(config_map(place_of_own, "settings", colour="blue"))
    run_pod(admin, pod(place_of_own, "writer", claims={"/a": "a", "/b": "b"}))
    sh(admin, place_of_own, "writer", "echo one > /a/file; echo two > /b/file; sync")
    admin.delete("Pod", "writer", place_of_own, grace_seconds=0)

    refused = refloat(controller_kubeconfig, vault, "protect", "-n", place_of_own)
    assert refused.returncode == 30 and "error FORBIDDEN" in refused.stderr, refused.stderr
    bind(admin, place_of_own, "refloat-protect")
    done = refloat(controller_kubeconfig, vault, "protect", "-n", place_of_own)
    assert done.returncode == 0, done.stderr

    target = unique("target")
    admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": target}})
    try:
        bind(admin, target, "refloat-recover")
        done = refloat(controller_kubeconfig, vault, "recover", place_of_own, "--to-namespace", target, "--yes")
        assert done.returncode == 0, done.stderr
        run_pod(admin, pod(target, "reader", claims={"/a": "a", "/b": "b"}))
        assert sh(admin, target, "reader", "cat /a/file /b/file").split() == ["one", "two"]
        assert admin.get("ConfigMap", "settings", target)["data"] == {"colour": "blue"}
        assert admin.find(f"RoleBinding.{RBAC}", "refloat-protect", target) is not None
    finally:
        admin.delete("Namespace", target)
