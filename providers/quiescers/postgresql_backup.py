"""When PostgreSQL needs its backup mode: its files lie on several volumes, which are not cut at one instant.

https://www.postgresql.org/docs/current/continuous-archiving.html ("Making a Base Backup Using the Low Level API"): the
log from start to stop, `backup_label` and `tablespace_map` make whole what was copied between start and stop. Locks on
tables are not enough: the checkpointer, hint bits and new tables are written all the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from providers.quiescers.given import text_of
from refloat.errors import QuiesceFailed, Unsupported
from refloat.ports.quiescer import Ask, HoldScript, Place

LAYOUT = (
    "select json_build_object('data', current_setting('data_directory'), 'log', current_setting('wal_level'), "
    "'version', current_setting('server_version_num')::int, 'spaces', (select coalesce(json_agg(place), '[]') from "
    "(select pg_tablespace_location(oid) as place from pg_tablespace) places where place <> ''))"
)
RESOLVED = 'for each; do readlink -f "$each" || exit 1; done'
FIRST, RENAMED = 100000, 150000
"""Versions: from the first on a slot may be temporary, from the second on functions have their present names."""


@dataclass(frozen=True)
class Backup:
    """Where the server keeps its data and its log, and the function that begins a backup."""

    data: str
    log: str
    begins_with: str


def backup_of(place: Place, login: str, ask: Ask) -> Backup | None:
    """How the server is brought through several cuts; None: it lies on one volume, or all are cut at one instant.

    Raises:
        Unsupported: Part of it lies on no volume of the point, or it keeps too little log.
        QuiesceFailed: It does not tell where its files are.
    """
    if place.is_one_instant or len(set(place.mounts.values())) < 2:
        return None
    said = ask(("sh", "-c", f'{login}exec psql -X -q -A -t -d postgres -c "$0"', LAYOUT))
    try:
        layout = json.loads(said)
    except ValueError as wrong:
        raise QuiesceFailed(f"PostgreSQL in {place} does not tell where its files are: {said[:200]}") from wrong
    asked = (layout["data"], f"{layout['data']}/pg_wal", *layout["spaces"])
    paths = ask(("sh", "-c", RESOLVED, "refloat", *asked)).splitlines()
    claims = {path: place.claim_at(path) for path in paths}
    if outside := [path for path, claim in claims.items() if claim is None]:
        raise Unsupported(
            f"PostgreSQL in {place}: {', '.join(outside)} lies on no volume of the recovery point",
            guidance="Put it on a claim that the application includes: without it the server does not start again.",
        )
    many = len(set(claims.values()))
    if many < 2:
        return None
    if layout["version"] < FIRST or layout["log"] == "minimal":
        raise Unsupported(
            f"PostgreSQL in {place} lies on {many} volumes that are cut one after another, and has "
            f"no backup mode: version {layout['version']}, wal_level {layout['log']}",
            guidance="Give its driver a VolumeGroupSnapshotClass, or set wal_level to replica and restart it.",
        )
    data, log, *_ = paths
    return Backup(data, log, "pg_backup_start" if layout["version"] >= RENAMED else "pg_start_backup")


def in_backup_mode(script: HoldScript, backup: Backup, *, is_replica: bool) -> HoldScript:
    """The script of a server's first part, which carries the backup; a standby's cuts are not brought together."""
    if is_replica:
        return replace(
            script, stops_writes=False, method="a standby whose volumes are cut one after another: its replay goes on,"
        )
    return replace(
        script,
        method=f"{script.method}; in backup mode, for its volumes are cut one after another",
        functions=text_of("postgresql-backup.sh") + script.functions,
        settings={**script.settings, "backup": backup.begins_with},
        cut_last=(backup.log,),
        adds={"label": f"{backup.data}/backup_label", "map": f"{backup.data}/tablespace_map"},
    )
