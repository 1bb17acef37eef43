"""Quiescer by plain commands of the document: freeze, thaw, beat and confirm, for engines without a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from providers.quiescers.given import given_options, text_of
from refloat.errors import InvalidDocument
from refloat.ports.quiescer import Ask, HoldScript, Place

OPTIONS = {"freeze", "thaw", "confirm", "beat", "stopsWrites"}


class CommandsQuiescer:
    """One script. It never chooses itself: a document names it."""

    engine = "commands"
    whole_by_one_cut = False

    def recognises(self, image: str) -> bool:  # noqa: ARG002 - the contract's argument
        """No image."""
        return False

    def scripts(self, place: Place, options: Mapping[str, str], ask: Ask) -> Sequence[HoldScript]:  # noqa: ARG002
        """As the document says; the container is not asked.

        ``thaw`` must end with 0 also when nothing is held. ``beat`` fails when it is no longer held. ``stopsWrites``
        is the document's own word; nobody can look whether it is true.
        """
        given = given_options(self.engine, options, OPTIONS)
        missing = [name for name in ("freeze", "thaw", "confirm") if not given[name]]
        if missing:
            raise InvalidDocument(f"commands in {place}: the options lack {', '.join(missing)}")
        if given["stopsWrites"] not in ("", "true", "false"):
            raise InvalidDocument(f"commands in {place}: stopsWrites is true or false, not {given['stopsWrites']!r}")
        return [
            HoldScript(
                engine=self.engine,
                method="commands of the document",
                stops_writes=given["stopsWrites"] == "true",
                ends_with="watchdog",
                functions=text_of("commands.sh"),
                thaw=("sh", "-c", given["thaw"]),
                confirm=("timeout", "5", "sh", "-c", given["confirm"]),
                settings={f"{name}_command": given[name] for name in ("freeze", "thaw", "beat")},
            )
        ]


def open_quiescer() -> CommandsQuiescer:
    """The entry point's factory."""
    return CommandsQuiescer()
