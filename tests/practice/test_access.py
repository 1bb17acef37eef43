"""Identities of the practice range: who is let in, what is denied, and that reviews and refusals agree."""

from __future__ import annotations

import stat

import pytest
import yaml

from kube.cluster import Cluster
from practice.access import Identity
from practice.range import PracticeRange
from refloat.errors import Forbidden
from tests.contract.given import SOON, config_map, pod, run_pod


def test_a_stranger_is_not_let_in(practice: PracticeRange) -> None:
    """401 without a token the range knows; health and version are for all."""
    path = practice.kubeconfig_for(Identity("guest"))
    document = yaml.safe_load(path.read_text())
    document["users"][0]["user"]["token"] = "made up"
    path.write_text(yaml.safe_dump(document))
    stranger = Cluster.open(kubeconfig=str(path))
    assert stranger.is_practice_range
    with pytest.raises(Forbidden, match="Unauthorized"):
        stranger.kinds()


def test_denied_rights_are_refused_and_reviewed_alike(practice: PracticeRange) -> None:
    """Verb and kind by pattern; a subresource is a right of its own."""
    denied = (("delete*", "Secret"), ("*", "*.apps"), ("create", "Pod/exec"))
    limited = Cluster.open(kubeconfig=str(practice.kubeconfig_for(Identity("limited", denied=denied))))
    run_pod(limited, pod("default", "p"))
    limited.create(config_map("default", "a"))
    limited.delete("ConfigMap", "a", "default")
    with pytest.raises(Forbidden, match='User "limited" cannot delete resource "secrets"'):
        limited.delete("Secret", "a", "default")
    with pytest.raises(Forbidden, match='cannot list resource "deployments" in API group "apps"'):
        list(limited.list("Deployment.apps", "default"))
    with pytest.raises(Forbidden, match="pods/exec"):
        limited.exec("default", "p", "main", ["true"], timeout=SOON)
    asked = [("delete", "Secret", None), ("list", "Deployment.apps", None), ("create", "Pod", "exec")]
    assert [limited.allowed(verb, kind, "default", subresource=sub) for verb, kind, sub in asked] == [False] * 3
    assert limited.allowed("create", "Pod", "default") and limited.allowed("get", "Secret", "default")


def test_the_administrator_may_everything(practice: PracticeRange) -> None:
    """Whatever is asked."""
    admin = Cluster.open(kubeconfig=str(practice.kubeconfig))
    assert admin.allowed("delete", "Namespace") and admin.allowed("create", "Pod", "default", subresource="exec")


def test_tokens_are_kept_secret(practice: PracticeRange) -> None:
    """Only their owner reads kubeconfigs, and no repr shows a token."""
    identity = Identity("guest")
    path = practice.kubeconfig_for(identity)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert identity.token in path.read_text() and identity.token not in repr(identity)
