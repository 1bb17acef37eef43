"""Quiescer of MySQL: the global read lock, and from 8.0 on the instance lock, in one session that ends when it idles.

https://dev.mysql.com/doc/refman/8.4/en/flush.html (FLUSH TABLES WITH READ LOCK: commits wait, reads go on) and
lock-instance-for-backup.html (no file is made, renamed or removed; data may still be written: it alone is no hold).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from providers.quiescers.given import is_image_of
from providers.quiescers.mysql_family import lies_apart, script_of, server_of
from refloat.ports.quiescer import Ask, HoldScript, Place

FREEZE = """freeze() {
  tell "$instance flush tables with read lock;"
  on_disk
}
"""


class MysqlQuiescer:
    """One script: the lock is the whole server's."""

    engine = "mysql"
    whole_by_one_cut = True

    def recognises(self, image: str) -> bool:
        """Images whose name begins with mysql or percona-server, but for those of its tools."""
        return is_image_of(image, "mysql", "percona-server", "percona-xtradb-cluster") and not any(
            word in image for word in ("mysql-shell", "mongodb")
        )

    def scripts(self, place: Place, options: Mapping[str, str], ask: Ask) -> Sequence[HoldScript]:
        """The server; an old MariaDB as well."""
        version, is_replica, datadir = server_of(self.engine, place, options, ask)
        major = version.partition(".")[0]
        has_instance_lock = major.isdecimal() and int(major) >= 8 and "mariadb" not in version.lower()
        settings = {
            "datadir": datadir,
            "instance": "lock instance for backup;" if has_instance_lock else "",
            "unfreeze": "unlock tables;" + (" unlock instance;" if has_instance_lock else ""),
        }
        method = "the global read lock: every commit waits"
        is_apart = lies_apart(self.engine, place, options, datadir, ask)
        return [
            script_of(self.engine, method, options, FREEZE, is_replica=is_replica, is_apart=is_apart, settings=settings)
        ]


def open_quiescer() -> MysqlQuiescer:
    """The entry point's factory."""
    return MysqlQuiescer()
