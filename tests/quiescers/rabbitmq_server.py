"""A real RabbitMQ node as a pod of the practice range, and clients that publish to it and wait for its confirmation."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pika
import pytest

from kube.cluster import Cluster
from providers.quiescers import rabbitmq
from tests.quiescers.range_bench import RangeBench, pod_of
from tests.quiescers.servers import client, free_port, until

PROGRAMS = Path("/usr/lib/rabbitmq/bin")
"""Debian's in /usr/sbin give up root's rights on the way, which a pod of the range has no use for."""
START_SECONDS = 2.0
"""What a node needs at most, on a machine at work, to serve again after its application was started."""
QUEUE = "orders"


def environment(folder: Path) -> dict[str, str]:
    """A node of its own in the folder; a copy of the folder is the same node, on ports and a port mapper of its own."""
    named = folder / "name"
    if not named.exists():
        named.write_text(f"r{secrets.token_hex(4)}@localhost")
    port, node, mapper = free_port(), free_port(), free_port()
    return {
        "PATH": f"{PROGRAMS}:{os.environ['PATH']}", "HOME": str(folder),
        "RABBITMQ_NODENAME": named.read_text(), "ERL_EPMD_PORT": str(mapper),
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1", "RABBITMQ_NODE_PORT": str(port), "RABBITMQ_DIST_PORT": str(node),
        "RABBITMQ_MNESIA_BASE": f"{folder}/data", "RABBITMQ_LOG_BASE": f"{folder}/log",
        "RABBITMQ_PID_FILE": f"{folder}/pid", "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
    }  # fmt: skip


def a_rabbitmq(cluster: Cluster, namespace: str, folder: Path, name: str) -> RangeBench:
    """A node with a durable queue."""
    if not (PROGRAMS / "rabbitmq-server").exists():
        pytest.skip("NOT RUN: rabbitmq-server is not installed")
    env = environment(folder)
    # the port mapper leaves its parent's group, and would outlive the pod
    script = f"""trap 'kill $server; wait $server; epmd -kill >/dev/null; exit 0' TERM
rabbitmq-server >{folder}/server.log 2>&1 & server=$!
wait $server"""
    place = pod_of(cluster, namespace, name, script, env)
    port = int(env["RABBITMQ_NODE_PORT"])
    until(lambda: client(["rabbitmqctl", "-q", "await_startup"], env) or True, f"{name} answers")
    return RangeBench(
        cluster,
        rabbitmq.open_quiescer(),
        place,
        write=lambda: publish(port),
        read=lambda: None,  # a node that is stopped serves nobody
        options={"stop": "true"},
        own_seconds=START_SECONDS,
        folder=folder,
        env=env,
    )


def publish(port: int) -> None:
    """One message that outlives the node, over a connection of its own; confirmed, or an error."""
    asked = pika.ConnectionParameters("127.0.0.1", port, socket_timeout=5, blocked_connection_timeout=5)
    with pika.BlockingConnection(asked) as connection:
        channel = connection.channel()
        channel.queue_declare(QUEUE, durable=True)
        channel.confirm_delivery()
        kept = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
        channel.basic_publish("", QUEUE, b"1", kept, mandatory=True)


def messages(env: dict[str, str]) -> int:
    """How many the queue of a node has."""
    said = client(["rabbitmqctl", "-q", "list_queues", "name", "messages", "--formatter", "json"], env)
    return next(int(each["messages"]) for each in json.loads(said) if each["name"] == QUEUE)


@contextmanager
def running(folder: Path) -> Iterator[dict[str, str]]:
    """A node over a copy of another's folder; its environment."""
    env = environment(folder)
    with (folder / "copy.log").open("wb") as log:
        words = [str(PROGRAMS / "rabbitmq-server")]
        server = subprocess.Popen(words, env={**os.environ, **env}, stdout=log, stderr=log, start_new_session=True)
    try:
        until(lambda: client(["rabbitmqctl", "-q", "await_startup"], env) or True, "the copy answers")
        yield env
    finally:
        server.terminate()
        server.wait(timeout=20)
        subprocess.run(["epmd", "-kill"], env={**os.environ, **env}, stdout=subprocess.DEVNULL, check=False)
