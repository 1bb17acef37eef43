"""Where a path in a container lies on a claim, by the pod's spec."""

from __future__ import annotations

from typing import Any

import pytest

from kube.held_part import AddedPath
from kube.mounts import mounts_of, on_volume
from refloat.errors import Unsupported

SPEC: dict[str, Any] = {
    "volumes": [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-0"}},
        {"name": "log", "persistentVolumeClaim": {"claimName": "log-db-0"}},
        {"name": "other", "persistentVolumeClaim": {"claimName": "not-of-the-point"}},
        {"name": "scratch", "emptyDir": {}},
    ],
    "containers": [
        {"name": "sidecar"},
        {
            "name": "db",
            "volumeMounts": [
                {"name": "data", "mountPath": "/var/lib/postgresql/data/", "subPath": "pg/15"},
                {"name": "log", "mountPath": "/var/lib/postgresql/data/log"},
                {"name": "data", "mountPath": "/by-name", "subPathExpr": "$(NAME)"},
                {"name": "other", "mountPath": "/other"},
                {"name": "scratch", "mountPath": "/scratch"},
            ],
        },
    ],
}
MOUNTS = mounts_of(SPEC, "db", {"data-db-0", "log-db-0"})


@pytest.mark.parametrize(
    ("path", "volume", "inside"),
    [
        ("/var/lib/postgresql/data/backup_label", "shop/data-db-0", "pg/15/backup_label"),
        ("/var/lib/postgresql/data", "shop/data-db-0", "pg/15"),
        ("/var/lib/postgresql/data/log/pg_wal", "shop/log-db-0", "pg_wal"),
        ("/var/lib/postgresql/data/logs", "shop/data-db-0", "pg/15/logs"),
    ],
)
def test_the_deepest_mount_counts(path: str, volume: str, inside: str) -> None:
    """By whole names, within the folder of the volume that is mounted."""
    assert on_volume(MOUNTS, "shop", path) == AddedPath(volume, inside)


@pytest.mark.parametrize("path", ["/other/x", "/scratch/x", "/var/lib/postgresql", "/"])
def test_what_is_on_no_claim_of_the_point_is_refused(path: str) -> None:
    """Claims of others and scratch space are not brought back."""
    with pytest.raises(Unsupported, match="no claim of the recovery point"):
        on_volume(MOUNTS, "shop", path)


def test_a_folder_whose_name_is_not_known_is_refused() -> None:
    """Better than to guess."""
    with pytest.raises(Unsupported, match="subPathExpr"):
        on_volume(MOUNTS, "shop", "/by-name/x")


def test_a_container_without_mounts_has_none() -> None:
    """Nothing is on a claim."""
    assert mounts_of(SPEC, "sidecar", {"data-db-0"}) == ()
