"""One part of a hold, as refloat sees it: the conversation with one holder, and what is to be recorded of it."""

from __future__ import annotations

import threading
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.resources import files
from shlex import join, quote
from typing import Any, Literal

from kube.cluster import Cluster
from kube.sessions import ExecSession
from refloat.certificate import Beat, HeldPart, PodState
from refloat.clock import Deadline, monotonic_seconds, now
from refloat.errors import QuiesceFailed
from refloat.ports.quiescer import HoldScript, Place

# the holder comes over standard input: the text in a URL would be too long for some proxies
READER = """text=; while IFS= read -r line && [ "$line" != '#refloat-end' ]; do text="$text$line
"; done; eval "$text\""""
HOLDER_BASES = ("/dev/shm", "/tmp", "/run", "/var/tmp")
"""Where `kube/holder.sh` may have its folder, ``refloat-TOKEN``."""
SHOWN = 300
State = Literal["new", "armed", "held", "released", "broken"]


class OneClock:
    """Instants of one hold: the wall clock is read once, so that setting it meanwhile does not change any order."""

    def __init__(self) -> None:
        self._wall, self._begun = now(), monotonic_seconds()

    def instant(self) -> datetime:
        """The present one."""
        return self._wall + timedelta(seconds=monotonic_seconds() - self._begun)


@dataclass(frozen=True)
class AddedPath:
    """A place for a file that a copy needs besides: on a volume (``namespace/claim``), by its path on it."""

    volume: str
    path: str


@dataclass(frozen=True)
class PlannedPart:
    """What will be held where, found in preflight; ``before`` is the pod as it was then."""

    place: Place
    script: HoldScript
    before: PodState
    rank: int
    last: frozenset[str] = frozenset()
    """Volumes (``namespace/claim``) to be cut after the others."""
    adds: Mapping[str, AddedPath] = field(default_factory=dict)
    """By the word of the holder's answer between the cuts: where in the copy the file belongs."""
    agent: Place | None = None
    """The node agent that runs its commands and its holder; None: its own container does."""
    node: str = ""
    """The node of such a part."""

    @property
    def runs_in(self) -> Place:
        """Where its commands and its holder run."""
        return self.agent or self.place

    @property
    def name(self) -> str:
        """``namespace/pod``, with the part where there is one."""
        return f"{self.place}" + (f" ({self.script.part})" if self.script.part else "")

    @property
    def thaw_by_hand(self) -> str:
        """The command that lets this part go, for a person."""
        place = self.runs_in
        return f"kubectl exec -n {place.namespace} {place.pod} -c {place.container} -- {join(self.script.thaw)}"


