"""A database on three volumes of a driver that cuts no groups: held, in backup mode, and whole when recovered."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from kube.cluster import Cluster
from tests.e2e.command import Refloat
from tests.e2e.given import Site, Vault, environment
from tests.e2e.leftovers import leftovers
from tests.e2e.shop import PSQL, Shop, create_all, make_namespace, remove_namespace, wait_replicas

NAMESPACE, APPLICATION = "shop-e2e-spread", "spread"
GROUP_CLASS = "VolumeGroupSnapshotClass.groupsnapshot.storage.k8s.io"
ENTRY = "insert into {} select coalesce(max(id), 0) + 1 from {} returning id"
TABLES = ("kept", "apart_kept")


@contextmanager
def without_group_snapshots(cluster: Cluster) -> Iterator[None]:
    """Its classes are taken away, and put back."""
    classes = list(cluster.list(GROUP_CLASS))
    for each in classes:
        cluster.delete(GROUP_CLASS, each["metadata"]["name"])
    try:
        yield
    finally:
        for each in classes:
            about = {key: value for key, value in each["metadata"].items() if key in ("name", "labels", "annotations")}
            cluster.create({**each, "metadata": about})


class Writer:
    """Writes to both tables by turns until the block ends, with a checkpoint every few entries."""

    def __init__(self, server: Shop) -> None:
        self.server, self.committed, self.failure = server, 0, ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def _write(self) -> None:
        try:
            while not self._over.is_set():
                for table in TABLES:
                    self.committed = int(self.server.sql(ENTRY.format(table, table)))
                if self.committed % 5 == 0:
                    self.server.sql("checkpoint")
        except Exception as broken:  # noqa: BLE001 - told to the test, which fails on it
            self.failure = str(broken)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "an entry hangs: the database does not accept writes"
        assert not self.failure, self.failure


@pytest.fixture
def server(site_a: Site) -> Iterator[Shop]:
    """The database, up and with two tables, one of them in the tablespace."""
    cluster = site_a.cluster
    make_namespace(cluster, NAMESPACE)
    create_all(cluster, NAMESPACE, "spread.yaml", IMAGE=environment("REFLOAT_E2E_POSTGRES_IMAGE"))
    wait_replicas(cluster, "StatefulSet.apps", "spread", NAMESPACE, 1)
    found = Spread(cluster, NAMESPACE)
    found.sql("create tablespace apart location '/space/own'")
    found.sql("create table kept (id int primary key)")
    found.sql("create table apart_kept (id int primary key) tablespace apart")
    yield found
    remove_namespace(cluster, NAMESPACE)


class Spread(Shop):
    """Its statements, by the shop's own way to a database."""

    def sql(self, statement: str) -> str:
        """As psql prints it unaligned."""
        return self.run("sh", "-c", PSQL, statement, pod="spread-0", container="server")


def test_three_volumes_cut_one_after_another_are_one_database(
    server: Shop, site_a: Site, refloat: Refloat, vault: Vault, tmp_path: Path
) -> None:
    """Application-consistent, label and map in the copy, and after a loss every entry up to the hold is there."""
    document: dict[str, Any] = {
        "apiVersion": "refloat/v1", "kind": "Application", "name": APPLICATION, "members": [{"namespace": NAMESPACE}],
        "quiesce": [{"selector": "app=spread", "engine": "postgresql", "options": {"host": "/tmp"}}],
    }  # fmt: skip
    own = vault.beside("spread")
    file = tmp_path / "application.yaml"
    file.write_text(yaml.safe_dump(document))
    with without_group_snapshots(site_a.cluster), Writer(server) as writer:
        words = ("protect", "-f", file, *site_a.flags, *own.flags, "--accept", "application-consistent", "-o", "json")
        before = writer.committed
        point = refloat.done(*words).json["point"]
        after = writer.committed
    assert (point["consistency"], point["cut_method"]) == ("application-consistent", "volume-snapshots")
    added = {each["claim"]: sorted(each["added"]) for each in point["volumes"]}
    expected = ["pg/backup_label", "pg/tablespace_map"]
    assert added == {"data-spread-0": expected, "log-spread-0": [], "space-spread-0": []}
    cuts = {each["claim"]: each["cut_at"] for each in point["volumes"]}
    assert max(cuts, key=lambda claim: cuts[claim]) == "log-spread-0"
    remove_namespace(site_a.cluster, NAMESPACE)
    run = refloat.done("recover", APPLICATION, *site_a.flags, *own.flags, "--yes", "-o", "json").json["run"]
    wait_replicas(site_a.cluster, "StatefulSet.apps", "spread", NAMESPACE, 1)
    counts = [server.sql(f"select count(*), max(id) from {table}").split("|") for table in TABLES]
    (kept, kept_highest), (apart, apart_highest) = counts
    assert (kept, apart) == (kept_highest, apart_highest), "entries are missing in between"
    assert int(kept) - int(apart) in (0, 1), "the tables are not of one instant"
    assert before <= int(apart) <= after
    used = server.run("sh", "-c", "ls /data/pg", pod="spread-0", container="server").split()
    assert {"backup_label.old", "tablespace_map.old"} <= set(used)
    server.sql("reindex database postgres")
    assert leftovers(site_a.cluster) == []
    undone = refloat.done("recover", APPLICATION, *site_a.flags, *own.flags, "--undo", run, "--yes", "-o", "json").json
    assert undone["stays"] == {}
    assert site_a.cluster.find("Namespace", NAMESPACE) is None
