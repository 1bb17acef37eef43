"""Quiescer of PostgreSQL: every table of every database is locked against writes, readers go on.

https://www.postgresql.org/docs/current/explicit-locking.html (EXCLUSIVE conflicts with ROW EXCLUSIVE, which every write
takes) and runtime-config-client (idle_in_transaction_session_timeout: the server ends the session and its locks).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from shlex import quote

from providers.quiescers.given import assigned, given_options, is_image_of, text_of
from refloat.errors import InvalidDocument, QuiesceFailed
from refloat.ports.quiescer import PRIMARY, REPLICA, Ask, HoldScript, Place

LOCK_SECONDS = 5
"""Who waits behind our wait for locks does not wait longer than this."""
OPTIONS = {"user", "host", "port", "database"}
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
        return [self._script(each, settings, functions, login) for each in chosen]

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
                "database": name,
                "lock_seconds": str(LOCK_SECONDS),
                "checkpoint": "1" if database["checkpoint"] else "",
            },
            rank=REPLICA if is_replica else PRIMARY,
        )


def open_quiescer() -> PostgresqlQuiescer:
    """The entry point's factory."""
    return PostgresqlQuiescer()
