"""Real servers beyond the suite: what is on disk while held, and what is refused, named and not shown."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from kube.cluster import Cluster
from providers.quiescers import mariadb, postgresql, redis
from refloat.conformance.quiescer_bench import LEASE, opened
from refloat.errors import QuiesceFailed, Unsupported
from tests.quiescers.cassandra_server import snapshots_of
from tests.quiescers.conftest import Benches
from tests.quiescers.rabbitmq_server import messages, running
from tests.quiescers.range_bench import RangeBench, pod_of
from tests.quiescers.servers import client, free_port, program, resp, until


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


def settings_of(bench: RangeBench) -> tuple[dict[str, str], list[str]]:
    """Environment and words of a client of a PostgreSQL bench."""
    env = {"PGHOST": bench.options["host"], "PGPORT": bench.options["port"], "PGPASSWORD": bench.secrets[0]}
    return {**env, "PGUSER": "postgres"}, ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", "shop", "-c"]


@pytest.mark.parametrize("former", ["", 'ANY 1 (east, "west\'s")'])
def test_what_made_commits_wait_before_is_set_again(benches: Benches, former: str) -> None:
    """After a release, and after the stand-alone thaw, whoever set it: the very text that was there, or nothing."""
    bench = of(benches, "postgresql-commits")
    env, psql = settings_of(bench)

    def now_set() -> str:
        return client([*psql, "show synchronous_standby_names"], env).strip()

    quoted = former.replace("'", "''")
    client(
        [*psql, "set synchronous_commit = local", "-c", f"alter system set synchronous_standby_names = '{quoted}'"], env
    )
    client([*psql, "select pg_reload_conf()"], env)
    until(lambda: now_set() == former, "the setting is in force")
    try:
        with opened(bench) as hold:
            hold.freeze()
            assert "refloat-hold:" in now_set()
            hold.beat()
            hold.release()
            until(lambda: now_set() == former, "the release set it again")
        with opened(bench) as hold:
            hold.freeze()
            assert bench.run(hold.scripts[0].thaw) == 0
            until(lambda: now_set() == former, "the thaw set it again")
    finally:
        client([*psql, "alter system reset synchronous_standby_names", "-c", "select pg_reload_conf()"], env)
        until(lambda: not now_set(), "nothing waits")


def test_a_session_whose_commits_do_not_wait_breaks_the_hold(benches: Benches) -> None:
    """synchronous_commit = off in one session: nobody can see it but by what it does."""
    bench = of(benches, "postgresql-commits")
    env, psql = settings_of(bench)
    with opened(bench) as hold:
        hold.freeze()
        hold.beat()
        client([*psql, "set synchronous_commit = off", "-c", "insert into orders (at) values (now())"], env)
        with pytest.raises(AssertionError, match="BROKEN a commit did not wait"):
            hold.beat()


def test_tables_beyond_the_lock_table_make_commits_wait(benches: Benches) -> None:
    """Chosen by itself; and locks asked for by name stay locks."""
    bench = of(benches, "postgresql-commits")
    env, psql = settings_of(bench)
    options = {name: value for name, value in bench.options.items() if name not in ("method", "database")}

    def methods(**more: str) -> set[str]:
        return {script.method for script in bench.quiescer.scripts(bench.place, {**options, **more}, bench.ask)}

    few = {"EXCLUSIVE locks on every table of postgres", "EXCLUSIVE locks on every table of shop"}
    assert methods() == few
    schemas = [f"many_{number}" for number in range(6)]
    try:
        for schema in schemas:
            loop = f"for i in 1..30 loop execute format('create table {schema}.t%s ()', i); end loop;"
            client([*psql, f"create schema {schema}", "-c", f"do $$ begin {loop} end $$"], env)
        assert methods() == {"every commit waits for a standby there is not"}
        assert methods(method="locks") == few
    finally:
        for schema in schemas:
            client([*psql, f"drop schema if exists {schema} cascade"], env)


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


def test_what_rabbitmq_confirmed_is_in_its_folder_while_held(benches: Benches, tmp_path: Path) -> None:
    """A second node of the same name over a copy made within the hold has every confirmed message."""
    bench = of(benches, "rabbitmq")
    assert bench.folder is not None
    with opened(bench) as hold:
        for _ in range(3):
            bench.write()
        hold.freeze()
        shutil.copytree(bench.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("*.log"))
        hold.beat()
        hold.release()
    with running(tmp_path / "copy") as copy:
        assert messages(copy) == messages(bench.env) > 0


def test_cassandra_keeps_a_snapshot_for_the_cut_and_no_longer(benches: Benches) -> None:
    """Hard links of what was written, flushed from memory, are there while it is held; what a former hold left goes."""
    bench = of(benches, "cassandra")
    folder = bench.folder
    assert folder is not None
    bench.write()
    with opened(bench, lease=LEASE) as hold:
        hold.freeze()
        (snapshot,) = snapshots_of(folder)
        tables = list(snapshot.glob("*-Data.db"))
        assert tables and all(table.stat().st_nlink > 1 for table in tables)
        hold.holders[0].kill()
        until(lambda: snapshots_of(folder) == [], "the watchdog cleared it")


def test_no_table_is_made_in_postgresql_while_it_is_held(benches: Benches) -> None:
    """It could be written, since nobody has locked it; readers go on, and the table is there after the release."""
    bench = of(benches, "postgresql")
    env, psql = settings_of(bench)
    with opened(bench) as hold:
        hold.freeze()
        with pytest.raises(RuntimeError, match="statement timeout"):
            client([*psql, "set statement_timeout = '1s'", "-c", "create table late (id int)"], env)
        bench.read()
        hold.beat()
        hold.release()
    client([*psql, "create table late (id int)", "-c", "drop table late"], env)


@pytest.mark.parametrize("name", ["mariadb", "mysql-on-mariadb"])
def test_innodb_on_volumes_of_several_instants_claims_nothing(benches: Benches, name: str) -> None:
    """Clients are held, and its pages and log are not: no label can come of that, unless all is on one volume."""
    bench = of(benches, name)
    folder = str(Path(bench.options["socket"]).parent)
    place = replace(bench.place, mounts={f"{folder}/data": "whole", "/other": "log"}, is_one_instant=False)
    [script] = bench.quiescer.scripts(place, bench.options, bench.ask)
    assert script.stops_writes

    def ask(command: Sequence[str]) -> str:
        """As if the log's folder were one of its own."""
        said = bench.ask(command)
        return said.replace("lies|", "lies|/other/") if said.startswith("lies|") else said

    [script] = bench.quiescer.scripts(place, bench.options, ask)
    assert not script.stops_writes
    assert "cut one after another" in script.method
