"""One database server under a writer, one victim after the other that holds it, and the time until it was let go."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from kube.cluster import Cluster
from practice.range import PracticeRange
from refloat.clock import Deadline, monotonic_seconds, pause
from tests.contract.given import container, start, until_gone, until_phase
from tests.torture.servers import Server
from tests.torture.wire import Wire

ROOT = Path(__file__).parents[2]
LOOK = timedelta(milliseconds=50)
BLOCKED_SECONDS = 1.0
"""A write that takes longer waits for a hold; on a busy machine a fresh client's may take nearly as long by itself."""
PATIENCE_SECONDS = 60.0
BASES = ("/dev/shm", "/tmp", "/run", "/var/tmp")


def until(what: str, is_so: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    """Look again and again until it is so."""
    deadline = Deadline.after(timedelta(seconds=seconds))
    while not is_so():
        assert not deadline.is_over, f"not within {seconds:.0f} s: {what}"
        pause(LOOK)


@dataclass(frozen=True)
class Process:
    """One line of /proc; ``role`` is what it does for a hold."""

    pid: int
    parent: int
    group: int
    state: str
    words: str

    @property
    def role(self) -> str:
        """Of a member of a holder's process group."""
        if "refloat-hold" not in self.words:
            return "sleep" if self.words.startswith("sleep") else "client"
        return "holder" if self.pid == self.group else "watchdog"


def processes_of(pod: str) -> list[Process]:
    """What the exec sessions of a pod run by now, and what they left behind: members of holders' groups."""
    found: list[Process] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            if f"\0HOSTNAME={pod}\0" not in "\0" + (folder / "environ").read_text(errors="replace"):
                continue
            state, parent, group, *_ = (folder / "stat").read_text().rpartition(") ")[2].split()
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            found.append(Process(int(folder.name), int(parent), int(group), state, words))
    return [each for each in found if each.state not in "ZX"]


class Held:
    """The processes of one hold in its pod, by what they do."""

    def __init__(self, pod: str) -> None:
        self.pod = pod
        self.groups = {each.group for each in processes_of(pod) if "refloat-hold" in each.words}

    def alive(self, *roles: str) -> list[Process]:
        """Those of these roles that still live; of all roles when none is named."""
        return [p for p in processes_of(self.pod) if p.group in self.groups and (not roles or p.role in roles)]

    def send(self, number: signal.Signals, *roles: str) -> int:
        """Signal all of these roles, or everything there is; how many there were.

        A watchdog's child that was stopped just before it became ``sleep`` is one by the time all are to go on.
        """
        found = self.alive(*roles)
        for each in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each.pid, number)
        return len(found)

    def are_stopped(self, *roles: str) -> bool:
        """Whether all of these roles are."""
        return all(each.state == "T" for each in self.alive(*roles) if each.role != "sleep")


