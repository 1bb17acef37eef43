"""Quiescer of MariaDB: backup stage BLOCK_COMMIT, in one session that the server ends by itself when it idles.

https://mariadb.com/kb/en/backup-stage/ (commits wait, reads and open transactions go on; stages that are left out are
run through) and server-system-variables (wait_timeout ends an idle session, and its stage with it).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from providers.quiescers.given import is_image_of
from providers.quiescers.mysql_family import lies_apart, script_of, server_of
from refloat.errors import Unsupported
from refloat.ports.quiescer import Ask, HoldScript, Place

FREEZE = """freeze() {
  tell "backup stage start; backup stage block_commit;"
  on_disk
}
"""


class MariadbQuiescer:
    """One script: a stage is the whole server's."""

    engine = "mariadb"
    whole_by_one_cut = True

    def recognises(self, image: str) -> bool:
        """Images whose name begins with mariadb."""
        return is_image_of(image, "mariadb")

    def scripts(self, place: Place, options: Mapping[str, str], ask: Ask) -> Sequence[HoldScript]:
        """The server, from 10.4.1 on."""
        version, is_replica, datadir = server_of(self.engine, place, options, ask)
        numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
        if "mariadb" not in version.lower() or numbers < (10, 4, 1):
            raise Unsupported(
                f"the server in {place} is {version}, which has no backup stages",
                guidance="Say engine: mysql in its quiesce rule; that takes the global read lock.",
            )
        method = "backup stage BLOCK_COMMIT: every commit waits"
        settings = {"datadir": datadir, "unfreeze": "backup stage end;"}
        is_apart = lies_apart(self.engine, place, options, datadir, ask)
        return [
            script_of(self.engine, method, options, FREEZE, is_replica=is_replica, is_apart=is_apart, settings=settings)
        ]


def open_quiescer() -> MariadbQuiescer:
    """The entry point's factory."""
    return MariadbQuiescer()
