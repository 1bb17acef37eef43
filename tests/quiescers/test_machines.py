"""What the suite does not ask of recipes without a database server, who is refused, and who is recognised."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from kube.cluster import Cluster
from providers.quiescers import commands, filesystem
from refloat.conformance.quiescer_bench import LEASE, answer, opened
from refloat.errors import InvalidDocument, QuiesceFailed, Unsupported
from refloat.ports.quiescer import Place
from refloat.registry import open_quiescers
from tests.quiescers.machines import a_mongodb, some_commands
from tests.quiescers.range_bench import RangeHolder

PLACE = Place("shop", "db-0", "uid", "server")


def test_mongodb_is_unlocked_though_no_new_client_gets_in(shared_cluster: Cluster, tmp_path: Path) -> None:
    """The watchdog's own client, logged in before the freeze, unlocks; two counted locks as well."""
    bench = a_mongodb(shared_cluster, tmp_path)
    with opened(bench, lease=LEASE) as hold:
        hold.freeze()
        (tmp_path / "deaf").touch()
        (tmp_path / "locks").write_text("2")
        hold.holders[0].kill()
        bench.write()
        assert (tmp_path / "locks").read_text() == "0"
        (tmp_path / "deaf").unlink()
    shared_cluster.delete("Pod", bench.place.pod, bench.place.namespace)


def test_rabbitmq_is_not_stopped_unasked() -> None:
    """Without the document's word nothing is held, and nothing is claimed."""
    [script] = open_quiescers()["rabbitmq"].scripts(PLACE, {}, lambda _: "")
    assert not script.stops_writes
    assert "rabbit:stop" not in script.functions


@pytest.mark.parametrize(
    ("freeze", "why"),
    [
        ("exit 137", "ended with 137"),
        ("no-such-hook", "not found"),
        ("head -c 1000000 /dev/zero | tr '\\0' x; exit 3", "ended with 3: xxx"),
        ("sleep 60", "ended with 124"),
    ],
)
def test_a_command_that_fails_is_told_and_undone(
    shared_cluster: Cluster, tmp_path: Path, freeze: str, why: str
) -> None:
    """Any exit code, a megabyte of words, none of the name, a hang: FAILED with the reason, and its thaw has run."""
    bench = some_commands(shared_cluster, tmp_path)
    bench.options["freeze"] = f"touch {tmp_path}/held; {freeze}"
    with opened(bench, lease=timedelta(seconds=12)) as hold:
        hold.holders[0].say("freeze")
        with pytest.raises(AssertionError, match="FAILED") as failed:
            answer(hold.holders[0], "HELD", 11)
        assert why in str(failed.value)
        bench.write()
    shared_cluster.delete("Pod", bench.place.pod, bench.place.namespace)


def test_a_holder_without_its_watchdog_lets_go(shared_cluster: Cluster, tmp_path: Path) -> None:
    """It would hold for ever if it were killed too: the next beat ends it, and says why."""
    bench = some_commands(shared_cluster, tmp_path)
    with opened(bench) as hold:
        hold.freeze()
        hold.beat()
        holder = hold.holders[0]
        assert isinstance(holder, RangeHolder)
        holder.kill_watchdog()
        with pytest.raises(AssertionError, match="BROKEN its watchdog was killed"):
            hold.keep(2)
        bench.write()
    shared_cluster.delete("Pod", bench.place.pod, bench.place.namespace)


def nothing(_: object) -> str:
    """An answer nobody asks for."""
    raise AssertionError("it asked")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"freeze": "a", "thaw": "b"}, "lack confirm"),
        ({"freeze": "a", "thaw": "b", "confirm": "c", "stopsWrites": "yes"}, "true or false"),
    ],
)
def test_commands_are_complete(options: dict[str, str], words: str) -> None:
    """What is missing is named."""
    with pytest.raises(InvalidDocument, match=words):
        commands.open_quiescer().scripts(PLACE, options, nothing)


def test_commands_stop_no_writes_unless_the_document_says_so() -> None:
    """A document that says nothing claims nothing."""
    options = {"freeze": "a", "thaw": "b", "confirm": "c"}
    [script] = commands.open_quiescer().scripts(PLACE, options, nothing)
    assert not script.stops_writes


MOUNTS = """22 1 0:30 / / rw - overlay overlay rw
30 22 8:16 / /data rw,relatime - ext4 /dev/sdb rw
31 22 8:1 /etc/hosts /etc/hosts rw - xfs /dev/sda1 rw
32 22 8:1 /pv /local rw shared:1 - xfs /dev/sda1 rw
33 22 0:40 / /nfs rw - nfs4 server:/x rw
"""


@pytest.mark.parametrize(
    ("mount", "error", "words"),
    [
        ("/", InvalidDocument, "mount"),
        ("", InvalidDocument, "mount"),
        ("/none", QuiesceFailed, "nothing is mounted"),
        ("/nfs", Unsupported, "nfs4"),
        ("/local", Unsupported, "/etc/hosts"),
    ],
)
def test_a_file_system_that_cannot_be_frozen_alone_is_refused(mount: str, error: type[Exception], words: str) -> None:
    """Root, overlay, network, and what shares a node's disk."""
    with pytest.raises(error, match=words):
        filesystem.open_quiescer().scripts(PLACE, {"mount": mount}, lambda _: MOUNTS)


def test_a_claims_own_file_system_is_held() -> None:
    """By its mount point."""
    [script] = filesystem.open_quiescer().scripts(PLACE, {"mount": "/data/"}, lambda _: MOUNTS)
    assert (script.part, script.stops_writes, script.ends_with) == ("/data", True, "watchdog")


@pytest.mark.parametrize("engine", ["elasticsearch", "opensearch"])
def test_search_engines_are_refused_with_the_right_way(engine: str) -> None:
    """Whatever the options."""
    with pytest.raises(Unsupported, match="volume snapshots") as refused:
        open_quiescers()[engine].scripts(PLACE, {}, nothing)
    assert "_snapshot" in refused.value.guidance


IMAGES = {
    "postgres:16": "postgresql",
    "registry.local:5000/bitnami/postgresql@sha256:00": "postgresql",
    "quay.io/prometheuscommunity/postgres-exporter:1": None,
    "mariadb": "mariadb",
    "mysql/mysql-server:8": "mysql",
    "mysql/mysql-router:8": None,
    "percona/percona-server:8.0": "mysql",
    "percona/percona-server-mongodb:7": "mongodb",
    "redis:7-alpine": "redis",
    "redis/redis-stack-server": "redis",
    "redis/redisinsight": None,
    "oliver006/redis_exporter": None,
    "valkey/valkey:8": "valkey",
    "mongo:7": "mongodb",
    "mongo-express": None,
    "quay.io/coreos/etcd:v3.5.9": "etcd",
    "cassandra:5": "cassandra",
    "rabbitmq:3-management": "rabbitmq",
    "apache/kafka:3.7": "kafka",
    "confluentinc/cp-kafka-connect": None,
    "elasticsearch:8": "elasticsearch",
    "opensearchproject/opensearch:2": "opensearch",
    "opensearchproject/opensearch-dashboards:2": None,
    "nginx": None,
}


@pytest.mark.parametrize("image", IMAGES)
def test_images_are_told_apart(image: str) -> None:
    """By at most one quiescer each."""
    known = [name for name, quiescer in open_quiescers().items() if quiescer.recognises(image)]
    assert known == ([IMAGES[image]] if IMAGES[image] else [])
