"""The straight line on real clusters: protect one application of a namespace, lose the namespace, bring it back.

The tests run in this order: first what protecting did, then recoveries beside the living application, then its loss.
"""

from __future__ import annotations

import json
import os
import signal
from datetime import timedelta
from typing import Any

import pytest

from kube.cluster import Cluster
from refloat.application import RUN_LABEL
from refloat.errors import ObjectMissing
from tests.e2e.command import Refloat
from tests.e2e.given import BROKEN_OFF, ELSEWHERE, Protected, Site, Vault
from tests.e2e.leftovers import HOME, leftovers
from tests.e2e.shop import BULK_BYTES, LABEL, NEIGHBOUR_BYTES, WEB_REPLICAS, Customers, Shop, remove_namespace
from tests.e2e.stock_restic import restic

MOVER_WITHIN = timedelta(minutes=2)


def assert_recovered(protected: Protected, cluster: Cluster, namespace: str) -> Shop:
    """The shop is as it was at the cut: rows, bytes, Secret, replicas, rights; and nothing of the neighbour."""
    recovered = Shop(cluster, namespace, protected.shop.password).wait_ready()
    protected.assert_orders(recovered)
    assert recovered.bulk_digest() == protected.bulk_digest
    assert recovered.secret() == protected.shop.password
    assert cluster.get("Deployment.apps", "web", namespace)["spec"]["replicas"] == WEB_REPLICAS
    assert cluster.get("StatefulSet.apps", "db", namespace)["spec"]["replicas"] == 1
    assert cluster.get("ConfigMap", "web-page", namespace)["data"] == {"greeting": "welcome to the shop"}
    assert recovered.web_may("get", "configmaps")
    assert not recovered.web_may("get", "secrets")
    with pytest.raises(AssertionError, match="after-cut"):
        recovered.run("cat", "/data/after-cut")  # the post-hook ran after the cut
    assert recovered.run("cat", "/data/before-cut")  # and the pre-hook before
    return recovered


def test_only_the_application_is_in_the_point(protected: Protected) -> None:
    """The point holds the shop's objects and its one volume, by far fewer bytes than the neighbour's."""
    point = protected.point
    names = {(each["ref"]["kind"], each["ref"]["name"]) for each in point["objects"]}
    assert {
        ("StatefulSet.apps", "db"), ("Deployment.apps", "web"), ("Secret", "db-auth"), ("ConfigMap", "db-start"),
        ("ConfigMap", "web-page"), ("Service", "db"), ("ServiceAccount", "web"),
        ("Role.rbac.authorization.k8s.io", "web"), ("RoleBinding.rbac.authorization.k8s.io", "web"),
        ("PersistentVolumeClaim", "data-db-0"),
    } <= names  # fmt: skip
    assert not [name for _, name in names if "neighbour" in name]
    assert [(each["namespace"], each["claim"]) for each in point["volumes"]] == [
        (protected.shop.namespace, "data-db-0")
    ]
    volume = point["volumes"][0]
    assert volume["unreadable"] == []
    assert BULK_BYTES < volume["data_bytes"] < BULK_BYTES + NEIGHBOUR_BYTES
    assert volume["added_bytes"] < NEIGHBOUR_BYTES


def test_label_is_no_better_than_proven(protected: Protected) -> None:
    """Hooks alone prove no hold: one volume cut at one instant is crash-consistent."""
    assert protected.point["consistency"] == "crash-consistent"
    assert protected.committed_after > protected.committed_before, "no order was placed meanwhile: nothing was shown"


def test_the_neighbour_is_untouched(protected: Protected) -> None:
    """Same pod, same start, same claim to the resourceVersion, same bytes."""
    assert protected.neighbour_after == protected.neighbour_before


def test_protecting_leaves_nothing_behind(protected: Protected) -> None:
    """No object of the run is left in any namespace."""
    assert protected.left == []


def test_hooks_ran_and_are_recorded(protected: Protected) -> None:
    """The pod's Velero annotations are honoured: one pre-hook, one post-hook, both ended well."""
    hooks = [
        (each["phase"], each["pod"], each["container"], each["source"], each["exit_code"])
        for each in protected.point["hooks"]
    ]
    assert hooks == [
        ("pre", "db-0", "postgres", "velero-annotation", 0),
        ("post", "db-0", "postgres", "velero-annotation", 0),
    ]
    assert protected.shop.run("cat", "/data/after-cut")


