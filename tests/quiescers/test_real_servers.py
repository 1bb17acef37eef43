"""Real servers beyond the suite: what is on disk while held, and what is refused, named and not shown."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from kube.cluster import Cluster
from providers.quiescers import mariadb, postgresql, redis
from refloat.conformance.quiescer_bench import opened
from refloat.errors import QuiesceFailed, Unsupported
from tests.quiescers.conftest import Benches
from tests.quiescers.range_bench import RangeBench, pod_of
from tests.quiescers.servers import free_port, program, resp, until


def of(benches: Benches, name: str) -> RangeBench:
    """The bench of a server; NOT RUN without it."""
    bench = benches[name]
    if isinstance(bench, str):
        pytest.skip(bench)
    return bench


@pytest.mark.parametrize("name", ["redis-aof", "redis-rdb"])
def test_what_redis_acknowledged_is_in_its_files_while_held(benches: Benches, name: str, tmp_path: Path) -> None:
    """A second server over a copy made within the hold has every acknowledged write."""
    bench = of(benches, name)
    port, password = int(bench.options["port"]), "".join(bench.secrets)
    folder = folder_of(port, password)
    resp(port, password, *[["incr", "acknowledged"]] * 500)
    with opened(bench) as hold:
        hold.freeze()
        expected = resp(port, password, ["get", "acknowledged"])
        shutil.copytree(folder, tmp_path / "copy")
        hold.beat()
        hold.release()
    again, kind = free_port(), "yes" if name == "redis-aof" else "no"
    words = [program("redis-server"), "--port", str(again), "--dir", str(tmp_path / "copy"), "--appendonly", kind]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as copy:
        try:
            until(lambda: resp(again, "", ["ping"], seconds=1) == "+PONG\r\n", "the copy's server answers")
            assert resp(again, "", ["get", "acknowledged"]) == expected
        finally:
            copy.kill()


@pytest.mark.parametrize("name", ["redis-aof", "redis-rdb"])
def test_a_pause_that_somebody_ended_is_broken_before_any_write(benches: Benches, name: str) -> None:
    """Seen in the server's own count, though a save that ends meanwhile hides what was written."""
    bench = of(benches, name)
    with opened(bench) as hold:
        hold.freeze()
        hold.beat()
        resp(int(bench.options["port"]), "".join(bench.secrets), ["client", "unpause"])
        with pytest.raises(AssertionError, match="BROKEN somebody ended the pause"):
            hold.beat()


def folder_of(port: int, password: str) -> Path:
    """Where a Redis server keeps its files."""
    words = ["redis-cli", "-p", str(port), "config", "get", "dir"]
    env = {**os.environ, **({"REDISCLI_AUTH": password} if password else {})}
    return Path(subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout.splitlines()[1])


def test_a_cache_is_refused(shared_cluster: Cluster, tmp_path: Path) -> None:
    """Redis that keeps nothing on disk: refused, with what to do instead."""
    port = free_port()
    script = f"exec {program('redis-server')} --port {port} --save '' --dir {tmp_path}"
    place = pod_of(shared_cluster, "quiescers", "cache", script, {})
    until(lambda: resp(port, "", ["ping"], seconds=1), "the cache answers")
    bench = RangeBench(shared_cluster, redis.open_quiescer(), place, lambda: None, lambda: None)
    with pytest.raises(Unsupported, match="keeps nothing on disk") as refused:
        bench.quiescer.scripts(place, {"port": str(port)}, bench.ask)
    assert "engine: none" in refused.value.guidance
    shared_cluster.delete("Pod", "cache", "quiescers")


WRONG = {
    "redis-aof": ({"REDIS_PASSWORD": "wrong"}, "WRONGPASS"),
    "mariadb": ({"MARIADB_ROOT_PASSWORD": "wrong"}, "Access denied"),
    "postgresql": ({"POSTGRES_PASSWORD": "wrong"}, "password authentication failed"),
}
CLIENTS = {"redis-aof": "redis-cli", "mariadb": "mariadb", "postgresql": "psql"}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_password_is_named_and_not_shown(benches: Benches, shared_cluster: Cluster, name: str) -> None:
    """QuiesceFailed with the server's own words."""
    bench, (env, words) = of(benches, name), WRONG[name]
    place = pod_of(shared_cluster, "quiescers", f"wrong-{name}", "exec sleep 60", env)
    other = RangeBench(shared_cluster, bench.quiescer, place, lambda: None, lambda: None)
    with pytest.raises(QuiesceFailed, match=words) as failed:
        other.quiescer.scripts(place, bench.options, other.ask)
    assert not any(secret in str(failed.value) for secret in bench.secrets)
    shared_cluster.delete("Pod", place.pod, "quiescers")


@pytest.mark.parametrize("name", WRONG)
def test_a_missing_client_is_named(shared_cluster: Cluster, tmp_path: Path, name: str) -> None:
    """A container that has a shell and coreutils, and no client."""
    for each in ("sh", "cat", "timeout", "tr", "sed", "sleep", "sync"):
        (tmp_path / each).symlink_to(shutil.which(each) or "/bin/" + each)
    script = f"exec {tmp_path}/sleep 60"
    place = pod_of(shared_cluster, "quiescers", f"bare-{name}", script, {"PATH": str(tmp_path)})
    quiescer = {
        "redis-aof": redis.open_quiescer,
        "mariadb": mariadb.open_quiescer,
        "postgresql": postgresql.open_quiescer,
    }[name]()
    bench = RangeBench(shared_cluster, quiescer, place, lambda: None, lambda: None)
    with pytest.raises(QuiesceFailed, match=CLIENTS[name]):
        quiescer.scripts(place, {}, bench.ask)
    shared_cluster.delete("Pod", place.pod, "quiescers")
