"""Quiescer of etcd: it is healthy and who it was; its writes go on, since etcd has no way to hold them back.

https://etcd.io/docs/v3.5/op-guide/recovery/ (a copy of the data file alone may miss what is in the log: all of the data
folder must be in one cut) and learning/api_guarantees (what was acknowledged is durable).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from providers.quiescers.given import assigned, given_options, is_image_of, text_of
from refloat.errors import QuiesceFailed
from refloat.ports.quiescer import PRIMARY, Ask, HoldScript, Place

OPTIONS = {"endpoint"}
LOGGED_IN = 'login || { echo "$why" >&2; exit 1; }\n'
# a proposal of the cluster like every write, which changes nothing
CONFIRM = 'told del refloat-confirm >/dev/null || { echo "no write went through" >&2; exit 1; }\n'


class EtcdQuiescer:
    """One script, which stops no write; alone in its application, one cut is enough for it."""

    engine = "etcd"
    whole_by_one_cut = True

    def recognises(self, image: str) -> bool:
        """Images whose name begins with etcd."""
        return is_image_of(image, "etcd")

    def scripts(self, place: Place, options: Mapping[str, str], ask: Ask) -> Sequence[HoldScript]:
        """The member, when it answers and is healthy."""
        settings = given_options(self.engine, options, OPTIONS)
        functions = text_of("etcd.sh")
        alone = assigned(settings) + functions + LOGGED_IN
        said = ask(
            ("sh", "-c", alone + 'told endpoint health && told endpoint status --write-out=json || echo "failed"')
        )
        if "member_id" not in said:
            raise QuiesceFailed(f"etcd in {place} is not healthy: {said[-200:].strip()}")
        return [
            HoldScript(
                engine=self.engine,
                method="a look at its health",
                stops_writes=False,
                ends_with="nothing",
                rank=PRIMARY,
                functions=functions,
                thaw=("true",),
                confirm=("sh", "-c", alone + CONFIRM),
                settings=settings,
            )
        ]


def open_quiescer() -> EtcdQuiescer:
    """The entry point's factory."""
    return EtcdQuiescer()
