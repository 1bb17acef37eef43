"""What can happen to a hold, one class each: how it is made to happen, proof that it did, how soon it must let go."""

from __future__ import annotations

import shlex
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from practice.access import Fault as RangeFault
from refloat.clock import monotonic_seconds, pause
from tests.torture.letting_go import Held, Lane, Probes, Victim, until

STEPS = (
    "armed", "freeze sent", "half held", "held", "cut begun", "cut seen", "second beat", "release sent",
)  # fmt: skip
SESSION_SECONDS = 2.0
THAW_SECONDS = timedelta(seconds=10)


@dataclass
class Scene:
    """A victim that stands at a step, what it holds, and the fresh writers."""

    lane: Lane
    victim: Victim
    held: Held
    run: str
    lease: float
    hard: float
    probes: Probes
    since: float
    """When the fault happened."""


class Happening:
    """Nothing happens: the hold is whole, and ends when it is told to."""

    breaks = False
    """Whether no certificate may say application-consistent afterwards."""
    breaks_sessions = True
    """Whether the victim cannot have ended its hold as it should, had it not been over."""
    is_slow_when_armed = False
    """Whether holders outlive it by ``UNFROZEN`` where nothing is frozen yet."""
    without_server_lease = False
    steps: tuple[str, ...] = STEPS
    is_for_sessions_only = False

    def inject(self, scene: Scene) -> None:
        """Make it happen, and see that it did; the victim goes on unless it cannot."""
        scene.victim.go_on()

    def limit(self, scene: Scene) -> float:
        """Seconds from the fault within which a fresh write must be acknowledged."""
        return 30.0

    def settle(self, scene: Scene) -> None:
        """What must be put right so that everybody ends, after the pod has been let go; here lies late proof, too."""

    def finish(self, scene: Scene) -> None:
        """Every holder has ended: what the victim may do now, and what of this machine is not a container's."""

    def lift(self) -> None:
        """However it went: what would outlast the run."""


class EndOfInput(Happening):
    """Its holder is told by the end of its input."""

    breaks = True

    def limit(self, scene: Scene) -> float:
        return SESSION_SECONDS


class Lapse(Happening):
    """Nobody tells anybody: the lease runs out."""

    breaks = True
    is_slow_when_armed = True

    def limit(self, scene: Scene) -> float:
        return scene.lease + 2


class Killed(EndOfInput):
    """SIGKILL of the process that holds."""

    def inject(self, scene: Scene) -> None:
        scene.victim.send(signal.SIGKILL)
        assert scene.victim.ended(10) == -signal.SIGKILL


class Stopped(Lapse):
    """SIGSTOP of the process that holds, for longer than the lease; then it goes on as if nothing had been."""

    def inject(self, scene: Scene) -> None:
        scene.victim.send(signal.SIGSTOP)
        until("the victim is stopped", lambda: scene.victim.is_stopped)

    def finish(self, scene: Scene) -> None:
        pause(timedelta(seconds=scene.since + scene.lease + 1 - monotonic_seconds()))
        assert scene.victim.is_stopped
        scene.victim.send(signal.SIGCONT)
        scene.victim.go_on()


class Blackholed(Lapse):
    """No byte comes through any more, and no end of a connection."""

    def inject(self, scene: Scene) -> None:
        scene.lane.wire.turn("blackhole")
        scene.victim.go_on()

    def finish(self, scene: Scene) -> None:
        assert scene.lane.wire.swallowed_bytes, "nothing was swallowed"
        scene.lane.wire.heal()


class Reset(EndOfInput):
    """Every connection is reset, the next ones too."""

    def inject(self, scene: Scene) -> None:
        scene.lane.wire.turn("reset")
        assert scene.lane.wire.cut, "no connection was reset"
        scene.victim.go_on()

    def finish(self, scene: Scene) -> None:
        scene.lane.wire.heal()


class Gone(Reset):
    """The API server is gone: connections are reset, new ones refused."""

    def inject(self, scene: Scene) -> None:
        scene.lane.wire.turn("gone")
        assert scene.lane.wire.cut, "no connection was cut"
        scene.victim.go_on()


class Refused(EndOfInput):
    """Connections are cut once, and the API server refuses every exec from then on: no release can be sent."""

    def __init__(self) -> None:
        self._refusal: RangeFault | None = None

    def inject(self, scene: Scene) -> None:
        path = f"/namespaces/{scene.lane.name}/pods/[^/]+/exec"
        self._refusal = scene.lane.practice.access.inject(RangeFault("answer", path, times=1 << 30, status=403))
        scene.lane.wire.turn("reset")
        assert scene.lane.wire.cut, "no connection was cut"
        scene.lane.wire.heal()
        scene.victim.go_on()

    def finish(self, scene: Scene) -> None:
        refusal = self._refusal
        if refusal is not None and self.is_asked_to_thaw(scene):
            until("an exec was refused", lambda: refusal.fired > 0)
        self.lift()

    def lift(self) -> None:
        if self._refusal is not None:
            self._refusal.times = 0

    def is_asked_to_thaw(self, scene: Scene) -> bool:
        """Before the freeze there is nothing to thaw."""
        return "freeze sent" in scene.victim.marks


class PodDeleted(Happening):
    """Its pod is deleted, and started again with the data that is there, before the next step is taken."""

    breaks = True
    breaks_sessions = False

    def inject(self, scene: Scene) -> None:
        lane = scene.lane
        before = lane.cluster.get("Pod", lane.name, lane.name)["metadata"]["uid"]
        lane.replace_pod()
        assert lane.cluster.get("Pod", lane.name, lane.name)["metadata"]["uid"] != before
        scene.victim.go_on()

    def finish(self, scene: Scene) -> None:
        remove_folders(scene)  # a container's own go with it


