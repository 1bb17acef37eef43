"""The ledger on a real cluster: six servers of three engines, a teller who writes to all, and what they agree on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import yaml

from kube.cluster import Cluster
from tests.e2e.shop import create_all, make_namespace, wait_replicas

LABEL = "app.kubernetes.io/part-of=ledger"
STREAMS = 4
SETS = ("pg", "maria", "redis")
BEGUN = 20
"""Entries every stream has written before a test begins."""


def document(namespace: str, mode: str) -> str:
    """The application and how its engines are held."""
    options: dict[str, dict[str, Any]] = {
        "pg": {"engine": "postgresql", "options": {"host": "/tmp"}},
        "maria": {"engine": "mariadb"},
        "redis": {"engine": "redis"},
    }
    return yaml.safe_dump(
        {
            "apiVersion": "refloat/v1",
            "kind": "Application",
            "name": "ledger",
            "members": [{"namespace": namespace, "selector": LABEL}],
            "quiesce": [{"selector": f"app={name}", **how} for name, how in options.items()],
            "hold": {"mode": mode},
        }
    )


@dataclass(frozen=True)
class Ledger:
    """One ledger in one namespace."""

    cluster: Cluster
    namespace: str

    def start(self, image: str) -> Ledger:
        """All servers ready, none written to."""
        make_namespace(self.cluster, self.namespace)
        create_all(self.cluster, self.namespace, "ledger.yaml", IMAGE=image)
        return self.wait_ready()

    def wait_ready(self) -> Ledger:
        """Wait until all six servers take connections."""
        for name in SETS:
            wait_replicas(self.cluster, "StatefulSet.apps", name, self.namespace, 2)
        return self

    def run(self, pod: str, script: str) -> str:
        """A shell script in a server's pod, which must succeed."""
        done = self.cluster.exec(self.namespace, pod, "server", ("sh", "-c", script), timeout=timedelta(seconds=20))
        assert done.exit_code == 0, f"{script} in {pod}: {done.exit_code} {done.stderr.decode()}"
        return done.stdout.decode().strip()

    def heights(self, stream: int) -> tuple[int, int, int]:
        """How far one stream came in PostgreSQL, MariaDB and Redis; no entry may be missing below."""
        k = stream % 2
        query = f"select coalesce(max(entry), 0), count(*) from ledger where stream = {stream}"
        pg, pg_count = self.run(f"pg-{k}", f"psql -h /tmp -U postgres -Atqc '{query}'").split("|")
        maria, maria_count = self.run(f"maria-{k}", f"mariadb -u root -N -B ledger -e '{query}'").split()
        redis = self.run(f"redis-{k}", f"redis-cli get {stream}") or "0"
        assert (pg, maria) == (pg_count, maria_count), "entries are missing in between"
        return int(pg), int(maria), int(redis)

    def checkpointers(self) -> list[str]:
        """The process of each PostgreSQL that is another one once the postmaster took a child of its for crashed."""
        query = "select pid from pg_stat_activity where backend_type = 'checkpointer'"
        return [self.run(f"pg-{k}", f'psql -h /tmp -U postgres -Atqc "{query}"') for k in range(2)]

    def violations(self) -> list[str]:
        """Streams whose servers cannot have been so at any one instant."""
        found = []
        for stream in range(STREAMS):
            pg, maria, redis = self.heights(stream)
            if not pg >= maria >= redis >= pg - 1:
                found.append(f"stream {stream}: PostgreSQL {pg}, MariaDB {maria}, Redis {redis}")
        return found


@dataclass
class Teller:
    """A pod that is no part of the ledger and writes to it, as fast as it can, until it is stopped."""

    ledger: Ledger

    def __enter__(self) -> Teller:
        namespace = self.ledger.namespace
        container = {
            "name": "teller",
            "image": os.environ["REFLOAT_E2E_POSTGRES_IMAGE"],
            "imagePullPolicy": "IfNotPresent",
            "command": ["python3", "/start/teller.py", str(STREAMS)],
            "volumeMounts": [{"name": "start", "mountPath": "/start"}],
        }
        volumes = [{"name": "start", "configMap": {"name": "ledger"}}]
        spec = {"containers": [container], "volumes": volumes, "restartPolicy": "Never"}
        spec["terminationGracePeriodSeconds"] = 1
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "teller", "namespace": namespace}, "spec": spec}
        self.ledger.cluster.create(pod)
        self.wait_written(BEGUN)
        return self

    def __exit__(self, *_: object) -> None:
        assert self.is_writing(), "the teller gave up: a server hung up on it"
        cluster, namespace = self.ledger.cluster, self.ledger.namespace
        cluster.delete("Pod", "teller", namespace, grace_seconds=0)
        limit = timedelta(minutes=1)
        cluster.wait("Pod", "teller", namespace, lambda pod: pod is None, timeout=limit, what="the teller gone")

    def is_writing(self) -> bool:
        """Whether the teller still runs: it ends when any server fails it."""
        pod = self.ledger.cluster.get("Pod", "teller", self.ledger.namespace)
        return bool(pod["status"]["phase"] == "Running")

    def wait_written(self, entries: int) -> None:
        """Wait until every stream has so many entries more in Redis, the last in the order."""
        goals = {stream: self.ledger.heights(stream)[2] + entries for stream in range(STREAMS)}
        script = 'until [ "$(redis-cli get {0} || true)" ] && [ "$(redis-cli get {0})" -ge {1} ]; do sleep 0.1; done'
        for stream, goal in goals.items():
            self.ledger.run(f"redis-{stream % 2}", script.format(stream, goal))