class Victim:
    """The process that holds; at the chosen step it waits."""

    def __init__(self, order: dict[str, Any], step: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.hold_victim"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._step, self._go = step, threading.Event()
        self.marks: dict[str, float] = {}
        self.thaw: list[str] = []
        self.end: dict[str, Any] | None = None
        self._say(json.dumps(order))
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            word, _, rest = line.strip().partition(" ")
            if word == "mark":
                step, _, seconds = rest.replace("-", " ").rpartition(" ")
                self.marks[step] = float(seconds)
                if step == self._step:
                    self._go.wait()
                self._say("go")
            elif word == "thaw":
                self.thaw = json.loads(rest)
            elif word == "end":
                self.end = json.loads(rest)

    def wait_for_step(self) -> None:
        """Until it stands at the step."""
        until(f"step {self._step}", lambda: self._step in self.marks or self._process.poll() is not None)
        assert self._step in self.marks, f"the victim ended before {self._step}: {self.end}"

    def go_on(self) -> None:
        """Let it leave the step."""
        self._go.set()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        """Signal it."""
        os.kill(self._process.pid, number)

    @property
    def is_stopped(self) -> bool:
        """Whether SIGSTOP has reached it."""
        return Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(") ")[2].startswith("T")

    def ended(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Its exit code, once it has ended and all it said was read."""
        code = self._process.wait(seconds)
        self._listener.join(10)
        return code

    def destroy(self) -> None:
        """Whatever it does now."""
        self._process.kill()
        self._process.wait()
        self._go.set()


@dataclass
class Probes:
    """Fresh clients that write one after the other from the fault on; each with its start and its end."""

    server: Server
    begun: float = field(default_factory=monotonic_seconds)
    seen: list[tuple[float, float, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._probe, daemon=True)
        self._thread.start()

    def _probe(self) -> None:
        while not self._over.is_set():
            began = monotonic_seconds()
            code = subprocess.run(self.server.fresh_write(), capture_output=True, check=False).returncode
            self.seen.append((began, monotonic_seconds(), code == 0))
            pause(LOOK, until=self._over)

    def stop(self) -> None:
        """Once a write that began from now on has gone through."""
        asked = monotonic_seconds()
        until("a fresh write", lambda: any(began >= asked and is_good for began, _, is_good in list(self.seen)))
        self._over.set()
        self._thread.join(PATIENCE_SECONDS)

    def acknowledged_at(self, since: float) -> float:
        """When the first one was acknowledged from an instant on, at which another client's write was: else then."""
        return next((ended for _, ended, is_good in self.seen if is_good and ended >= since), since)

    def told(self, since: float) -> str:
        """Every probe, for people: seconds since an instant of its start and end, and whether it was acknowledged."""
        return ", ".join(
            f"{a - since:.2f}-{b - since:.2f}{'' if is_good else ' failed'}" for a, b, is_good in self.seen
        )

    @property
    def waits(self) -> bool:
        """Whether one has been waiting for long enough that a hold must be what it waits for."""
        last = self.seen[-1][1] if self.seen else self.begun
        return monotonic_seconds() - last > 2 * BLOCKED_SECONDS


class Writer:
    """One client that writes as fast as it is acknowledged: ``sent`` and ``acks`` are the instants of each write."""

    def __init__(self, server: Server) -> None:
        self._server, self._over = server, threading.Event()
        self.sent: list[float] = []
        self.acks: list[float] = []
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def _write(self) -> None:
        argv, line = self._server.writer()
        while not self._over.is_set():
            client = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            with client, contextlib.suppress(OSError):
                assert client.stdin is not None and client.stdout is not None
                while not self._over.is_set():
                    asked = monotonic_seconds()
                    client.stdin.write(line.encode())
                    client.stdin.flush()
                    if not client.stdout.readline():
                        break
                    self.sent.append(asked)
                    self.acks.append(monotonic_seconds())
                    pause(timedelta(milliseconds=2), until=self._over)
                client.kill()
            pause(LOOK, until=self._over)

    def stop(self) -> None:
        """For good."""
        self._over.set()
        self._thread.join(PATIENCE_SECONDS)

    def last_wait_ended(self, since: float) -> float:
        """When the last time that it had to wait was over, if that was after an instant; else that instant."""
        acks = list(self.acks)
        waits = [after for before, after in pairwise(acks) if after - before > BLOCKED_SECONDS and after > since]
        return max([since, *waits])

    def between(self, began: float, ended: float) -> int:
        """How many writes were asked for and acknowledged then; one acknowledged before may have been read late."""
        return sum(began < sent and ack < ended for sent, ack in zip(self.sent, list(self.acks), strict=False))


class Lane:
    """A server in a pod of its own, a wire between it and its victims, and a writer."""

    def __init__(self, practice: PracticeRange, server: Server, name: str) -> None:
        self.practice, self.server, self.name = practice, server, name
        self.cluster = Cluster.open(kubeconfig=str(practice.kubeconfig))
        self.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        host, _, port = practice.server_url.rpartition("/")[2].partition(":")
        self.wire = Wire((host, int(port)))
        self.kubeconfig = practice.root / f"kubeconfig-{name}.yaml"
        text = practice.kubeconfig.read_text().replace(practice.server_url, self.wire.url)
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(text)

    def start_pod(self) -> None:
        """With the data that is there, as a controller would."""
        main = container(self.server.script())
        spec = {"containers": [main], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1}
        meta = {"name": self.name, "namespace": self.name}
        start(self.cluster, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
        until_phase(self.cluster, self.name, self.name, "Running")

    def replace_pod(self) -> None:
        """Delete it, see it gone, start it again."""
        self.cluster.delete("Pod", self.name, self.name)
        until_gone(self.cluster, "Pod", self.name, self.name)
        self.start_pod()

    @contextlib.contextmanager
    def serving(self) -> Iterator[Lane]:
        """While the block runs, the server serves and the writer writes."""
        with self.wire:
            self.start_pod()
            ready = self.server.make_ready()
            until(
                f"{self.server.engine} is ready",
                lambda: subprocess.run(ready, capture_output=True, check=False).returncode == 0,
            )
            self.writer = Writer(self.server)
            try:
                until("the first write", lambda: bool(self.writer.acks))
                yield self
            finally:
                self.writer.stop()

    def victim(self, step: str, run: str, rules: dict[str, str], cut_seconds: float, without: bool) -> Victim:
        """One that holds this server."""
        order = {
            "kubeconfig": str(self.kubeconfig),
            "namespace": self.name,
            "pod": self.name,
            "engine": self.server.engine,
            "options": self.server.options(),
            "run": run,
            "rules": rules,
            "cut_seconds": cut_seconds,
            "without": list(self.server.lease_in_server) if without else [],
        }
        return Victim(order, step)

    def folders(self, run: str) -> list[Path]:
        """What holders of this run left on this machine."""
        return [path for base in BASES for path in Path(base).glob(f"refloat-{run}-*")]

    def own_seconds(self) -> float:
        """What a fresh client's write takes while nothing is held."""
        begun = monotonic_seconds()
        subprocess.run(self.server.fresh_write(), capture_output=True, check=True)
        return monotonic_seconds() - begun

    def holds(self) -> int:
        """Sessions of a hold in the server; 0 where it can hold nothing beyond a connection's command."""
        asked = self.server.holds()
        if asked is None:
            return 0
        return int(subprocess.run(asked, capture_output=True, check=True, text=True).stdout.strip())
