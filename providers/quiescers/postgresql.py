"""Quiescer of PostgreSQL: every table of every database is locked against writes, readers go on; or commits wait.

https://www.postgresql.org/docs/current/explicit-locking.html (EXCLUSIVE conflicts with ROW EXCLUSIVE, which every write
takes), runtime-config-client (idle_in_transaction_session_timeout: the server ends the session and its locks),
runtime-config-locks (how many locks there is room for), warm-standby (synchronous replication: which commits wait).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from shlex import quote

from providers.quiescers.given import assigned, given_options, is_image_of, text_of
from providers.quiescers.postgresql_backup import backup_of, in_backup_mode
from refloat.errors import InvalidDocument, QuiesceFailed, Unsupported
from refloat.ports.quiescer import PRIMARY, REPLICA, Ask, HoldScript, Place

LOCK_SECONDS = 5
"""Who waits behind our wait for locks does not wait longer than this."""
SETTINGS = {"lock_seconds": str(LOCK_SECONDS), "backup": ""}
OPTIONS = {"user", "host", "port", "database", "method"}
ROOM_SHARE = 0.8
"""Of the lock table, which the application's own locks need as well."""
# where images differ: the socket's folder, the superuser's name, and where the password lies
LOGIN = """export PGUSER="${user:-${PGUSER:-${POSTGRES_USER:-postgres}}}" PGPORT="${port:-${PGPORT:-5432}}"
[ -n "${PGPASSWORD:-}" ] || PGPASSWORD=${POSTGRES_PASSWORD:-$(cat "${POSTGRES_PASSWORD_FILE:-/nowhere}" 2>/dev/null)}
export PGPASSWORD PGCONNECT_TIMEOUT=5
for PGHOST in ${host:-${PGHOST:-/var/run/postgresql /tmp 127.0.0.1}}; do
  export PGHOST
  psql -X -q -A -t -d postgres -c 'select 1' >/dev/null 2>&1 && break
done
"""
DATABASES = (
    "select json_agg(json_build_object('name', datname, 'replica', pg_is_in_recovery(), 'checkpoint', "
    "(select rolsuper from pg_roles where rolname = current_user)) order by datname) "
    "from pg_database where datallowconn and not datistemplate"
)
SERVER = (
    "select json_build_object('version', current_setting('server_version_num')::int, "
    "'superuser', (select rolsuper from pg_roles where rolname = current_user), 'replica', pg_is_in_recovery(), "
    "'senders', current_setting('max_wal_senders')::int, 'commit', current_setting('synchronous_commit'), "
    "'fsync', current_setting('fsync')::bool, "
    "'others', (select count(*) from pg_db_role_setting, unnest(setconfig) each "
    "where each in ('synchronous_commit=off', 'synchronous_commit=local')), "
    "'room', current_setting('max_locks_per_transaction')::int * (current_setting('max_connections')::int "
    "+ current_setting('max_prepared_transactions')::int))"
)
TABLES = (
    "select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relkind in ('r', 'p') "
    "and c.relpersistence <> 't' and n.nspname not in ('pg_catalog', 'information_schema') "
    "and n.nspname not like 'pg_toast%'"
)
"""Those that `postgresql.sh` locks."""
COUNTED = """for database in "$@"; do psql -X -q -A -t -d "$database" -c "$0" || exit 1; done"""
COMMIT_FROM = 130000
"""The version from which a server tells what became of a transaction (pg_xact_status)."""
LONGEST = (
    "select format('process %s of user %s in %s has had a transaction open for %s s and holds a lock that writes "
    "take', a.pid, a.usename, a.datname, extract(epoch from now() - a.xact_start)::int) "
    "from pg_stat_activity a where a.xact_start < now() - interval '5 s' and exists (select from pg_locks l "
    "where l.pid = a.pid and l.locktype = 'relation' and l.granted "
    "and l.mode not in ('AccessShareLock', 'RowShareLock')) "
    "order by a.xact_start limit 1"
)
"""A lock on a table that keeps us from ours for longer than we wait; plain readers do not. Queries may hold secrets."""
# Our locks live and die with our session. The application's own, of whatever strength, are not ours to wait for.
CONFIRM = """psql -X -q -A -t -v ON_ERROR_STOP=1 -d "$database" -c "
  set statement_timeout = '5s';
  do \\$\\$ begin
    if current_setting('synchronous_standby_names') like '%refloat-hold:%' then
      raise exception 'commits are still made to wait by a hold of refloat';
    end if;
    if exists (select from pg_locks l join pg_stat_activity a using (pid) where a.application_name = 'refloat-hold'
        and a.datname = current_database() and l.locktype = 'relation' and l.mode = 'ExclusiveLock') then
      raise exception 'a hold of refloat is still under way in this database';
    end if;
    if not pg_is_in_recovery() then perform txid_current(); end if;
  end \\$\\$;"
"""
THAW = (
    'psql -X -q -A -t -d postgres -c "select pg_terminate_backend(pid) from pg_stat_activity '
    "where application_name = 'refloat-hold'\""
)


