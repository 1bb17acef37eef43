"""Quiescer of Cassandra: flush, and a snapshot of hard links that the cut takes along; it stops no write.

https://cassandra.apache.org/doc/latest/cassandra/managing/operating/backups.html (snapshots are one node's) and
configuration's commitlog_sync (what was acknowledged may be in memory only for 10 s). `drain` needs a restart: never.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from providers.quiescers.given import assigned, given_options, is_image_of, text_of
from refloat.ports.quiescer import PRIMARY, Ask, HoldScript, Place

OPTIONS = {"port", "user", "passwordFile"}
LOOK = 'command -v nodetool >/dev/null || { echo "nodetool is not in this container" >&2; exit 1; }\n'


class CassandraQuiescer:
    """One script, which stops no write: a point with it is never application-consistent."""

    engine = "cassandra"
    whole_by_one_cut = False

    def recognises(self, image: str) -> bool:
        """Images whose name begins with cassandra."""
        return is_image_of(image, "cassandra")

    def scripts(self, place: Place, options: Mapping[str, str], ask: Ask) -> Sequence[HoldScript]:  # noqa: ARG002
        """The node, when nodetool reaches it."""
        settings = given_options(self.engine, options, OPTIONS)
        functions = text_of("cassandra.sh")
        alone = assigned(settings) + functions
        ask(("sh", "-c", alone + LOOK + 'jmx 15 info || { echo "nodetool did not reach the node" >&2; exit 1; }\n'))
        return [
            HoldScript(
                engine=self.engine,
                method="nodetool snapshot",
                stops_writes=False,
                ends_with="watchdog",
                rank=PRIMARY,
                functions=functions,
                thaw=("sh", "-c", alone + "undo\n"),
                confirm=("sh", "-c", alone + "jmx 5 info\n"),
                settings=settings,
            )
        ]


def open_quiescer() -> CassandraQuiescer:
    """The entry point's factory."""
    return CassandraQuiescer()
