"""A bench over the practice range: a pod that runs a real server, and holders in sessions as refloat opens them."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from kube.cluster import Cluster
from kube.held_part import READER, holder_text
from kube.hold_plan import asking
from kube.sessions import ExecSession, within
from refloat.clock import monotonic_seconds, pause
from refloat.ports.quiescer import HoldScript, Place, Quiescer
from tests.contract.given import run_pod

NAME = "refloat-hold"
HELD_FOLDERS = ("/dev/shm", "/tmp", "/run", "/var/tmp")


def groups(pod: str) -> dict[int, list[int]]:
    """The processes of the pod's holders by process group, whose leader is the holder's shell; zombies aside."""
    found: dict[int, list[int]] = {}
    ours: dict[int, bool] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, group, *_ = stat.read_text().rpartition(") ")[2].split()
            if state in "ZX":
                continue
            if int(group) not in ours or not ours[int(group)]:
                ours[int(group)] = is_of_holder(stat.parent, pod)
            if ours[int(group)]:
                found.setdefault(int(group), []).append(int(stat.parent.name))
    return found


def words_of(pid: int) -> list[str]:
    """The command line of a process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")


def is_of_holder(process: Path, pod: str) -> bool:
    """Whether a process is a shell of a holder of the pod: the holder itself, or its watchdog."""
    if NAME.encode() not in (process / "cmdline").read_bytes().split(b"\0"):
        return False
    return f"HOSTNAME={pod}".encode() in (process / "environ").read_bytes().split(b"\0")


@dataclass
class RangeHolder:
    """A holder in an exec session, and its process group."""

    session: ExecSession
    pod: str
    group: int

    def say(self, line: str) -> None:
        """One line."""
        self.session.say(line)

    def hear(self, seconds: float) -> str | None:
        """The next."""
        return self.session.hear(within(seconds))

    def close(self) -> None:
        """Leave the session."""
        self.session.close()

    def kill(self) -> None:
        """SIGKILL to the shell alone."""
        os.kill(self.group, signal.SIGKILL)

    def kill_watchdog(self) -> None:
        """SIGKILL to the watchdog alone: the shell's child that is a shell of this text as well."""
        watchdogs = [pid for pid in groups(self.pod)[self.group] if pid != self.group and NAME in words_of(pid)]
        assert len(watchdogs) == 1, f"the fault did not fire: {watchdogs} are watchdogs"
        os.kill(watchdogs[0], signal.SIGKILL)

    def stop(self, *, all_of_it: bool) -> None:
        """SIGSTOP, and it does stand still."""
        if all_of_it:
            os.killpg(self.group, signal.SIGSTOP)
        else:
            os.kill(self.group, signal.SIGSTOP)
        end = monotonic_seconds() + 2
        while (state := Path(f"/proc/{self.group}/stat").read_text().rpartition(") ")[2].split()[0]) != "T":
            assert monotonic_seconds() < end, f"the fault did not fire: the holder's shell is in state {state}"
            pause(timedelta(seconds=0.01))

    def discard(self) -> None:
        """Let go on what stands still; what has not ended by itself a few seconds later is killed."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.group, signal.SIGCONT)
            end = monotonic_seconds() + 6
            while self.group in groups(self.pod) and monotonic_seconds() < end:
                pause(timedelta(seconds=0.1))
            os.killpg(self.group, signal.SIGKILL)


@dataclass
class RangeBench:
    """One server as a pod of the practice range."""

    cluster: Cluster
    quiescer: Quiescer
    place: Place
    write: Callable[[], None]
    read: Callable[[], None]
    options: dict[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    blocked: Callable[[], AbstractContextManager[None]] | None = None
    own_seconds: float = 0.0
    folder: Path | None = None
    """Where the server keeps what it was told, for tests that look there."""
    env: dict[str, str] = field(default_factory=dict)
    """Of its own clients."""
    tokens: list[str] = field(default_factory=list)

    def ask(self, command: Sequence[str]) -> str:
        """As preflight asks."""
        return asking(self.cluster, self.place)(command)

    def run(self, command: Sequence[str]) -> int | None:
        """A command in the container."""
        place = self.place
        within_10_s = timedelta(seconds=10)
        ended = self.cluster.exec(place.namespace, place.pod, place.container, command, timeout=within_10_s)
        return ended.exit_code

    def hold(self, script: HoldScript, *, lease: timedelta, hard: timedelta) -> RangeHolder:
        """A holder, as refloat starts it."""
        place, token = self.place, f"test-{secrets.token_hex(4)}"
        self.tokens.append(token)
        before = set(groups(place.pod))
        session = self.cluster.session(place.namespace, place.pod, place.container, ("sh", "-c", READER, NAME))
        end = monotonic_seconds() + 5
        while not (new := set(groups(place.pod)) - before):
            assert monotonic_seconds() < end, "no holder's shell began"
            pause(timedelta(seconds=0.05))
        session.say(holder_text(script, token=token, lease=lease, hard=hard))
        session.say("#refloat-end")
        return RangeHolder(session, place.pod, new.pop())

    def in_the_way(self) -> AbstractContextManager[None] | None:
        """As the server's module says."""
        return self.blocked() if self.blocked else None

    def leftovers(self) -> Sequence[str]:
        """Processes of this pod's holders, and folders of this bench's tokens."""
        processes = [f"process {pid}" for pids in groups(self.place.pod).values() for pid in pids]
        folders = [Path(base, f"refloat-{token}") for base in HELD_FOLDERS for token in self.tokens]
        return processes + [str(folder) for folder in folders if folder.exists()]


def pod_of(cluster: Cluster, namespace: str, name: str, script: str, env: dict[str, str]) -> Place:
    """Start a server as the program of a pod."""
    container = {
        "name": "server",
        "image": f"{name}:1",
        "command": ["sh", "-c", script],
        "env": [{"name": key, "value": value} for key, value in env.items()],
    }
    spec = {"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": 5}
    obj = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec}
    return Place(namespace, name, run_pod(cluster, obj)["metadata"]["uid"], "server")
