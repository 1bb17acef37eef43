"""The `Quiescer` contract: how one kind of engine is made to hold still, in words its own container can run.

A quiescer writes no connection code. It gives shell functions, and the holder (`kube/holder.sh`) runs them inside the
container: arm → freeze → beat … → release. What thaws when everything else has died is given apart, as a command that
needs nothing: the janitor, `refloat thaw` and a person run that very command.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

CONTRACT_VERSION = 1
Ask = Callable[[Sequence[str]], str]
"""Runs one command in the container and gives its standard output; ``QuiesceFailed`` when it does not end with 0."""

ENTRY, WORKER, QUEUE, REPLICA, PRIMARY = 0, 10, 20, 30, 40
"""Ranks of the default order: lower ones freeze first and are released last."""


@dataclass(frozen=True)
class Place:
    """The container something is held in."""

    namespace: str
    pod: str
    uid: str
    container: str
    mounts: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Where the claims of the point are mounted in it: path → claim."""
    is_one_instant: bool = True
    """Whether all volumes are cut at one instant; else one after another, and some have what others lack."""

    def claim_at(self, path: str) -> str | None:
        """The claim that a path in the container lies on; None: on none of the point."""
        above = [mount for mount in self.mounts if path == mount or path.startswith(mount.rstrip("/") + "/")]
        return self.mounts[max(above, key=len)] if above else None

    def __str__(self) -> str:
        return f"{self.namespace}/{self.pod}"


@dataclass(frozen=True)
class HoldScript:
    """One thing to hold in a container: a server, or one database of it.

    ``functions`` defines the shell functions ``arm freeze beat release facts undo``, and ``between`` where there is
    ``cut_last``, in POSIX sh; ``kube/holder.sh`` says what each must do and what it may call.
    """

    engine: str
    method: str
    """For people: what holds the writes back, for example ``EXCLUSIVE locks on 12 tables of shop``."""
    stops_writes: bool
    """Whether the engine acknowledges no write while it is held. Only then can a point be application-consistent."""
    ends_with: Literal["session", "server", "watchdog", "nothing"]
    """What thaws first when refloat is gone: the engine's own session, its own timer, or only our watchdog."""
    functions: str = field(repr=False)
    thaw: tuple[str, ...]
    """Stand-alone and idempotent; ends with 0 also when nothing is held."""
    confirm: tuple[str, ...]
    """A fresh write over a fresh connection, ends with 0 when it went through; never waits longer than 5 s."""
    part: str = ""
    """Which part of the server, when it needs several scripts: a database's name."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Shell variables for the functions. Never a secret: passwords are read from the container's own environment."""
    rank: int | None = None
    """Its place in the default order; None: what its pod is to others decides (`kube/freezing_order.py`)."""
    cut_last: tuple[str, ...] = ()
    """Paths in the container whose volumes must be cut after all others, and after ``between`` has run; only where the
    cuts are not of one instant. Empty: there is no ``between``.
    """
    adds: Mapping[str, str] = field(default_factory=dict)
    """Files that the copy needs besides, by the word of ``between``'s answer that holds each, base64: the path in the
    container where a recovered server looks for it.
    """


class Quiescer(Protocol):
    """One way of making one engine hold still. Plug-ins add one by the entry point group ``refloat.quiescers``.

    One that has an attribute ``by_agent = True`` besides is asked, and holds, in the agent of the pod's node and not in
    the container (`kube/node_agent.py`).
    """

    engine: str
    """Its name in documents and certificates, and of its entry point."""
    whole_by_one_cut: bool
    """Whether one atomic cut of all its volumes is enough: the engine recovers from it as from a power cut."""

    def recognises(self, image: str) -> bool:
        """Whether containers of this image run the engine; by the last part of the image's name, tag aside."""
        ...

    def scripts(self, place: Place, options: Mapping[str, str], ask: Ask) -> Sequence[HoldScript]:
        """What to hold in this container, found by asking it; nothing is changed.

        Args:
            place: The container.
            options: Of the application's document; unknown ones are refused.
            ask: Runs a command in it.

        Raises:
            Unsupported: This engine, or this server as it is set up, cannot be held; it says what is right instead.
            QuiesceFailed: The container lacks a client, or the server did not answer.
            InvalidDocument: An option is unknown.
        """
        ...
