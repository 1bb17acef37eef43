"""Real servers of this machine as pods of the practice range, each with a table or a key that clients write."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from kube.cluster import Cluster
from providers.quiescers import mariadb, mysql, postgresql, redis
from refloat.clock import monotonic_seconds, pause
from tests.quiescers.range_bench import RangeBench, pod_of

START_SECONDS = 40
WHOLE = bool(os.environ.get("REFLOAT_TORTURE"))
"""Every check on every engine, and several databases of one server; else what differs between engines."""
READ_SECONDS = 5
POSTGRES = Path("/usr/lib/postgresql/15/bin")


def program(name: str) -> str:
    """Where it is; the test is NOT RUN without it."""
    found = shutil.which(name) or shutil.which(name, path=f"/usr/sbin:/usr/local/sbin:{POSTGRES}")
    if found is None:
        pytest.skip(f"NOT RUN: {name} is not installed")
    return found


def free_port() -> int:
    """A port nobody listens on just now."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def client(words: list[str], env: dict[str, str], seconds: float = 60) -> str:
    """A client's run to its end.

    Raises:
        RuntimeError: It failed.
        subprocess.TimeoutExpired: It took longer.
    """
    done = subprocess.run(
        words, env={**os.environ, **env}, capture_output=True, text=True, timeout=seconds, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def until(is_so: Callable[[], object], what: str) -> None:
    """Once it is so; errors count as not yet."""
    end, last = monotonic_seconds() + START_SECONDS, "not so"
    while monotonic_seconds() < end:
        try:
            if is_so():
                return
        except (OSError, RuntimeError, subprocess.TimeoutExpired) as wrong:
            last = str(wrong)
        pause(timedelta(seconds=0.1))
    raise AssertionError(f"{what}: {last}")


@contextlib.contextmanager
def talking(words: list[str], env: dict[str, str], first: str, begun: Callable[[], object]) -> Iterator[None]:
    """A client that has been told something and stays, killed at the end."""
    with subprocess.Popen(
        words, env={**os.environ, **env}, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin is not None
        process.stdin.write(first + "\n")
        process.stdin.flush()
        until(begun, "the client has begun")
        try:
            yield
        finally:
            process.kill()


def a_postgresql(cluster: Cluster, namespace: str, folder: Path, name: str) -> RangeBench:
    """PostgreSQL with two databases; it will not run as root, so its folder is its own user's."""
    server, password, port = program("postgres"), secrets.token_hex(12), str(free_port())
    (folder / "password").write_text(password)
    as_user = ""
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
        shutil.chown(folder / "password", "postgres")
        as_user = "setpriv --reuid postgres --regid postgres --clear-groups "
    folders = f"-k {folder} -h '' -p {port}"
    if name == "postgresql-commits":
        folders += " -c max_locks_per_transaction=10 -c max_connections=20"  # 200 locks
    script = f"""cd {folder}
{as_user}{program("initdb")} -D data -A scram-sha-256 -U postgres --pwfile password -N >initdb.log 2>&1 || exit 1
exec {as_user}{server} -D data {folders} -c shared_buffers=16MB >server.log 2>&1"""
    env = {"PGHOST": str(folder), "PGPORT": port, "PGUSER": "postgres", "PGPASSWORD": password}
    place = pod_of(cluster, namespace, name, script, {"POSTGRES_PASSWORD": password})
    psql = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]

    def said(words: str, seconds: float = 60, database: str = "shop") -> str:
        return client([*psql, "-d", database, "-c", words], env, seconds)

    until(lambda: said("select 1", 5, "postgres"), "postgresql answers")
    said("create database shop", database="postgres")
    said("create table orders (id serial primary key, at timestamptz); create table other (id int)")

    def in_the_way() -> contextlib.AbstractContextManager[None]:
        first = "begin; insert into other values (1); select pg_sleep(20);"
        asked = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"
        return talking([*psql, "-d", "shop"], env, first, lambda: said(asked, 5).strip() == "1")

    by_commits = {"method": "commits"} if name == "postgresql-commits" else {}
    return RangeBench(
        cluster,
        postgresql.open_quiescer(),
        place,
        write=lambda: (said("insert into orders (at) values (now())"), None)[1],
        read=lambda: (said("select count(*) from orders", READ_SECONDS), None)[1],
        options={"host": str(folder), "port": port, **({} if WHOLE else {"database": "shop"}), **by_commits},
        secrets=(password,),
        blocked=None if by_commits else in_the_way,
    )


def a_mariadb(cluster: Cluster, namespace: str, folder: Path, name: str) -> RangeBench:
    """MariaDB, by its own recipe with the password in a variable, or by MySQL's with the password in a file."""
    server, password, user = program("mariadbd"), secrets.token_hex(12), f"--user={os.environ.get('USER', 'root')}"
    (folder / "password").write_text(password)
    (folder / "init.sql").write_text(f"alter user root@localhost identified by '{password}';\n")
    socket_path = folder / "s"
    script = f"""cd {folder}
{program("mariadb-install-db")} --no-defaults --datadir={folder}/data {user} --skip-test-db >install.log 2>&1 || exit 1
exec {server} --no-defaults --datadir={folder}/data {user} --socket={socket_path} --skip-networking --log-bin \
  --innodb-buffer-pool-size=16M --init-file={folder}/init.sql --pid-file={folder}/pid >server.log 2>&1"""
    given = (
        {"MARIADB_ROOT_PASSWORD": password} if name == "mariadb" else {"MYSQL_ROOT_PASSWORD_FILE": f"{folder}/password"}
    )
    place = pod_of(cluster, namespace, name, script, given)
    env = {"MYSQL_PWD": password}
    words = ["mariadb", "--no-defaults", "-S", str(socket_path), "-u", "root", "-B", "-N"]

    def said(statement: str, seconds: float = 60) -> str:
        return client([*words, "-e", statement], env, seconds)

    until(lambda: said("select 1", 5), f"{name} answers")
    said("create database shop; create table shop.orders (id serial, at datetime) engine=innodb;")
    said("create table shop.plain (id int) engine=myisam;")

    def in_the_way() -> contextlib.AbstractContextManager[None]:
        first = "insert into shop.plain select sleep(20);"
        asked = "select count(*) from information_schema.processlist where state = 'User sleep'"
        return talking(words, env, first, lambda: said(asked, 5).strip() == "1")

    return RangeBench(
        cluster,
        mariadb.open_quiescer() if name == "mariadb" else mysql.open_quiescer(),
        place,
        write=lambda: (said("insert into shop.orders (at) values (now())"), None)[1],
        read=lambda: (said("select count(*) from shop.orders", READ_SECONDS), None)[1],
        options={"socket": str(socket_path)},
        secrets=(password,),
        blocked=in_the_way,
    )


def resp(port: int, password: str, *commands: list[str], seconds: float = 60) -> str:
    """The answers of a Redis server, errors raised; after its password, over one connection."""
    sent = [["auth", password], *commands] if password else list(commands)
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as line, line.makefile("rb") as answers:
        said = b""
        for command in sent:
            parts = b"".join(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in command)
            line.sendall(b"*%d\r\n" % len(command) + parts)
            said = answers.readline()
            if said[:1] not in (b"+", b":", b"$"):
                raise RuntimeError(f"{command[0]}: {said!r}")
            if said[:1] == b"$" and said != b"$-1\r\n":
                said = answers.read(int(said[1:]) + 2)
        return said.decode()


def a_redis(cluster: Cluster, namespace: str, folder: Path, name: str) -> RangeBench:
    """Redis with an append-only file and a password, or with RDB files alone and none."""
    server, port = program("redis-server"), free_port()
    password = secrets.token_hex(12) if name == "redis-aof" else ""
    lines = [f"port {port}", "bind 127.0.0.1", f"dir {folder}", "daemonize no"]
    lines += ["appendonly yes", f"requirepass {password}"] if password else ["save 3600 100000"]
    (folder / "redis.conf").write_text("\n".join(lines) + "\n")
    script = f"exec {server} {folder}/redis.conf >{folder}/server.log 2>&1"
    place = pod_of(cluster, namespace, name, script, {"REDIS_PASSWORD": password} if password else {})
    until(lambda: resp(port, password, ["ping"], seconds=5), f"{name} answers")

    @contextlib.contextmanager
    def in_the_way() -> Iterator[None]:
        """A BGSAVE that takes about 9 s: Redis's own setting for its tests."""
        for number in range(30):
            resp(port, password, ["set", f"k{number}", "x"])
        resp(port, password, ["config", "set", "rdb-key-save-delay", "300000"])
        try:
            yield
        finally:
            resp(port, password, ["config", "set", "rdb-key-save-delay", "0"])

    return RangeBench(
        cluster,
        redis.open_quiescer(),
        place,
        write=lambda: (resp(port, password, ["incr", "orders"]), pause(timedelta(seconds=0.01)), None)[2],
        read=lambda: (resp(port, password, ["get", "orders"], seconds=READ_SECONDS), None)[1],
        options={"port": str(port)},
        secrets=(password,) if password else (),
        blocked=None if password else in_the_way,
    )


SERVERS: dict[str, Callable[[Cluster, str, Path, str], RangeBench]] = {
    "postgresql": a_postgresql,
    "postgresql-commits": a_postgresql,
    "mariadb": a_mariadb,
    "mysql-on-mariadb": a_mariadb,
    "redis-aof": a_redis,
    "redis-rdb": a_redis,
}