class PostgresqlQuiescer:
    """One script per database, since table locks are a database's own."""

    engine = "postgresql"
    whole_by_one_cut = True

    def recognises(self, image: str) -> bool:
        """Images whose name says so: postgres, postgresql, postgis, timescaledb, spilo, cloudnative-pg's."""
        return is_image_of(image, "postgres", "postgis", "timescaledb", "spilo", "pgvector", "cloudnative-pg")

    def scripts(self, place: Place, options: Mapping[str, str], ask: Ask) -> Sequence[HoldScript]:
        """All databases that take connections, templates aside; ``database`` chooses one."""
        settings = given_options(self.engine, options, OPTIONS)
        method = settings.pop("method")
        if method not in ("", "locks", "commits"):
            raise InvalidDocument(f"PostgreSQL in {place}: method is locks or commits, not {method!r}")
        del settings["database"]
        login = assigned(settings) + LOGIN
        said = ask(("sh", "-c", f'{login}exec psql -X -q -A -t -d postgres -c "$0"', DATABASES))
        try:
            found = json.loads(said)
        except ValueError as wrong:
            raise QuiesceFailed(f"PostgreSQL in {place} gave no list of databases: {said[:200]}") from wrong
        if in_the_way := ask(("sh", "-c", f'{login}exec psql -X -q -A -t -d postgres -c "$0"', LONGEST)).strip():
            raise QuiesceFailed(f"PostgreSQL in {place} cannot be held now: {in_the_way}", pod=str(place))
        chosen = [each for each in found if options.get("database") in (None, each["name"])]
        if not chosen:
            raise InvalidDocument(f"PostgreSQL in {place} has no database {options['database']!r}")
        functions = login + text_of("postgresql.sh")
        is_replica = bool(chosen[0]["replica"])
        if self._is_by_commits(place, method, [str(each["name"]) for each in chosen], login, ask):
            waiting = functions + text_of("postgresql-commits.sh")
            scripts = [self._waiting(settings, waiting, login, is_replica=is_replica)]
        else:
            scripts = [self._script(each, settings, functions, login) for each in chosen]
        if backup := backup_of(place, login, ask):
            scripts[0] = in_backup_mode(scripts[0], backup, is_replica=is_replica)
        return scripts

    def _is_by_commits(self, place: Place, method: str, databases: Sequence[str], login: str, ask: Ask) -> bool:
        """Whether commits are made to wait, since its tables are too many to be locked, or it was asked for.

        Raises:
            Unsupported: They cannot be made to wait; each reason is named.
        """
        server = json.loads(ask(("sh", "-c", f'{login}exec psql -X -q -A -t -d postgres -c "$0"', SERVER)))
        counted = ask(("sh", "-c", login + COUNTED, TABLES, *databases)) if not method else ""
        tables, room = sum(map(int, counted.split())), int(server["room"] * ROOM_SHARE)
        if method == "locks" or (not method and tables <= room):
            return False
        asked = "commits are to wait" if method else f"{tables} tables are more than can be locked ({room})"
        wrong = {
            "its user is no superuser": not server["superuser"],
            f"its version {server['version']} is older than 13": server["version"] < COMMIT_FROM,
            "max_wal_senders is 0": not server["senders"],
            f"synchronous_commit is {server['commit']} for the server": server["commit"] in ("off", "local"),
            "synchronous_commit is off or local for a database or a user": server["others"] > 0,
            "fsync is off": not server["fsync"],
        }
        if reasons := [reason for reason, is_so in wrong.items() if is_so and not server["replica"]]:
            raise Unsupported(
                f"PostgreSQL in {place}: {asked}, and its commits cannot be made to wait: {'; '.join(reasons)}",
                guidance="Raise max_locks_per_transaction and restart it, or put right what is named.",
            )
        return True

    def _waiting(self, settings: Mapping[str, str], functions: str, login: str, *, is_replica: bool) -> HoldScript:
        """One script for the whole server."""
        alone = f"database=postgres\n{login}"
        undo = alone + text_of("postgresql-commits.sh")
        return HoldScript(
            engine=self.engine,
            method="standby: acknowledges no write" if is_replica else "every commit waits for a standby there is not",
            stops_writes=True,
            ends_with="watchdog",
            functions=functions,
            thaw=("sh", "-c", f"{undo}undo\n"),
            confirm=("sh", "-c", alone + CONFIRM),
            settings={
                **settings,
                **SETTINGS,
                "database": "postgres",
                "checkpoint": "1",
            },
            rank=REPLICA if is_replica else PRIMARY,
        )

    def _script(
        self, database: Mapping[str, object], settings: Mapping[str, str], functions: str, login: str
    ) -> HoldScript:
        name, is_replica = str(database["name"]), bool(database["replica"])
        inside = f"database={quote(name)}\n{login}"
        return HoldScript(
            engine=self.engine,
            part=name,
            method="standby: acknowledges no write" if is_replica else f"EXCLUSIVE locks on every table of {name}",
            stops_writes=True,
            ends_with="session",
            functions=functions,
            thaw=("sh", "-c", login + THAW),
            confirm=("sh", "-c", inside + CONFIRM),
            settings={
                **settings,
                **SETTINGS,
                "database": name,
                "checkpoint": "1" if database["checkpoint"] else "",
            },
            rank=REPLICA if is_replica else PRIMARY,
        )


def open_quiescer() -> PostgresqlQuiescer:
    """The entry point's factory."""
    return PostgresqlQuiescer()
