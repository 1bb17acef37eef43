"""Real database servers as pods of the practice range, with ways to write to them and to ask what still holds them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from shlex import join

POSTGRESQL = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), Path("/usr/local/pgsql/bin"))


@dataclass(frozen=True)
class Server:
    """One server in one folder, on a port of its own. Commands run on this machine, where its pod runs too."""

    folder: Path
    port: int
    engine = ""
    parts = 1
    """Scripts that its quiescer makes of it."""
    ends_with_session = True
    """Whether a hold ends as soon as its session does; else the server's own timer ends it."""
    lease_in_server = ("", "")
    """The words of the quiescer that make the server's own timer the lease, and what they are without it."""

    def program(self) -> str | None:
        """The server's program, where it is installed."""
        raise NotImplementedError

    def script(self) -> str:
        """What its container runs."""
        raise NotImplementedError

    def options(self) -> dict[str, str]:
        """For its quiescer."""
        return {"host": "127.0.0.1", "port": str(self.port)}

    def make_ready(self) -> list[str]:
        """The command that makes what is written to; again and again until it succeeds."""
        raise NotImplementedError

    def fresh_write(self) -> list[str]:
        """A fresh client that ends with 0 when its writes, one to each part, were acknowledged."""
        raise NotImplementedError

    def writer(self) -> tuple[list[str], str]:
        """A client that stays, and the line that makes it write once and print one line."""
        raise NotImplementedError

    def holds(self) -> list[str] | None:
        """The command that prints 0 when no session of a hold is left; None when there is nothing to ask."""
        return None

    def as_user(self, user: str) -> str:
        """A shell prefix: servers refuse to run as root."""
        return f"setpriv --reuid={user} --regid={user} --init-groups -- " if os.geteuid() == 0 else ""


class Postgresql(Server):
    engine = "postgresql"
    parts = 2
    lease_in_server = ("set local idle_in_transaction_session_timeout = '${lease}s';", "")

    def program(self) -> str | None:
        return shutil.which("postgres", path=str(POSTGRESQL))

    def script(self) -> str:
        user, data, sockets = self.as_user("postgres"), self.folder / "data", self.folder / "sockets"
        return f"""mkdir -p {sockets}; [ -z "{user}" ] || chown -R postgres {self.folder}
          [ -d {data} ] || {user}{POSTGRESQL}/initdb -N -D {data} -U postgres --auth=trust >/dev/null || exit 1
          exec {user}{POSTGRESQL}/postgres -D {data} -k {sockets} -p {self.port} -c listen_addresses= \
            -c shared_buffers=16MB -c fsync=off -c log_min_messages=panic"""

    def options(self) -> dict[str, str]:
        return {"host": str(self.folder / "sockets"), "port": str(self.port)}

    def psql(self, database: str, *statements: str) -> list[str]:
        """A client that runs these statements."""
        words = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres"]
        words += ["-h", str(self.folder / "sockets"), "-p", str(self.port), "-d", database]
        return words + [word for statement in statements for word in ("-c", statement)]

    def make_ready(self) -> list[str]:
        first = join(self.psql("postgres", "create table if not exists notes (id serial, text text)"))
        there = join(self.psql("postgres", "select 'there' from pg_database where datname = 'shop'"))
        make = join(self.psql("postgres", "create database shop"))
        last = join(self.psql("shop", "create table if not exists orders (id serial primary key, text text)"))
        return ["sh", "-c", f'{first} && {{ [ -n "$({there})" ] || {make}; }} && {last}']

    def fresh_write(self) -> list[str]:
        return self.psql(
            "shop", "insert into orders (text) values ('x')", "\\c postgres", "insert into notes (text) values ('x')"
        )

    def writer(self) -> tuple[list[str], str]:
        return self.psql("shop"), "insert into orders (text) values ('x') returning id;\n"

    def holds(self) -> list[str] | None:
        return self.psql(
            "postgres",
            "select count(*) from pg_stat_activity a where application_name = 'refloat-hold' or exists (select from "
            "pg_locks l where l.pid = a.pid and l.mode = 'ExclusiveLock' and l.locktype = 'relation')",
        )

    def number(self, statement: str) -> int:
        """What a statement about the database shop gives."""
        done = subprocess.run(self.psql("shop", statement), capture_output=True, check=True, text=True)
        return int(done.stdout)


class Mariadb(Server):
    engine = "mariadb"
    lease_in_server = (", wait_timeout = $lease", "")

    def program(self) -> str | None:
        return shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

    def script(self) -> str:
        user, data = self.as_user("mysql"), self.folder / "data"
        return f"""export TMPDIR={self.folder}; [ -z "{user}" ] || chown -R mysql {self.folder}
          [ -d {data} ] || {user}mariadb-install-db --no-defaults --datadir={data} --skip-test-db \
            --auth-root-authentication-method=normal >/dev/null || exit 1
          exec {user}{self.program()} --no-defaults --datadir={data} --socket={self.folder}/s --port={self.port} \
            --pid-file={self.folder}/pid --bind-address=127.0.0.1 --innodb-buffer-pool-size=16M \
            --innodb-flush-log-at-trx-commit=2"""

    def _sql(self, *words: str) -> list[str]:
        return ["mariadb", "--no-defaults", "-u", "root", "-h", "127.0.0.1", "-P", str(self.port), "-B", "-N", *words]

    def make_ready(self) -> list[str]:
        text = "create database if not exists shop; create table if not exists shop.orders (text text) engine = innodb"
        return self._sql("-e", text)

    def fresh_write(self) -> list[str]:
        return self._sql("-e", "insert into shop.orders values ('x')")

    def writer(self) -> tuple[list[str], str]:
        return self._sql("-n"), "insert into shop.orders values ('x'); select 1;\n"

    def holds(self) -> list[str] | None:
        return self._sql("-e", "select ifnull(is_used_lock('refloat-hold'), 0)")


class Redis(Server):
    engine = "redis"
    ends_with_session = False
    lease_in_server = ("client pause ${lease}000 write", "client pause 600000 write")

    def program(self) -> str | None:
        return shutil.which("redis-server")

    def script(self) -> str:
        options = f"--port {self.port} --bind 127.0.0.1 --dir {self.folder} --appendonly yes --daemonize no"
        return f"exec {self.program()} {options} --loglevel warning"

    def _cli(self, *words: str) -> list[str]:
        return ["redis-cli", "-p", str(self.port), "-e", *words]

    def make_ready(self) -> list[str]:
        return self.fresh_write()

    def fresh_write(self) -> list[str]:
        return self._cli("incr", "orders")

    def writer(self) -> tuple[list[str], str]:
        return self._cli(), "incr orders\n"


SERVERS: dict[str, type[Server]] = {each.engine: each for each in (Postgresql, Mariadb, Redis)}


def free_port() -> int:
    """A port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
