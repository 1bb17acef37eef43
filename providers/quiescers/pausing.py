"""What Redis's and Valkey's quiescers share: CLIENT PAUSE … WRITE, and persistence made certain while it holds.

https://redis.io/docs/latest/commands/client-pause/ (6.2 and later: writes wait, reads go on, expiry and eviction stop;
a later end replaces an earlier one, never the other way round) and persistence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from providers.quiescers.given import assigned, given_options, is_image_of, text_of
from refloat.errors import QuiesceFailed, Unsupported
from refloat.ports.quiescer import PRIMARY, REPLICA, Ask, HoldScript, Place

SAVE_SECONDS = 5
OPTIONS = {"user", "host", "port"}
LOGGED_IN = 'login || { echo "$why" >&2; exit 1; }\n'
ASKED = """called info
for name in dir save replica-read-only; do
  echo "config:$name:$(called config get "$name" | sed -n 2p)"
done
"""
THAW = '[ "$(called client unpause)" = OK ]\n'
# a write that changes nothing; one for another node of a cluster is turned away before it could wait, PUBLISH is not
CONFIRM = """answer=$(called del refloat-confirm) || exit 1
case $answer in MOVED*) answer=$(called publish refloat-confirm 1) || exit 1 ;; esac
case $answer in 0 | [1-9]* | READONLY*) ;; *) echo "$answer" >&2; exit 1 ;; esac
"""


class PausingQuiescer:
    """One script: a pause is the whole server's. A cut alone may lack what was acknowledged last."""

    whole_by_one_cut = False

    def __init__(self, engine: str, *images: str) -> None:
        self.engine = engine
        self._images = images

    def recognises(self, image: str) -> bool:
        """By its image's name."""
        return is_image_of(image, *self._images)

    def scripts(self, place: Place, options: Mapping[str, str], ask: Ask) -> Sequence[HoldScript]:
        """The server, from 6.2 on, that keeps its data on disk."""
        options = given_options(self.engine, options, OPTIONS)
        functions = text_of("pausing.sh")
        alone = assigned(options) + functions + LOGGED_IN
        said = dict(re.findall(r"^((?:config:)?[\w-]+):(.*?)\r?$", ask(("sh", "-c", alone + ASKED)), re.MULTILINE))
        self._check(place, said)
        is_replica = said["role"] == "slave"
        acknowledges_none = is_replica and said.get("config:replica-read-only") == "yes"
        return [
            HoldScript(
                engine=self.engine,
                method="replica: acknowledges no write"
                if acknowledges_none
                else "CLIENT PAUSE WRITE: every write waits",
                stops_writes=True,
                ends_with="server",
                functions=functions,
                thaw=("sh", "-c", alone + THAW),
                confirm=("sh", "-c", alone + CONFIRM),
                settings={
                    **options,
                    "lock_seconds": str(SAVE_SECONDS),
                    "folder": said.get("config:dir") or "/",
                    "read_only_replica": "1" if acknowledges_none else "",
                },
                rank=REPLICA if is_replica else PRIMARY,
            )
        ]

    def _check(self, place: Place, said: Mapping[str, str]) -> None:
        version = said.get("redis_version", "")
        if not version or "role" not in said:
            raise QuiesceFailed(f"{self.engine} in {place} did not say which version it is")
        if tuple(int(number) for number in re.findall(r"\d+", version)[:2]) < (6, 2):
            raise Unsupported(
                f"{self.engine} {version} in {place} cannot make writes wait: CLIENT PAUSE WRITE came with 6.2",
                guidance="Upgrade it, or accept the label its cut alone has (engine: none in its quiesce rule).",
            )
        keeps_nothing = said.get("aof_enabled") == "0" and "config:save" in said and not said["config:save"]
        if keeps_nothing and said["role"] != "slave":
            raise Unsupported(
                f"{self.engine} in {place} keeps nothing on disk: appendonly is no, and there is no save rule",
                guidance="Turn appendonly on, or say engine: none in its quiesce rule when it is only a cache.",
            )
