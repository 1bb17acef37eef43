"""A real Cassandra node as a pod of the practice range, and clients that write to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from cassandra.cluster import EXEC_PROFILE_DEFAULT, ExecutionProfile
from cassandra.cluster import Cluster as Client
from cassandra.policies import WhiteListRoundRobinPolicy

from kube.cluster import Cluster
from providers.quiescers import cassandra
from tests.quiescers.range_bench import RangeBench, pod_of
from tests.quiescers.servers import READ_SECONDS, free_port, until
from tests.tools import cassandra as tool

KEYSPACE = "shop"
TABLE = f"create table if not exists {KEYSPACE}.orders (id int primary key, at timestamp)"
REPLICATION = "{'class': 'SimpleStrategy', 'replication_factor': 1}"
CONNECT_SECONDS = 10


def a_cassandra(cluster: Cluster, namespace: str, folder: Path, name: str) -> RangeBench:
    """A node that knows nobody else, with a table; its commit log is synced every ten seconds, as it is delivered."""
    if tool.find() is None:
        pytest.skip("NOT RUN: Cassandra is missing (python -m tests.tools.cassandra gets one)")
    port, peer, management = free_port(), free_port(), free_port()
    script = f"exec {tool.command(folder, port, peer, management)} >{folder}/server.log 2>&1"
    place = pod_of(cluster, namespace, name, script, {"PATH": tool.path()})

    def said(*statements: str, seconds: float = 60) -> None:
        profile = ExecutionProfile(WhiteListRoundRobinPolicy(["127.0.0.1"]), request_timeout=seconds)
        client = Client(
            ["127.0.0.1"], port=port, execution_profiles={EXEC_PROFILE_DEFAULT: profile},
            connect_timeout=CONNECT_SECONDS, protocol_version=5,
        )  # fmt: skip
        try:
            session = client.connect()
            for statement in statements:
                session.execute(statement)
        finally:
            client.shutdown()

    def answers() -> bool:
        try:
            said(f"create keyspace if not exists {KEYSPACE} with replication = {REPLICATION}", TABLE)
        except Exception as wrong:
            raise RuntimeError(str(wrong)) from wrong
        return True

    until(answers, f"{name} answers")
    return RangeBench(
        cluster,
        cassandra.open_quiescer(),
        place,
        write=lambda: said(f"insert into {KEYSPACE}.orders (id, at) values (1, toTimestamp(now()))"),
        read=lambda: said(f"select * from {KEYSPACE}.orders", seconds=READ_SECONDS),
        options={"port": str(management)},
        folder=folder,
    )


def snapshots_of(folder: Path) -> list[Path]:
    """The folders of hard links that `nodetool snapshot` has made of the table."""
    return sorted((folder / "data").glob(f"data/{KEYSPACE}/orders-*/snapshots/*"))
