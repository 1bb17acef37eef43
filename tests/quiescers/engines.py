"""Which engines are tried: those of real servers, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kube.cluster import Cluster
from tests.quiescers import servers
from tests.quiescers.cassandra_server import a_cassandra
from tests.quiescers.rabbitmq_server import a_rabbitmq
from tests.quiescers.range_bench import RangeBench

SERVERS: dict[str, Callable[[Cluster, str, Path, str], RangeBench]] = {
    **servers.SERVERS,
    "rabbitmq": a_rabbitmq,
    "cassandra": a_cassandra,
}