@dataclass
class Part:
    """One planned part under way. One exchange at a time; the beating thread and the main one share it."""

    planned: PlannedPart
    clock: OneClock
    token: str = ""
    """Names the holder's folder in the container."""
    session: ExecSession | None = None
    state: State = "new"
    facts: Mapping[str, str] = field(default_factory=dict)
    facts_now: Mapping[str, str] = field(default_factory=dict)
    armed_at: datetime | None = None
    freeze_sent_at: datetime | None = None
    held_at: datetime | None = None
    release_sent_at: datetime | None = None
    released_at: datetime | None = None
    held_uptime_seconds: tuple[float, float] | None = None
    beats: list[Beat] = field(default_factory=list)
    broken: str | None = None
    confirmed: bool | None = None
    added: Mapping[AddedPath, bytes] = field(default_factory=dict)
    guard: threading.Lock = field(default_factory=threading.Lock)
    uptime: float = 0.0

    def arm(self, cluster: Cluster, text: str) -> None:
        """Open the session and hand the holder over; ``armed`` hears its answer."""
        place = self.planned.runs_in
        argv = ("sh", "-c", READER, "refloat-hold")
        self.session = cluster.session(place.namespace, place.pod, place.container, argv)
        self.session.say(text)
        self.session.say("#refloat-end")

    def armed(self, deadline: Deadline) -> None:
        """Wait for ARMED.

        Raises:
            QuiesceFailed: The holder could not arm, or did not say so in time.
        """
        words = self._answer("ARMED", deadline)
        self.armed_at, self.state = self.clock.instant(), "armed"
        self.facts = self.facts_now = facts_in(words)

    def freeze(self) -> None:
        """Send the freeze; ``frozen`` hears the answer."""
        self.freeze_sent_at = self.clock.instant()
        self._said("freeze")

    def frozen(self, deadline: Deadline) -> None:
        """Wait until it is held.

        Raises:
            QuiesceFailed: It could not be held; its holder has let go.
        """
        words = self._answer("HELD", deadline)
        self.held_at, self.state = self.clock.instant(), "held"
        self.facts_now = facts_in(words[1:])

    def beat(self, number: int) -> datetime:
        """Send one beat; ``beaten`` hears the answer."""
        sent = self.clock.instant()
        self._said(f"beat {number}")
        return sent

    def beaten(self, number: int, sent: datetime, deadline: Deadline) -> None:
        """Wait for the answer to a beat; without it the part is broken."""
        try:
            words = self._answer("HELD", deadline)
            if words[:1] != [str(number)]:
                raise QuiesceFailed(f"{self.planned.name} answered another beat: {words[:1]}")
        except QuiesceFailed:
            return
        self.facts_now = facts_in(words[1:])
        self.beats.append(
            Beat(number=number, sent_at=sent, answered_at=self.clock.instant(), uptime_seconds=self.uptime)
        )

    def between(self, deadline: Deadline) -> None:
        """Have the engine end what it began for the cuts so far, and keep the files it gives for the copy.

        Raises:
            QuiesceFailed: It could not, or what it gave cannot be read.
        """
        self._said("between")
        given = facts_in(self._answer("BETWEEN", deadline))
        try:
            self.added = {
                place: b64decode(given[word], validate=True)
                for word, place in self.planned.adds.items()
                if given.get(word)
            }
        except ValueError as wrong:
            raise self._fail(f"between the cuts it gave no file: {wrong}") from wrong

    def release(self) -> None:
        """Send the release; ``is_released`` hears the answer."""
        self.release_sent_at = self.clock.instant()
        self._said("release")

    def is_released(self, deadline: Deadline) -> bool:
        """Whether the holder says that it has let go, having held without a break."""
        try:
            words = self._answer("RELEASED", deadline)
        except QuiesceFailed:
            return False
        self.released_at, self.state = self.clock.instant(), "released"
        if len(words) == 2:
            self.held_uptime_seconds = (float(words[0]), float(words[1]))
        return True

    def close(self) -> None:
        """Leave the session, which is the last word to a holder that still holds."""
        if self.session is not None:
            self.session.close()

    def record(self, after: PodState | None) -> HeldPart:
        """What the certificate keeps."""
        planned, place = self.planned, self.planned.place
        return HeldPart(
            namespace=place.namespace,
            pod=place.pod,
            container=place.container,
            engine=planned.script.engine,
            part=planned.script.part,
            method=planned.script.method,
            stops_writes=planned.script.stops_writes,
            ends_with=planned.script.ends_with,
            before=planned.before.model_copy(update={"facts": dict(self.facts)}),
            after=after.model_copy(update={"facts": dict(self.facts_now)}) if after else None,
            armed_at=self.armed_at or self.clock.instant(),
            freeze_sent_at=self.freeze_sent_at,
            held_at=self.held_at,
            beats=tuple(self.beats),
            release_sent_at=self.release_sent_at,
            released_at=self.released_at,
            held_uptime_seconds=self.held_uptime_seconds,
            broken=self.broken,
            confirmed=self.confirmed,
        )

    def _said(self, line: str) -> None:
        if self.session is not None:
            self.session.say(line)

    def _answer(self, word: str, deadline: Deadline) -> list[str]:
        """The words after ``word`` in the holder's next line; anything else breaks the part."""
        while self.session is not None and (line := self.session.hear(deadline)) is not None:
            mark, _, rest = line.partition(" ")
            if mark != "refloat":
                continue  # an engine's client talks on
            uptime, _, rest = rest.partition(" ")
            said, _, rest = rest.partition(" ")
            self.uptime = float(uptime)
            if said == word:
                return rest.split()
            raise self._fail(f"{said.lower()}: {rest[:SHOWN]}")
        ended = self.session.ended if self.session else None
        if ended is None:
            raise self._fail("no answer in time")
        raise self._fail(ended.why or f"its holder ended with {ended.exit_code}, saying nothing")

    def _fail(self, why: str) -> QuiesceFailed:
        self.broken, self.state = self.broken or why, "broken"
        return QuiesceFailed(f"{self.planned.script.engine} in {self.planned.name}: {why}", pod=str(self.planned.place))


def holder_text(script: HoldScript, *, token: str, lease: timedelta, hard: timedelta) -> str:
    """What runs in the container: settings, the quiescer's functions, the holder."""
    settings = {
        **script.settings,
        "token": token,
        "lease": str(int(lease.total_seconds())),
        "hard": str(int(hard.total_seconds())),
    }
    given = "".join(f"{name}={quote(value)}\n" for name, value in settings.items())
    return given + script.functions + files(__package__).joinpath("holder.sh").read_text()


def facts_in(words: list[str]) -> dict[str, str]:
    """``KEY=VALUE`` words."""
    return {key: value for key, mark, value in (word.partition("=") for word in words) if mark}


def look(cluster: Cluster, place: Place) -> PodState | None:
    """The pod as it is now; None when it is gone."""
    pod = cluster.find("Pod", place.pod, place.namespace)
    if pod is None:
        return None
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    status: dict[str, Any] = next((each for each in statuses if each["name"] == place.container), {})
    running = (status.get("state") or {}).get("running") or {}
    return PodState(
        uid=pod["metadata"]["uid"],
        restarts=int(status.get("restartCount", 0)),
        started_at=str(running.get("startedAt") or ""),
    )
