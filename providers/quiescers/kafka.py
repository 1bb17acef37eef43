"""Quiescer of Kafka: what was acknowledged is put on disk, and its writes go on, since no broker can hold them back.

https://kafka.apache.org/documentation/#design_ha (a broker acknowledges from the page cache, without fsync; safety is
replication's) and #basic_ops: there is no command that makes a cluster stand still.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from providers.quiescers.given import given_options, is_image_of, text_of
from refloat.ports.quiescer import QUEUE, Ask, HoldScript, Place

OPTIONS = {"folder"}


class KafkaQuiescer:
    """One script, which stops no write: a point with it is never application-consistent."""

    engine = "kafka"
    whole_by_one_cut = False

    def recognises(self, image: str) -> bool:
        """Images whose name begins with kafka or cp-kafka, but for connectors and user interfaces."""
        return is_image_of(image, "kafka", "cp-kafka") and not any(word in image for word in ("connect", "-ui", "rest"))

    def scripts(self, place: Place, options: Mapping[str, str], ask: Ask) -> Sequence[HoldScript]:  # noqa: ARG002
        """The broker; ``folder`` is where its logs are, so that only that file system is synced."""
        return [
            HoldScript(
                engine=self.engine,
                method="a sync before the cut",
                stops_writes=False,
                ends_with="nothing",
                functions=text_of("unstopped.sh"),
                thaw=("true",),
                confirm=("true",),
                settings=given_options(self.engine, options, OPTIONS),
                rank=QUEUE,
            )
        ]


def open_quiescer() -> KafkaQuiescer:
    """The entry point's factory."""
    return KafkaQuiescer()
