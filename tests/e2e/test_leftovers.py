"""The look for leftovers can fail: what a run might leave is seen, wherever it lies."""

from __future__ import annotations

from tests.e2e.given import Site
from tests.e2e.leftovers import HOME, LABELS, leftovers
from tests.e2e.shop import make_namespace, remove_namespace

PLACE = "e2e-left"


def test_leftovers_are_seen(site_a: Site) -> None:
    """By the run's label in any namespace, and without any label in refloat's own."""
    cluster = site_a.cluster
    for name in (PLACE, HOME):
        make_namespace(cluster, name)
    try:
        run, group = ({label: "0123456789abcdef"} for label in LABELS)
        left = [
            ("ConfigMap", PLACE, "labelled", run),
            ("Secret", PLACE, "grouped", group),
            ("Secret", HOME, "mover", {}),
        ]
        for kind, namespace, name, labels in left:
            metadata = {"name": name, "namespace": namespace, "labels": labels}
            cluster.create({"apiVersion": "v1", "kind": kind, "metadata": metadata})
        assert leftovers(cluster) == sorted((kind, namespace, name) for kind, namespace, name, _ in left)
    finally:
        for name in (PLACE, HOME):
            remove_namespace(cluster, name)
    assert leftovers(cluster) == []