def test_no_secret_is_in_the_point_s_facts(protected: Protected) -> None:
    """What `refloat points` prints holds no password."""
    assert protected.shop.password not in json.dumps(protected.point)


def test_stock_restic_judges_the_vault(protected: Protected, vault: Vault) -> None:
    """A tool that is not ours reads every byte, and finds the point's three parts."""
    restic(vault.url, vault.password_file, "check", "--read-data", "--no-lock")
    listed = restic(vault.url, vault.password_file, "ls", "--no-lock", "latest").splitlines()
    assert "/recovery-point.json" in listed
    assert f"/volumes/{protected.shop.namespace}/data-db-0/pg/PG_VERSION" in listed
    assert f"/objects/{protected.shop.namespace}/Secret/db-auth.json" in listed


def test_discover_says_what_belongs(protected: Protected, site_a: Site, refloat: Refloat) -> None:
    """The tree names the shop's parts and no neighbour."""
    words = ("discover", "-n", protected.shop.namespace, "-l", LABEL, *site_a.flags)
    tree = refloat.done(*words, phase="discover").stdout
    assert all(part in tree for part in ("db-0", "data-db-0", "db-auth", "web-page", "StatefulSet", "Deployment"))
    assert "neighbour" not in tree


def test_recover_into_another_namespace(protected: Protected, site_a: Site, vault: Vault, refloat: Refloat) -> None:
    """Beside the living shop, which goes on taking orders and is not touched."""
    with Customers(protected.shop) as customers:
        refloat.done(
            "recover", "shop", "--to-namespace", ELSEWHERE, "--yes", *site_a.flags, *vault.flags,
            phase="recover into another namespace",
        )  # fmt: skip
    assert not customers.failure, customers.failure
    recovered = assert_recovered(protected, site_a.cluster, ELSEWHERE)
    recovered.place_order()
    assert leftovers(site_a.cluster) == []
    remove_namespace(site_a.cluster, ELSEWHERE)


def test_recover_onto_a_living_application_is_refused(
    protected: Protected, site_a: Site, vault: Vault, refloat: Refloat
) -> None:
    """Nothing is overwritten: the plan is blocked by what exists and differs."""
    rows = protected.shop.orders()
    for words in (("plan", "shop"), ("recover", "shop", "--yes")):
        refused = refloat(*words, *site_a.flags, *vault.flags)
        assert (refused.exit_code, "data-db-0" in refused.stdout + refused.stderr) == (61, True), str(refused)
    assert protected.shop.orders() == rows
    assert leftovers(site_a.cluster) == []


def test_broken_off_recovery_converges(protected: Protected, site_a: Site, vault: Vault, refloat: Refloat) -> None:
    """Killed in the middle of hydrate, run again: the shop is there, once, and no volume was handed over twice."""
    words = ("recover", "shop", "--to-namespace", BROKEN_OFF, "--yes", *site_a.flags, *vault.flags)
    process = refloat.start(*words)
    try:
        dead_run = run_of(first_running_mover(site_a.cluster))
        assert process.poll() is None, "it ended before it could be killed"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        output = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL, output
    assert site_a.cluster.find("StatefulSet.apps", "db", BROKEN_OFF) is None, "killed too late to show anything"
    refloat.done(*words, phase="recover again after SIGKILL in hydrate")
    recovered = assert_recovered(protected, site_a.cluster, BROKEN_OFF)
    claims = [each["metadata"]["name"] for each in site_a.cluster.list("PersistentVolumeClaim", recovered.namespace)]
    assert claims == ["data-db-0"]
    refloat.done("sweep", "--run", dead_run, "--yes", *site_a.flags)
    assert leftovers(site_a.cluster) == []
    assert_recovered(protected, site_a.cluster, BROKEN_OFF)
    remove_namespace(site_a.cluster, BROKEN_OFF)


def first_running_mover(cluster: Cluster) -> dict[str, Any]:
    """The first mover pod that runs in refloat's namespace."""
    for _, pod in cluster.watch("Pod", HOME, labels=RUN_LABEL, timeout=MOVER_WITHIN):
        if pod["status"].get("phase") == "Running":
            return pod
    raise AssertionError("no mover ran")


def run_of(pod: dict[str, Any]) -> str:
    """The run an object belongs to."""
    return str(pod["metadata"]["labels"][RUN_LABEL])


