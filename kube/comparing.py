"""Comparing: whether an object that exists is the one a point would create, whatever a server adds by itself."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from kube.cluster import Cluster
from kube.marks import OURS
from kube.sanitise import sanitise
from refloat.errors import RefloatError

Object = Mapping[str, Any]
OPEN = (("metadata", "labels"), ("metadata", "annotations"))
"""Fields to which controllers and people add: what the point has must be there, more may be."""


def difference(cluster: Cluster, wanted: Object, live: Object) -> str:
    """Path of the first field in which ``live`` is not what creating ``wanted`` would give; empty when it is.

    Values are never in the answer: they may be secret. Where the two differ as they are, the server is asked what it
    would make of ``wanted`` (a dry run under a name of its own), for another version of it has other defaults.
    """
    there = essence(live)
    first = first_difference(essence(wanted), there, ())
    if not first:
        return ""
    completed = completed_by_server(cluster, wanted)
    return first if completed is None else first_difference(essence(completed), there, ())


def essence(obj: Object) -> dict[str, Any]:
    """What is compared: without what clusters assign, what we note on it, and empty fields."""
    clean = sanitise(obj)
    for each in ("name", "namespace", "finalizers"):  # finalizers are controllers' own
        clean["metadata"].pop(each, None)
    annotations = clean["metadata"].get("annotations") or {}
    clean["metadata"]["annotations"] = {k: v for k, v in annotations.items() if k not in OURS}
    clean.pop("apiVersion", None)  # the same object in another version of its group
    return dict(without_empty(clean))


def without_empty(part: Any) -> Any:
    """A copy without fields that are null or empty: writing them or not is the same to the API (API conventions)."""
    if isinstance(part, Mapping):
        kept = {name: without_empty(value) for name, value in part.items()}
        return {name: value for name, value in kept.items() if value not in (None, {}, [], "")}
    if isinstance(part, list):
        return [without_empty(each) for each in part]
    return part


def first_difference(wanted: Any, live: Any, path: tuple[str, ...]) -> str:
    """Dotted path of the first difference, keys in order; empty when there is none."""
    pairs: list[tuple[str, Any, Any]] = []
    if isinstance(wanted, Mapping) and isinstance(live, Mapping):
        names = sorted(wanted if path in OPEN else {*wanted, *live})
        pairs = [(name, wanted.get(name), live.get(name)) for name in names]
    elif isinstance(wanted, list) and isinstance(live, list) and len(wanted) == len(live):
        pairs = [(str(at), one, other) for at, (one, other) in enumerate(zip(wanted, live, strict=True))]
    elif path in OPEN and wanted is None:
        return ""
    else:
        return "" if wanted == live else ".".join(path)
    return next((found for name, one, other in pairs if (found := first_difference(one, other, (*path, name)))), "")


def completed_by_server(cluster: Cluster, wanted: Object) -> Object | None:
    """``wanted`` with this server's defaults, by a dry run beside the living object; None when it refuses."""
    name = f"refloat-{secrets.token_hex(8)}"
    try:
        return cluster.create({**wanted, "metadata": {**wanted["metadata"], "name": name}}, dry_run=True)
    except RefloatError:
        return None
