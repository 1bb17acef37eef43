"""A drill on a real cluster, beside the application it is of: every row asked for, nothing of production changed."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.e2e.command import Refloat
from tests.e2e.given import Protected, Site, Vault
from tests.e2e.leftovers import leftovers
from tests.e2e.shop import LABEL, PSQL

KINDS = ("Pod", "StatefulSet.apps", "Deployment.apps", "PersistentVolumeClaim", "Service", "Secret", "ConfigMap")
ORDERS = ("sh", "-c", PSQL, "select count(*) > 0, count(*) = max(id) from orders")


def test_the_shop_is_drilled_beside_itself(
    protected: Protected, site_a: Site, vault: Vault, refloat: Refloat, tmp_path: Path
) -> None:
    """All orders up to one instant and no gap, RTO measured; the fence was there, and all of it is gone."""
    cluster, namespace = site_a.cluster, protected.shop.namespace

    def production() -> dict[str, str]:
        found = [obj["metadata"] for kind in KINDS for obj in cluster.list(kind, namespace)]
        return {meta["name"]: meta["uid"] for meta in found}

    before = production()
    asked = {
        "name": "orders",
        "selector": "app=db",
        "container": "postgres",
        "command": list(ORDERS),
        "expect": "t[|]t",
    }
    document = {
        "apiVersion": "refloat/v1",
        "kind": "Application",
        "name": "shop",
        "members": [{"namespace": namespace, "selector": LABEL}],
        "drill": {"assertions": [asked]},
    }
    file = tmp_path / "shop.yaml"
    file.write_text(yaml.safe_dump(document))
    words = ("drill", "-f", str(file), "--report", str(tmp_path / "drills"), *site_a.flags, *vault.flags, "-o", "json")
    found = refloat.done(*words, phase="drill the shop beside itself").json
    (orders,) = found["assertions"]
    assert (orders["passed"], found["failure"], found["removed"]) == (True, "", True)
    assert orders["pod"].startswith(f"{found['namespaces'][0]}/")
    assert (found["point_id"], found["cluster"]) == (protected.point_id, cluster.name)
    assert found["achieved_rto"]
    assert production() == before
    assert not [each for each in cluster.list("Namespace") if "-drill-" in each["metadata"]["name"]]
    assert leftovers(cluster) == []
    assert len(list((tmp_path / "drills").iterdir())) == 3
