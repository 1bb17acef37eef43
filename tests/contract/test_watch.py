"""Watches: nothing is missed from a version on, selectors apply to changes, and what is too old is said to be."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from kube.cluster import Cluster
from refloat.errors import Expired, NotReady
from tests.contract.given import config_map

Event = tuple[str, dict[str, Any]]
BRIEF = timedelta(seconds=1)


def take(events: Iterator[Event], count: int) -> list[tuple[str, str]]:
    """(type, name) of so many events."""
    return [(kind, obj["metadata"]["name"]) for kind, obj in (next(events) for _ in range(count))]


def version(cluster: Cluster, namespace: str) -> str:
    """The version a list is of."""
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    return str(cluster._transport.call("GET", path)["metadata"]["resourceVersion"])


def test_nothing_is_missed_after_a_list(cluster: Cluster, namespace: str) -> None:
    """A watch from a list's version gives all that happened since, in order."""
    cluster.create(config_map(namespace, "old", {"mine": "yes"}))
    since = version(cluster, namespace)
    cluster.create(config_map(namespace, "one", {"mine": "yes"}))
    cluster.patch("ConfigMap", "one", namespace, {"data": {"a": "1"}})
    cluster.delete("ConfigMap", "one", namespace)
    events = cluster.watch("ConfigMap", namespace, labels="mine=yes", timeout=BRIEF * 10, resource_version=since)
    assert take(events, 3) == [("ADDED", "one"), ("MODIFIED", "one"), ("DELETED", "one")]


def test_changes_come_while_watching(cluster: Cluster, namespace: str) -> None:
    """Live, not only from history."""
    since = version(cluster, namespace)
    events = cluster.watch("ConfigMap", namespace, labels="mine=yes", timeout=BRIEF * 20, resource_version=since)
    writer = threading.Timer(0.2, lambda: cluster.create(config_map(namespace, "late", {"mine": "yes"})))
    writer.start()
    assert take(events, 1) == [("ADDED", "late")]
    writer.join()


def test_without_a_version_everything_present_is_added(cluster: Cluster, namespace: str) -> None:
    """A synthetic ADDED for each."""
    for name in ("a", "b"):
        cluster.create(config_map(namespace, name, {"mine": "yes"}))
    events = cluster.watch("ConfigMap", namespace, labels="mine=yes", timeout=BRIEF * 10)
    assert sorted(take(events, 2)) == [("ADDED", "a"), ("ADDED", "b")]


def test_leaving_a_selection_is_a_deletion(cluster: Cluster, namespace: str) -> None:
    """And entering it an addition; the DELETED object carries the new version."""
    since = version(cluster, namespace)
    cluster.create(config_map(namespace, "one", {"app": "no"}))
    cluster.patch("ConfigMap", "one", namespace, {"metadata": {"labels": {"app": "yes"}}})
    last = cluster.patch("ConfigMap", "one", namespace, {"metadata": {"labels": {"app": "no"}}})
    events = cluster.watch("ConfigMap", namespace, labels="app=yes", timeout=BRIEF * 10, resource_version=since)
    assert next(events)[0] == "ADDED"
    kind, obj = next(events)
    assert kind == "DELETED" and obj["metadata"]["resourceVersion"] == last["metadata"]["resourceVersion"]


def test_a_watch_ends_on_time(cluster: Cluster, namespace: str) -> None:
    """timeoutSeconds is kept."""
    since = version(cluster, namespace)
    events = cluster.watch("ConfigMap", namespace, labels="mine=yes", timeout=BRIEF, resource_version=since)
    assert list(events) == []


def test_a_version_of_long_ago_is_expired(cluster: Cluster, namespace: str) -> None:
    """410: list again."""
    with pytest.raises(Expired, match="too old resource version"):
        list(cluster.watch("ConfigMap", namespace, timeout=BRIEF * 5, resource_version="1"))


def test_bookmarks_tell_how_far_a_quiet_watch_has_come(cluster: Cluster, namespace: str) -> None:
    """Sent before the end when asked for; nothing but kind and version in them."""
    query = {"watch": "true", "timeoutSeconds": 4, "allowWatchBookmarks": "true", "labelSelector": "mine=yes"}
    query["resourceVersion"] = version(cluster, namespace)
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    lines = [json.loads(line) for line in cluster._transport.lines(path, query=query, read_seconds=10)]
    assert lines and {line["type"] for line in lines} == {"BOOKMARK"}
    mark = lines[-1]["object"]
    assert mark["kind"] == "ConfigMap" and int(mark["metadata"]["resourceVersion"]) >= int(query["resourceVersion"])


def test_waiting(cluster: Cluster, namespace: str) -> None:
    """`Cluster.wait` sees what is, what comes, what goes, and gives up on time naming what it waited for."""
    cluster.create(config_map(namespace, "one"))

    def wait(name: str, until: Any, timeout: timedelta = BRIEF * 20) -> Any:
        return cluster.wait("ConfigMap", name, namespace, until, timeout=timeout, what=f"{name} as wanted")

    assert wait("one", lambda obj: obj is not None)["metadata"]["name"] == "one"
    writer = threading.Timer(0.2, lambda: cluster.create(config_map(namespace, "two")))
    writer.start()
    assert wait("two", lambda obj: obj is not None)["metadata"]["name"] == "two"
    remover = threading.Timer(0.2, lambda: cluster.delete("ConfigMap", "one", namespace))
    remover.start()
    assert wait("one", lambda obj: obj is None) is None
    for timer in (writer, remover):
        timer.join()
    with pytest.raises(NotReady, match="three as wanted"):
        wait("three", lambda obj: obj is not None, BRIEF)
