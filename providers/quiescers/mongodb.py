"""Quiescer of MongoDB: fsyncLock until every lock that was counted is undone.

https://www.mongodb.com/docs/manual/reference/method/db.fsyncLock/ (counted, the server's, it outlives the connection;
a client that connects while it is locked may wait, so the one that unlocks has to be there before).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from providers.quiescers.given import assigned, given_options, is_image_of, text_of
from refloat.errors import QuiesceFailed, Unsupported
from refloat.ports.quiescer import PRIMARY, REPLICA, Ask, HoldScript, Place

OPTIONS = {"user", "host", "port"}
LOGGED_IN = 'login || { echo "$why" >&2; exit 1; }\n'
FOUND = "var h = db.hello(); print('found ' + h.isWritablePrimary + ' ' + (h.msg || 'mongod'));"
# a write of a collection that is not there changes nothing, and waits for the lock as all do; a secondary takes none
CONFIRM = (
    "if (db.hello().isWritablePrimary) { db.getSiblingDB('refloat').runCommand({delete: 'confirm', deletes: "
    "[{q: {_id: 0}, limit: 1}], maxTimeMS: 4000}); if (db.currentOp().fsyncLock) quit(1); }"
)


class MongodbQuiescer:
    """One script: the lock is the whole server's."""

    engine = "mongodb"
    whole_by_one_cut = True

    def recognises(self, image: str) -> bool:
        """Images whose name begins with mongo or percona-server-mongodb, but for its tools."""
        return is_image_of(image, "mongo", "percona-server-mongodb") and not any(
            w in image for w in ("express", "-tools")
        )

    def scripts(self, place: Place, options: Mapping[str, str], ask: Ask) -> Sequence[HoldScript]:
        """The server; one shard or member of a set is held by itself."""
        settings = given_options(self.engine, options, OPTIONS)
        functions = text_of("mongodb.sh")
        alone = assigned(settings) + functions + LOGGED_IN
        said = ask(("sh", "-c", f'{alone}once 15 "$0"', FOUND))
        words = said.rpartition("found ")[2].split()
        if len(words) != 2 or "found " not in said:
            raise QuiesceFailed(f"mongodb in {place} did not answer: {said[-200:].strip()}")
        if words[1] != "mongod":
            raise Unsupported(
                f"mongodb in {place} is a router (mongos), which holds no data", guidance="Hold its shards' members."
            )
        return [
            HoldScript(
                engine=self.engine,
                method="fsyncLock: every write waits",
                stops_writes=True,
                ends_with="watchdog",
                functions=functions,
                thaw=("sh", "-c", f'{alone}once 8 "$UNLOCK"\n'),
                confirm=("sh", "-c", f'{alone}once 5 "$0"', CONFIRM),
                settings=settings,
                rank=PRIMARY if words[0] == "true" else REPLICA,
            )
        ]


def open_quiescer() -> MongodbQuiescer:
    """The entry point's factory."""
    return MongodbQuiescer()
