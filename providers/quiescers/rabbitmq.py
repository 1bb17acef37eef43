"""Quiescer of RabbitMQ: where a document allows it, the node's application is stopped; else its writes go on.

https://www.rabbitmq.com/docs/backup (messages can be copied from a stopped node only; a restored node needs the same
name) and https://www.rabbitmq.com/docs/man/rabbitmqctl.8 (stop_app, start_app, eval). A look costs what rabbitmqctl
costs to start, half a second of a core; so one of them stays for the whole hold, and starts a process in the node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from providers.quiescers.given import given_options, is_image_of, text_of
from refloat.errors import InvalidDocument
from refloat.ports.quiescer import QUEUE, Ask, HoldScript, Place

OPTIONS = {"stop"}
LOOK = """command -v rabbitmqctl >/dev/null || { echo "rabbitmqctl is not in this container" >&2; exit 1; }
case $(ctl 15 "eval rabbit:is_running().") in *true*) ;; *) echo "the node does not run" >&2; exit 1 ;; esac
"""
CONFIRM = 'case $(ctl 5 "eval rabbit:is_running().") in *true*) ;; *) exit 1 ;; esac\n'


class RabbitmqQuiescer:
    """One script. To stop the node ends its clients' connections, which nobody may do unasked: ``stop: "true"``."""

    engine = "rabbitmq"
    whole_by_one_cut = False

    def recognises(self, image: str) -> bool:
        """Images whose name begins with rabbitmq."""
        return is_image_of(image, "rabbitmq")

    def scripts(self, place: Place, options: Mapping[str, str], ask: Ask) -> Sequence[HoldScript]:
        """The node, when it runs."""
        stop = given_options(self.engine, options, OPTIONS)["stop"]
        if stop not in ("", "true", "false"):
            raise InvalidDocument(f"rabbitmq in {place}: stop is true or false, not {stop!r}")
        functions = text_of("rabbitmq.sh")
        ask(("sh", "-c", functions + LOOK))
        if stop != "true":
            return [self._unstopped(functions)]
        return [
            HoldScript(
                engine=self.engine,
                method="stop_app: the node serves nobody",
                stops_writes=True,
                ends_with="server",
                functions=functions,
                thaw=("sh", "-c", functions + "undo\n"),
                confirm=("sh", "-c", functions + CONFIRM),
                rank=QUEUE,
            )
        ]

    def _unstopped(self, functions: str) -> HoldScript:
        return HoldScript(
            engine=self.engine,
            method='a sync before the cut, without the option stop: "true",',
            stops_writes=False,
            ends_with="nothing",
            functions=text_of("unstopped.sh"),
            thaw=("true",),
            confirm=("sh", "-c", functions + CONFIRM),
            rank=QUEUE,
        )


def open_quiescer() -> RabbitmqQuiescer:
    """The entry point's factory."""
    return RabbitmqQuiescer()