class ProcessKilled(Happening):
    """SIGKILL of one kind of process in the container."""

    breaks = True
    role = "client"
    steps = STEPS[:-1]
    """After the release was sent they end by themselves."""

    def inject(self, scene: Scene) -> None:
        scene.since = monotonic_seconds()
        killed = scene.held.send(signal.SIGKILL, self.role)
        assert killed >= len(scene.held.groups), f"{killed} of {len(scene.held.groups)} killed"
        until(f"no {self.role} is left", lambda: not scene.held.alive(self.role))
        scene.victim.go_on()

    def limit(self, scene: Scene) -> float:
        return SESSION_SECONDS


class ClientKilled(ProcessKilled):
    """The engine's own client."""


class HolderKilled(ProcessKilled):
    """The shell that holds: its client's input ends; where that is not enough, the lease runs out."""

    role = "holder"
    is_slow_when_armed = True

    def limit(self, scene: Scene) -> float:
        return SESSION_SECONDS if scene.lane.server.ends_with_session else scene.lease + 2


class WatchdogKilled(ProcessKilled):
    """Nobody watches any more, and nothing else is wrong."""

    breaks = False
    role = "watchdog"

    def limit(self, scene: Scene) -> float:
        return 30.0


class Overlong(Happening):
    """The victim lives and beats, and does not release: the hard limit ends the hold."""

    breaks = True
    steps = ("cut begun",)

    def inject(self, scene: Scene) -> None:
        scene.since = scene.victim.marks["freeze sent"]

    def limit(self, scene: Scene) -> float:
        return scene.hard + 2

    def finish(self, scene: Scene) -> None:
        assert monotonic_seconds() - scene.since >= scene.hard - 1
        scene.victim.go_on()


class Layer(Happening):
    """One layer of release alone, all the others stopped, killed or left out."""

    breaks = True
    steps = ("cut begun",)

    def stop(self, scene: Scene, *roles: str) -> None:
        """SIGSTOP of all that have these roles."""
        stopped = scene.held.send(signal.SIGSTOP, *roles)
        assert stopped >= len(scene.held.groups) * len(roles), f"{stopped} processes stopped"
        until(f"{roles} are stopped", lambda: scene.held.are_stopped(*roles))
        scene.since = monotonic_seconds()

    def settle(self, scene: Scene) -> None:
        scene.held.send(signal.SIGCONT)

    def finish(self, scene: Scene) -> None:
        scene.victim.go_on()


class SessionAlone(Layer):
    """Layer 1: holder and watchdog stopped, the client gone; the lock ends with its session."""

    is_for_sessions_only = True

    def inject(self, scene: Scene) -> None:
        self.stop(scene, "holder", "watchdog")
        assert scene.held.send(signal.SIGKILL, "client") >= len(scene.held.groups)

    def limit(self, scene: Scene) -> float:
        return SESSION_SECONDS


class ServerAlone(Layer):
    """Layer 2: holder, watchdog and client are stopped; the server ends what idles."""

    def inject(self, scene: Scene) -> None:
        self.stop(scene, "holder", "watchdog", "client")

    def limit(self, scene: Scene) -> float:
        return scene.lease + 2


class WatchdogAlone(Layer):
    """Layer 3: the server has no timer, the holder is stopped, the client waits for ever."""

    without_server_lease = True

    def inject(self, scene: Scene) -> None:
        self.stop(scene, "holder")

    def limit(self, scene: Scene) -> float:
        return scene.lease + 2

    def settle(self, scene: Scene) -> None:
        """The watchdog ends the holder, too."""


class HandAlone(Layer):
    """The command in the alert: no timer, holder or watchdog, the client alive and deaf. Shown to hold until then."""

    without_server_lease = True

    def inject(self, scene: Scene) -> None:
        self.stop(scene, "client")
        groups = len(scene.held.groups)
        assert scene.held.send(signal.SIGKILL, "watchdog") >= groups
        assert scene.held.send(signal.SIGKILL, "holder") >= groups
        pause(timedelta(seconds=scene.lease + 2))
        assert scene.probes.waits, "it was let go by something else"
        scene.since = monotonic_seconds()
        for command in scene.victim.thaw:
            words = shlex.split(command.partition(" -- ")[2])
            lane = scene.lane
            done = lane.cluster.exec(lane.name, lane.name, "main", words, timeout=THAW_SECONDS)
            assert done.exit_code == 0, f"{command}: {done}"

    def limit(self, scene: Scene) -> float:
        return SESSION_SECONDS

    def settle(self, scene: Scene) -> None:
        scene.held.send(signal.SIGKILL, "client")

    def finish(self, scene: Scene) -> None:
        remove_folders(scene)  # nobody was left to do it
        super().finish(scene)


def remove_folders(scene: Scene) -> None:
    """The holders' own, where all who could remove them were killed on purpose."""
    for folder in scene.lane.folders(scene.run):
        shutil.rmtree(folder)


FAULTS: Mapping[str, type[Happening]] = {
    "SIGKILL": Killed,
    "SIGSTOP": Stopped,
    "blackhole": Blackholed,
    "reset": Reset,
    "API server gone": Gone,
    "exec refused": Refused,
    "pod deleted": PodDeleted,
    "client killed": ClientKilled,
    "holder killed": HolderKilled,
    "watchdog killed": WatchdogKilled,
}
LAYERS: Mapping[str, type[Happening]] = {
    "session alone": SessionAlone,
    "server alone": ServerAlone,
    "watchdog alone": WatchdogAlone,
    "by hand alone": HandAlone,
    "hard limit": Overlong,
}
