"""A quiescer that refuses: it is recognised so that nobody takes a copy of its files for a backup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from providers.quiescers.given import is_image_of
from refloat.errors import Unsupported
from refloat.ports.quiescer import Ask, HoldScript, Place


@dataclass(frozen=True)
class RefusedSearchEngine:
    """A search engine whose maker supports no restore from copies of its files."""

    engine: str
    name: str
    """As its maker writes it."""
    whole_by_one_cut: bool = False

    def recognises(self, image: str) -> bool:
        """Images whose name begins with the engine's, but for its dashboards."""
        return is_image_of(image, self.engine) and "dashboards" not in image

    def scripts(self, place: Place, options: Mapping[str, str], ask: Ask) -> Sequence[HoldScript]:  # noqa: ARG002
        """Never any.

        Raises:
            Unsupported: Always, with the right way.
        """
        raise Unsupported(
            f"{self.name} in {place} cannot be protected by volume snapshots: its maker supports no restore"
            " from copies of its files, which may lose data silently",
            guidance="Take its own snapshots (PUT _snapshot/REPOSITORY/NAME) and protect the volume of that repository;"
            " leave these pods' volumes out, or say engine: none in their quiesce rule and accept the label.",
        )
