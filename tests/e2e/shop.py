"""The shop and its neighbour on a real cluster: bringing them up, placing orders, and looking at what is there."""

from __future__ import annotations

import base64
import contextlib
import secrets
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from kube.cluster import Cluster
from refloat.errors import ObjectExists

HERE = Path(__file__).parent
LABEL = "app.kubernetes.io/part-of=shop"
NEIGHBOUR = "app.kubernetes.io/part-of=neighbour"
WEB_REPLICAS = 2
UP_WITHIN = timedelta(minutes=5)
GONE_WITHIN = timedelta(minutes=3)
BULK_BYTES = 24 << 20
NEIGHBOUR_BYTES = 64 << 20
PSQL = '"$(ls -d /usr/lib/postgresql/*/bin | tail -1)/psql" -h /tmp -U postgres -v ON_ERROR_STOP=1 -Atqc "$0"'


def make_namespace(cluster: Cluster, name: str, labels: dict[str, str] | None = None) -> None:
    """A namespace, empty: one of that name is removed first."""
    remove_namespace(cluster, name)
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels or {}}})


def remove_namespace(cluster: Cluster, name: str) -> None:
    """Delete it and wait until it is gone."""
    if cluster.delete("Namespace", name):
        cluster.wait("Namespace", name, None, lambda obj: obj is None, timeout=GONE_WITHIN, what=f"{name} gone")


def create_all(cluster: Cluster, namespace: str, file: str, **values: str) -> None:
    """Create every object of a YAML file, with @NAME@ replaced."""
    text = (HERE / file).read_text()
    for name, value in {"NAMESPACE": namespace, **values}.items():
        text = text.replace(f"@{name}@", value)
    for obj in yaml.safe_load_all(text):
        obj["metadata"]["namespace"] = namespace
        with contextlib.suppress(ObjectExists):
            cluster.create(obj)


@dataclass
class Shop:
    """One running shop: where it is, and its database password."""

    cluster: Cluster
    namespace: str
    password: str = field(default_factory=lambda: secrets.token_hex(12), repr=False)

    def start(self, image: str) -> Shop:
        """Bring the shop up and wait until the web tier has read from the database."""
        encoded = base64.b64encode(self.password.encode()).decode()
        create_all(self.cluster, self.namespace, "shop.yaml", IMAGE=image, PASSWORD=encoded)
        return self.wait_ready()

    def wait_ready(self) -> Shop:
        """Wait until all replicas are ready."""
        for kind, name, replicas in (("StatefulSet.apps", "db", 1), ("Deployment.apps", "web", WEB_REPLICAS)):
            wait_replicas(self.cluster, kind, name, self.namespace, replicas)
        return self

    def run(self, *words: str, pod: str = "db-0", container: str = "postgres") -> str:
        """A command in a pod, which must succeed; its output."""
        done = self.cluster.exec(self.namespace, pod, container, words, timeout=timedelta(seconds=30))
        assert done.exit_code == 0, f"{words} in {pod}: {done.exit_code} {done.stderr.decode()}"
        return done.stdout.decode().strip()

    def sql(self, statement: str) -> str:
        """A statement in the database; rows as psql prints them unaligned."""
        return self.run("sh", "-c", PSQL, statement)

    def place_order(self) -> int:
        """One more numbered row, in a transaction of its own; returns its number once it is committed."""
        insert = "insert into orders (id, note) select coalesce(max(id), 0) + 1, 'order' from orders returning id"
        return int(self.sql(insert))

    def orders(self) -> tuple[int, int, int]:
        """(how many, lowest number, highest number)."""
        count, lowest, highest = self.sql("select count(*), min(id), max(id) from orders").split("|")
        return int(count), int(lowest or 0), int(highest or 0)

    def secret(self) -> str:
        """The password in the cluster's Secret."""
        return base64.b64decode(self.cluster.get("Secret", "db-auth", self.namespace)["data"]["password"]).decode()

    def bulk_digest(self) -> str:
        """SHA-256 of the large file beside the database."""
        return self.run("sha256sum", "/data/bulk").split()[0]

    def web_may(self, verb: str, plural: str) -> bool:
        """Whether the web tier's service account has the right its Role gives it."""
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "metadata": {},
            "spec": {
                "user": f"system:serviceaccount:{self.namespace}:web",
                "resourceAttributes": {"namespace": self.namespace, "verb": verb, "resource": plural},
            },
        }
        return bool(self.cluster.create(review)["status"]["allowed"])


def ready_replicas(obj: dict[str, Any] | None) -> int:
    """How many replicas of the newest generation are ready; -1 while the controller has not seen it."""
    status = (obj or {}).get("status", {})
    if obj is None or status.get("observedGeneration", 0) < obj["metadata"].get("generation", 0):
        return -1
    return int(status.get("readyReplicas", 0))


def wait_replicas(cluster: Cluster, kind: str, name: str, namespace: str, replicas: int) -> None:
    """Wait until so many replicas of a workload are ready."""

    def are_ready(obj: dict[str, Any] | None) -> bool:
        return ready_replicas(obj) == replicas

    cluster.wait(kind, name, namespace, are_ready, timeout=UP_WITHIN, what=f"{name} ready")


class Customers:
    """Places orders one after the other, on a thread, until the block ends; every number was committed."""

    def __init__(self, shop: Shop) -> None:
        self.shop, self.committed, self.failure = shop, 0, ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._order, name="customers")

    def _order(self) -> None:
        while not self._over.is_set():
            try:
                self.committed = self.shop.place_order()
            except Exception as broken:  # noqa: BLE001 - told to the test, which fails on it
                self.failure = f"{type(broken).__name__}: {broken}"
                return

    def __enter__(self) -> Customers:
        self.committed = self.shop.place_order()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "an order hangs: the database does not accept writes"


def neighbour_facts(cluster: Cluster, namespace: str) -> dict[str, Any]:
    """Everything about the neighbour that a run on the shop must leave as it is, bytes included."""
    pod = cluster.get("Pod", "neighbour-0", namespace)
    claim = cluster.get("PersistentVolumeClaim", "data-neighbour-0", namespace)
    read = ("sh", "-c", "sha256sum /data/bytes; find /data | sort; stat -c '%n %s %y %u %a' /data/bytes")
    bytes_now = cluster.exec(namespace, "neighbour-0", "neighbour", read, timeout=timedelta(minutes=1))
    assert bytes_now.exit_code == 0
    return {
        "pod": pod["metadata"]["uid"],
        "restarts": [each["restartCount"] for each in pod["status"]["containerStatuses"]],
        "started": [each["state"] for each in pod["status"]["containerStatuses"]],
        "claim": (claim["metadata"]["uid"], claim["metadata"]["resourceVersion"]),
        "set": cluster.get("StatefulSet.apps", "neighbour", namespace)["metadata"]["resourceVersion"],
        "bytes": bytes_now.stdout.decode(),
    }
