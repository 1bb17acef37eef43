"""Quiescer of any pod: its control group is frozen by the node agent, where the operator has installed one.

For what has no recipe. Every process of the pod stands still, sidecars too, and its volumes are synced; the application
itself flushes nothing. So a point with it is what a power cut would leave at one instant common to all pods held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from providers.quiescers.given import assigned, given_options, text_of
from refloat.ports.quiescer import Ask, HoldScript, Place

LOOK = 'find_group || { echo "$why" >&2; exit 1; }; [ -w "$states" ] || { echo "$states is not there" >&2; exit 1; }\n'
CONFIRM = "find_group || exit 0; ! is_frozen\n"


class CgroupQuiescer:
    """One script, run by the agent of the pod's node. It never chooses itself: a document names it."""

    engine = "cgroup"
    whole_by_one_cut = False
    by_agent = True

    def recognises(self, image: str) -> bool:  # noqa: ARG002 - the contract's argument
        """No image."""
        return False

    def scripts(self, place: Place, options: Mapping[str, str], ask: Ask) -> Sequence[HoldScript]:
        """The pod, when the agent finds its control group."""
        given_options(self.engine, options, set())
        settings, functions = {"uid": place.uid}, text_of("cgroup.sh")
        alone = assigned(settings) + functions
        ask(("sh", "-c", alone + LOOK))
        return [
            HoldScript(
                engine=self.engine,
                method="no process of the pod runs",
                stops_writes=True,
                ends_with="watchdog",
                functions=functions,
                thaw=("sh", "-c", alone + "undo\n"),
                confirm=("sh", "-c", alone + CONFIRM),
                settings=settings,
            )
        ]


def open_quiescer() -> CgroupQuiescer:
    """The entry point's factory."""
    return CgroupQuiescer()
