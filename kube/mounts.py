"""Mounts: which claim a path in a container lies on, and where on it, as the pod's spec says (core/v1 VolumeMount)."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kube.held_part import AddedPath
from refloat.errors import Unsupported


@dataclass(frozen=True)
class Mount:
    """One claim's mount: the path in the container, and the folder of the volume that is there."""

    path: str
    claim: str
    folder: str
    is_known: bool = True
    """False: the folder's name is made of variables when the pod starts (``subPathExpr``)."""


def mounts_of(pod_spec: Mapping[str, Any], container: str, claims: Collection[str]) -> tuple[Mount, ...]:
    """The mounts of these claims in the container."""
    named = {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in pod_spec.get("volumes") or ()
        if volume.get("persistentVolumeClaim")
    }
    mounts = next(each for each in pod_spec["containers"] if each["name"] == container).get("volumeMounts") or ()
    return tuple(
        Mount(
            path=posixpath.normpath(each["mountPath"]),
            claim=named[each["name"]],
            folder=each.get("subPath") or "",
            is_known=not each.get("subPathExpr"),
        )
        for each in mounts
        if named.get(each["name"]) in claims
    )


def on_volume(mounts: Sequence[Mount], namespace: str, path: str) -> AddedPath:
    """Where a path of the container is on a volume.

    Raises:
        Unsupported: It is on none of them, or nobody can say where on it.
    """
    above = [each for each in mounts if path == each.path or path.startswith(each.path.rstrip("/") + "/")]
    if not above:
        raise Unsupported(f"{path} lies on no claim of the recovery point, so nothing can be kept there")
    mount = max(above, key=lambda each: len(each.path))
    if not mount.is_known:
        raise Unsupported(f"{path} lies on claim {mount.claim} by a subPathExpr, which cannot be read from outside")
    inside = posixpath.join(mount.folder, posixpath.relpath(path, mount.path))
    return AddedPath(f"{namespace}/{mount.claim}", posixpath.normpath(inside))