def test_interrupted_protection_leaves_nothing(
    protected: Protected, site_a: Site, vault: Vault, refloat: Refloat
) -> None:
    """Ctrl-C in the middle of upload: exit 130, nothing sealed, nothing left, the shop takes orders."""
    process = refloat.start(
        "protect",
        "shop",
        "-n",
        protected.shop.namespace,
        "-l",
        LABEL,
        *site_a.flags,
        *vault.beside("interrupted").flags,
    )
    try:
        first_running_mover(site_a.cluster)
        os.kill(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, stdout + stderr
    assert "error INTERRUPTED" in stderr
    assert refloat.done("points", *vault.beside("interrupted").flags, "-o", "json").json == []
    assert leftovers(site_a.cluster) == []
    protected.shop.place_order()


@pytest.fixture(scope="module")
def lost(protected: Protected, site_a: Site) -> str:
    """The disaster: the namespace is gone, its volumes with it."""
    namespace = protected.shop.namespace
    remove_namespace(site_a.cluster, namespace)
    with pytest.raises(ObjectMissing):
        site_a.cluster.get("Namespace", namespace)
    return namespace


def test_plan_shows_what_would_be_created(lost: str, site_a: Site, vault: Vault, refloat: Refloat) -> None:
    """The dry run: everything is to be created, nothing blocks, and nothing is created by asking."""
    words = ("plan", "shop", *site_a.flags, *vault.flags)
    plan = refloat.done(*words, "-o", "json", phase="plan").json
    assert {each["action"] for each in plan["objects"]} == {"create"}
    assert [(each["claim"], each["action"]) for each in plan["volumes"]] == [("data-db-0", "hydrate")]
    assert plan["blockers"] == []
    shown = refloat.done(*words).stdout
    assert all(name in shown for name in ("db", "web", "db-auth", "data-db-0"))
    assert site_a.cluster.find("Namespace", lost) is None


@pytest.fixture(scope="module")
def recovered(protected: Protected, lost: str, site_a: Site, vault: Vault, refloat: Refloat) -> Shop:
    """One command brings it back."""
    refloat.done("recover", "shop", "--yes", *site_a.flags, *vault.flags, phase="recover into the lost namespace")
    return assert_recovered(protected, site_a.cluster, lost)


def test_recover_brings_everything_back(recovered: Shop, site_a: Site) -> None:
    """Rows, bytes, Secret and replicas as at the cut; no neighbour; nothing of the run left; orders go on."""
    assert recovered.place_order() > 0
    sets = [each["metadata"]["name"] for each in site_a.cluster.list("StatefulSet.apps", recovered.namespace)]
    assert sets == ["db"]
    assert leftovers(site_a.cluster) == []


def test_recovering_again_keeps_everything(recovered: Shop, site_a: Site, vault: Vault, refloat: Refloat) -> None:
    """Run again, it converges: everything is kept, nothing restarts, and newer orders are not undone."""
    pod = site_a.cluster.get("Pod", "db-0", recovered.namespace)["metadata"]["uid"]
    newest = recovered.place_order()
    report = refloat.done(
        "recover", "shop", "--yes", *site_a.flags, *vault.flags, "-o", "json", phase="recover again, all kept"
    ).json
    assert (report["created"], report["hydrated"]) == (0, 0)
    assert site_a.cluster.get("Pod", "db-0", recovered.namespace)["metadata"]["uid"] == pod
    assert recovered.orders()[2] == newest


def test_protect_what_was_recovered(recovered: Shop, site_a: Site, vault: Vault, refloat: Refloat) -> None:
    """The recovered shop is protected like any other, and what has not changed is not stored again."""
    refloat.done(
        "protect", "shop", "-n", recovered.namespace, "-l", LABEL, *site_a.flags, *vault.flags,
        phase="protect again (server up, unchanged bulk)",
    )  # fmt: skip
    points = refloat.done("points", "shop", *site_a.flags, *vault.flags, "-o", "json").json
    assert len(points) == 2
    assert points[1]["point"]["volumes"][0]["added_bytes"] < BULK_BYTES
    assert leftovers(site_a.cluster) == []


def test_recover_on_another_site(protected: Protected, site_b: Site, vault: Vault, refloat: Refloat) -> None:
    """From site a to site b: another cluster, another storage, the first point."""
    namespace = protected.shop.namespace
    remove_namespace(site_b.cluster, namespace)
    refloat.done(
        "recover", "shop", "--point", protected.point_id, "--yes", *site_b.flags, *vault.flags,
        phase="recover on site b",
    )  # fmt: skip
    try:
        assert_recovered(protected, site_b.cluster, namespace).place_order()
        assert leftovers(site_b.cluster) == []
    finally:
        remove_namespace(site_b.cluster, namespace)
