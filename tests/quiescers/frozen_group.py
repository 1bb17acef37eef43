"""A control group of this machine with a server in it, frozen by a pod of the practice range in the agent's place."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kube.cluster import Cluster
from providers.quiescers import cgroup
from refloat.clock import pause
from tests.quiescers.range_bench import RangeBench, pod_of
from tests.quiescers.servers import free_port, until
from tests.until import LOOK

HIERARCHIES = {"cgroup-v1": Path("/sys/fs/cgroup/freezer"), "cgroup-v2": Path("/sys/fs/cgroup/unified")}
UNIFIED = Path("/sys/fs/cgroup")
IDLE = "trap 'exit 0' TERM; while :; do sleep 0.2; done"
SERVER = """import socketserver, sys
class Hello(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b"kept" + self.request.recv(1))
socketserver.TCPServer(("127.0.0.1", int(sys.argv[1])), Hello).serve_forever()
"""


def hierarchy(name: str) -> Path:
    """Where this machine has it; NOT RUN where it has none, or may not make groups."""
    found = HIERARCHIES[name]
    if name == "cgroup-v2" and (UNIFIED / "cgroup.controllers").exists():
        found = UNIFIED
    if os.geteuid() != 0 or not found.is_dir() or not os.access(found, os.W_OK):
        pytest.skip(f"NOT RUN: no {name} hierarchy that can be written")
    return found


@contextlib.contextmanager
def serving(group: Path, port: int) -> Iterator[None]:
    """A server in a group of its own, thawed and removed at the end."""
    group.mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", SERVER, str(port)]) as process:
        try:
            (group / "cgroup.procs").write_text(str(process.pid))
            yield
        finally:
            thawed = {"cgroup.freeze": "0", "freezer.state": "THAWED"}
            for name in thawed.keys() & {each.name for each in group.iterdir()}:
                (group / name).write_text(thawed[name])
            process.send_signal(signal.SIGKILL)
    until(lambda: not (group / "cgroup.procs").read_text(), "the group is empty")
    group.rmdir()


@contextlib.contextmanager
def a_group(cluster: Cluster, namespace: str, folder: Path, name: str) -> Iterator[RangeBench]:
    """The bench: a write is a word that the server answers."""
    above, port = hierarchy(name), free_port()
    states = folder / "states"
    states.mkdir()
    top = above / f"refloat-test-{os.getpid()}-{port}"
    place = pod_of(cluster, namespace, name, IDLE, {"CGROUPS": str(top), "STATES": str(states)})
    # as the cgroupfs driver names it, or systemd's
    flat = place.uid.replace("-", "_")
    group = top / (f"pod{place.uid}" if name == "cgroup-v1" else f"kubepods-besteffort-pod{flat}.slice")

    def write() -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as line:
            line.sendall(b"x")
            if line.recv(16) != b"keptx":
                raise RuntimeError("not kept")
        pause(LOOK)

    def answers() -> bool:
        write()
        return True

    with serving(group, port):
        until(answers, "the server answers")
        yield RangeBench(cluster, cgroup.open_quiescer(), place, write, read=lambda: None, folder=states)
    top.rmdir()
