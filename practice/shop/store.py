"""The shop's database, with nothing but the standard library: runs in its pod from a ConfigMap.

Usage: store.py serve | place COUNT | count | checkpoint. Orders are rows of SQLite below $DATA; each is first a
line of the journal below $JOURNAL, so that at any instant the journal is never behind the tables.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sqlite3
import sys
from pathlib import Path

DATA, JOURNAL = Path(os.environ["DATA"]), Path(os.environ["JOURNAL"])
PICTURES, PICTURE_BYTES = 12, 1 << 20


def tables() -> sqlite3.Connection:
    """The database, in WAL mode, every commit on disk."""
    connection = sqlite3.connect(DATA / "shop.db", timeout=30)
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=full")
    connection.execute("create table if not exists orders (id integer primary key, note text not null)")
    return connection


def serve() -> None:
    """Stock the shop once, then stay until asked to go."""
    stock = DATA / "pictures"
    if not stock.exists():
        new = DATA / "pictures.new"
        new.mkdir(exist_ok=True)
        for number in range(PICTURES):
            (new / f"{number:02d}.jpg").write_bytes(random.Random(number).randbytes(PICTURE_BYTES))
        tables().close()
        (JOURNAL / "orders.log").touch()
        new.rename(stock)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


def place(count: int) -> None:
    """Place orders: the journal's line first, then the row."""
    connection = tables()
    (last,) = connection.execute("select coalesce(max(id), 0) from orders").fetchone()
    with (JOURNAL / "orders.log").open("a") as journal:
        for number in range(last + 1, last + count + 1):
            note = hashlib.sha256(str(number).encode()).hexdigest()
            journal.write(f"{number} {note}\n")
            journal.flush()
            os.fsync(journal.fileno())
            with connection:
                connection.execute("insert into orders values (?, ?)", (number, note))
    connection.close()


def count() -> None:
    """Print orders, files, and one digest of all of them; fail when a row is missing from the journal."""
    rows = tables().execute("select id, note from orders order by id").fetchall()
    lines = (JOURNAL / "orders.log").read_text().splitlines()
    if [f"{number} {note}" for number, note in rows] != lines[: len(rows)]:
        sys.exit(f"{len(rows)} rows and {len(lines)} lines of the journal do not agree")
    digest, files = hashlib.sha256(json.dumps(rows).encode()), [*sorted((DATA / "pictures").iterdir())]
    for path in [*files, JOURNAL / "orders.log"]:
        digest.update(path.name.encode() + path.read_bytes())
    found = {"orders": len(rows), "journal": len(lines), "files": len(files) + 1, "digest": digest.hexdigest()}
    sys.stdout.write(json.dumps(found) + "\n")


def main(words: list[str]) -> None:
    """One command."""
    match words:
        case ["serve"]:
            serve()
        case ["place", number]:
            place(int(number))
        case ["count"]:
            count()
        case ["checkpoint"]:
            tables().execute("pragma wal_checkpoint(truncate)").fetchone()
        case _:
            sys.exit(str(__doc__))


if __name__ == "__main__":
    main(sys.argv[1:])
