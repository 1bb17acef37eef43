"""Marks: the labels and annotations by which a recovery knows what is its own, on objects, claims and volumes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from refloat.application import LABEL_PREFIX

RECOVERED_FROM = f"{LABEL_PREFIX}/recovered-from"
"""Annotation of everything a recovery created to stay: the recovery point's id. It carries no run's label."""
RECOVERED_BY = f"{LABEL_PREFIX}/recovered-by"
"""Annotation beside it: the id of the run, for people."""
SUSPENDED = f"{LABEL_PREFIX}/suspended-until-ready"
"""Annotation of a CronJob that is suspended only until the workloads beside it are ready."""
RECOVERY = f"{LABEL_PREFIX}/recovery"
"""Label of a claim being filled, and of a volume being handed over: the recovery point's id."""
FOR_CLAIM = f"{LABEL_PREFIX}/for-claim"
"""Annotation of both: the application's claim they are meant for, ``namespace/name``."""
FILLED = f"{LABEL_PREFIX}/filled"
"""Annotation of a claim whose extraction ended well: the recovery point's id."""
RECLAIM_POLICY = f"{LABEL_PREFIX}/reclaim-policy"
"""Annotation of a volume being handed over: the reclaim policy it gets back at the end."""
OURS = (RECOVERED_FROM, RECOVERED_BY, SUSPENDED)
"""What never enters a recovery point: it tells of the recovery before."""


def labels_of(obj: Mapping[str, Any]) -> Mapping[str, str]:
    """An object's labels; empty when it has none."""
    return obj["metadata"].get("labels") or {}


def annotations_of(obj: Mapping[str, Any]) -> Mapping[str, str]:
    """An object's annotations; empty when it has none."""
    return obj["metadata"].get("annotations") or {}


def is_recovered_from(obj: Mapping[str, Any], point_id: str) -> bool:
    """Whether a recovery from this very point created the object."""
    return annotations_of(obj).get(RECOVERED_FROM) == point_id
