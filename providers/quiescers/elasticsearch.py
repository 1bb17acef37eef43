"""Quiescer of Elasticsearch: a refusal, since copies of its files cannot be restored, and its own snapshots can.

https://www.elastic.co/docs/deploy-manage/tools/snapshot-and-restore
(a copy of the data folders of running nodes is no backup: it may be corrupt, or lose data silently).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from providers.quiescers.given import is_image_of
from refloat.errors import Unsupported
from refloat.ports.quiescer import Ask, HoldScript, Place


class ElasticsearchQuiescer:
    """It is recognised in order to be refused."""

    engine = "elasticsearch"
    whole_by_one_cut = False

    def recognises(self, image: str) -> bool:
        """Images whose name begins with elasticsearch, but for its dashboards."""
        return is_image_of(image, "elasticsearch") and "dashboards" not in image

    def scripts(self, place: Place, options: Mapping[str, str], ask: Ask) -> Sequence[HoldScript]:  # noqa: ARG002
        """Never any.

        Raises:
            Unsupported: Always, with the right way.
        """
        raise Unsupported(
            f"Elasticsearch in {place} cannot be protected by volume snapshots: its maker supports no restore"
            " from copies of its files, which may lose data silently",
            guidance="Take its own snapshots (PUT _snapshot/REPOSITORY/NAME) and protect the volume of that repository;"
            " leave these pods' volumes out, or say engine: none in their quiesce rule and accept the label.",
        )


def open_quiescer() -> ElasticsearchQuiescer:
    """The entry point's factory."""
    return ElasticsearchQuiescer()
