"""What MySQL's and MariaDB's quiescers have in common: how to log in, to ask, to thaw and to confirm."""

from __future__ import annotations

from collections.abc import Mapping

from providers.quiescers.given import assigned, given_options, text_of
from refloat.errors import QuiesceFailed
from refloat.ports.quiescer import PRIMARY, REPLICA, Ask, HoldScript, Place

LOCK_SECONDS = 5
"""Who waits behind our wait for locks does not wait longer than this."""
OPTIONS = {"user", "host", "port", "socket"}
LOGGED_IN = 'login || { echo "$why" >&2; exit 1; }\n'
FOUND = "select concat_ws('|', 'found', version(), @@global.read_only, @@datadir);"
LIES = (
    "select concat_ws('|', 'lies', ifnull(@@innodb_data_home_dir, ''), ifnull(@@innodb_log_group_home_dir, ''), "
    "ifnull(@@innodb_undo_directory, ''));"
)
RESOLVED = """cd "$1" && shift && for each; do readlink -f "${each:-.}" || exit 1; done"""
# the lock's name tells the session; it may be gone before it is killed
THAW = """holder=$(asked "select ifnull(is_used_lock('refloat-hold'), 0);") || exit 1
[ "$holder" = 0 ] || asked "kill $holder;" || [ "$(asked "select ifnull(is_used_lock('refloat-hold'), 0);")" = 0 ]
"""
# a table of its own for a moment, not in the binary log; a read-only server acknowledges no write anyhow
CONFIRM = """case $(asked "select @@global.read_only;") in 1) exit 0 ;; 0) ;; *) exit 1 ;; esac
asked "set session lock_wait_timeout = 4, autocommit = 1, sql_log_bin = 0;
create table if not exists mysql.refloat_confirm (at datetime) engine = innodb;
insert into mysql.refloat_confirm values (now());
drop table mysql.refloat_confirm;"
"""


def server_of(engine: str, place: Place, options: Mapping[str, str], ask: Ask) -> tuple[str, bool, str]:
    """Version, whether it is read-only, and its data's folder.

    Raises:
        InvalidDocument: An option is unknown.
        QuiesceFailed: The container has no client, or the server did not let us in.
    """
    login = assigned(given_options(engine, options, OPTIONS)) + text_of("mysql_family.sh") + LOGGED_IN
    said = ask(("sh", "-c", f'{login}asked "$0"', FOUND))
    words = said.strip().split("|")
    if len(words) != 4 or words[0] != "found":
        raise QuiesceFailed(f"{engine} in {place} did not say which version it is: {said[:200]}")
    return words[1], words[2] == "1", words[3]


def lies_apart(engine: str, place: Place, options: Mapping[str, str], datadir: str, ask: Ask) -> bool:
    """Whether its files are on several volumes that are cut one after another: InnoDB writes pages and log however
    still its clients are held, and only one instant has both as they belong together.

    Raises:
        QuiesceFailed: It does not tell where its files are.
    """
    if place.is_one_instant or len(set(place.mounts.values())) < 2:
        return False
    login = assigned(given_options(engine, options, OPTIONS)) + text_of("mysql_family.sh") + LOGGED_IN
    said = ask(("sh", "-c", f'{login}asked "$0"', LIES)).strip()
    mark, *folders = said.split("|")
    if mark != "lies":
        raise QuiesceFailed(f"{engine} in {place} does not tell where its files are: {said[:200]}")
    paths = ask(("sh", "-c", RESOLVED, "refloat", datadir, ".", *folders)).splitlines()
    return len({place.claim_at(path) for path in paths}) > 1


def script_of(
    engine: str,
    method: str,
    options: Mapping[str, str],
    functions: str,
    *,
    is_replica: bool,
    is_apart: bool,
    settings: Mapping[str, str],
) -> HoldScript:
    """The one script of a server; ``functions`` brings freeze, ``settings`` the statement that ends it (unfreeze)."""
    if is_apart:
        method += "; but its pages are still written, its volumes are cut one after another, and so this"
    family, options = text_of("mysql_family.sh"), given_options(engine, options, OPTIONS)
    alone = assigned(options) + family + LOGGED_IN
    return HoldScript(
        engine=engine,
        method=method,
        stops_writes=not is_apart,
        ends_with="session",
        functions=functions + family,
        thaw=("sh", "-c", alone + THAW),
        confirm=("sh", "-c", alone + CONFIRM),
        settings={**options, **settings, "lock_seconds": str(LOCK_SECONDS)},
        rank=REPLICA if is_replica else PRIMARY,
    )
