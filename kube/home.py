"""Home: refloat's own namespace, where movers run, and the service account they run under.

What `deployments/manifests` installed is used as it is; what is missing is made, in the same shape.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from kube.cluster import Cluster
from refloat.application import RUN_LABEL
from refloat.errors import ConfigError, ObjectExists

HOME = "refloat"
SERVICE_ACCOUNT = "mover"
PART_OF = {"app.kubernetes.io/part-of": "refloat"}
GONE_WITHIN = timedelta(minutes=2)
_RUN = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")
_NAME = re.compile(r"refloat-(.+)-[0-9a-f]{10}")
Object = dict[str, Any]


def ensure_home(cluster: Cluster) -> None:
    """Make refloat's namespace and its movers' service account where they are missing; safe to call at any time.

    Raises:
        Forbidden: They are missing and this identity may not make them.
        NotReady: The namespace is being deleted, and is not gone in two minutes.
    """
    namespace = cluster.find("Namespace", HOME)
    if namespace and "deletionTimestamp" in namespace["metadata"]:
        what = f"namespace {HOME}, which is being deleted, gone"
        cluster.wait("Namespace", HOME, None, lambda obj: obj is None, timeout=GONE_WITHIN, what=what)
        namespace = None
    if namespace is None:
        labels = {**PART_OF, "pod-security.kubernetes.io/enforce": "baseline"}
        make(cluster, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HOME, "labels": labels}})
    if cluster.find("ServiceAccount", SERVICE_ACCOUNT, HOME) is None:
        about = {"name": SERVICE_ACCOUNT, "namespace": HOME, "labels": PART_OF}
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": about}
        make(cluster, {**account, "automountServiceAccountToken": False})


def make(cluster: Cluster, obj: Object) -> None:
    """Create it; that somebody else just did is as well."""
    with suppress(ObjectExists):
        cluster.create(obj)


def name_in_run(run: str, *what: str) -> str:
    """The name of what a run creates for one thing: the same at every try, and no other run's.

    Raises:
        ConfigError: The run's id is no DNS label of at most 32 characters.
    """
    if not _RUN.fullmatch(run):
        raise ConfigError(
            f"{run!r} is no id of a run",
            guidance="Give at most 32 lower-case letters, digits and dashes, or leave it out.",
        )
    return f"refloat-{run}-{hashlib.sha256(' '.join(what).encode()).hexdigest()[:10]}"


def run_of_name(name: str) -> str | None:
    """The run that gave this name, if one did."""
    found = _NAME.fullmatch(name)
    return found[1] if found else None


def labels_in_run(run: str, labels: Mapping[str, str] | None = None) -> dict[str, str]:
    """The labels of what a run creates."""
    return {**PART_OF, **(labels or {}), RUN_LABEL: run}
