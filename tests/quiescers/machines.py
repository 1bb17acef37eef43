"""What stands in for servers: a file system of our own, one real etcd, and rules enforced by small programs."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from kube.cluster import Cluster
from providers.quiescers import commands, etcd, filesystem, kafka, mongodb
from refloat.clock import pause
from refloat.ports.quiescer import Quiescer
from tests.quiescers.range_bench import RangeBench, pod_of
from tests.quiescers.servers import READ_SECONDS, client, free_port, program, until

PROGRAMS = Path(__file__).with_name("programs")
IDLE = "trap 'exit 0' TERM; while :; do sleep 0.2; done"
NAMESPACE = "quiescers"


def machine(
    cluster: Cluster, folder: Path, name: str, quiescer: Quiescer, is_held: Callable[[], bool], **given: dict[str, str]
) -> RangeBench:
    """A pod in which the programs are found first; a client's write waits while the state machine is held."""
    env = {"PATH": f"{PROGRAMS}:{os.environ['PATH']}", "STATE": str(folder), **given.get("env", {})}
    place = pod_of(cluster, NAMESPACE, f"{name}-{secrets.token_hex(2)}", IDLE, env)

    def write() -> None:
        while is_held():
            pause(timedelta(seconds=0.02))

    return RangeBench(cluster, quiescer, place, write, lambda: None, options=given.get("options", {}))


def a_mongodb(cluster: Cluster, folder: Path) -> RangeBench:
    """fsyncLock as a count; `programs/mongosh` runs the recipe's own JavaScript."""
    program("node")
    password, locks = secrets.token_hex(12), folder / "locks"
    (folder / "password").write_text(password)
    env = {"MONGO_INITDB_ROOT_USERNAME": "root", "MONGO_INITDB_ROOT_PASSWORD": password}

    def is_locked() -> bool:
        return locks.exists() and locks.read_text() != "0"

    bench = machine(cluster, folder, "mongodb", mongodb.open_quiescer(), is_locked, env=env)
    bench.secrets = (password,)
    return bench


def a_kafka(cluster: Cluster, folder: Path) -> RangeBench:
    """Nothing but a sync, which is real."""
    return machine(cluster, folder, "kafka", kafka.open_quiescer(), lambda: False, options={"folder": str(folder)})


def some_commands(cluster: Cluster, folder: Path) -> RangeBench:
    """Commands that make and remove a file; real ones."""
    file = folder / "held"
    options = {
        "freeze": f"touch {file}",
        "thaw": f"rm -f {file}",
        "confirm": f"test ! -e {file}",
        "beat": f"test -e {file}",
        "stopsWrites": "true",
    }
    return machine(cluster, folder, "commands", commands.open_quiescer(), file.exists, options=options)


def an_etcd(cluster: Cluster, folder: Path) -> RangeBench:
    """A real member."""
    server, here, peer = program("etcd"), free_port(), free_port()
    program("etcdctl")
    url, other = f"http://127.0.0.1:{here}", f"http://127.0.0.1:{peer}"
    script = f"""exec {server} --data-dir {folder}/data --listen-client-urls {url} --advertise-client-urls {url} \
  --listen-peer-urls {other} --initial-advertise-peer-urls {other} --initial-cluster default={other} \
  >{folder}/server.log 2>&1"""
    place = pod_of(cluster, NAMESPACE, "etcd", script, {})
    env = {"ETCDCTL_API": "3", "ETCDCTL_ENDPOINTS": url}
    until(lambda: client(["etcdctl", "endpoint", "health"], env, READ_SECONDS) or True, "etcd answers")
    return RangeBench(
        cluster,
        etcd.open_quiescer(),
        place,
        write=lambda: (client(["etcdctl", "put", "orders", "1"], env), None)[1],
        read=lambda: (client(["etcdctl", "get", "orders"], env, READ_SECONDS), None)[1],
        options={"endpoint": url},
    )


def a_filesystem(cluster: Cluster, folder: Path) -> RangeBench:
    """A real ext4 on a loop device, frozen by the real fsfreeze."""
    mount = folder / "mount"
    place = pod_of(cluster, NAMESPACE, "filesystem", IDLE, {})

    def write() -> None:
        """By a process that can be left where it is: a write to a frozen file system cannot be ended."""
        client(["dd", "if=/dev/zero", f"of={mount}/orders", "bs=1", "count=1", "conv=notrunc,fsync"], {})

    return RangeBench(
        cluster,
        filesystem.open_quiescer(),
        place,
        write=write,
        read=lambda: (client(["ls", str(mount)], {}, READ_SECONDS), None)[1],
        options={"mount": str(mount)},
    )


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """A file system of our own at ``mount``; NOT RUN where it cannot be mounted."""
    image, mount = folder / "image", folder / "mount"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(16 * 2**20)
    steps = (["mkfs.ext4", "-q", str(image)], ["mount", "-o", "loop", str(image), str(mount)])
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False) if shutil.which(step[0]) else None
        if done is None or done.returncode:
            pytest.skip(f"NOT RUN: {step[0]}: {done.stderr.strip() if done else 'not installed'}")
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "-u", str(mount)], capture_output=True, check=False)
        subprocess.run(["umount", str(mount)], capture_output=True, check=True)


MACHINES: dict[str, Callable[[Cluster, Path], RangeBench]] = {
    "commands": some_commands,
    "etcd": an_etcd,
    "filesystem": a_filesystem,
    "kafka": a_kafka,
    "mongodb": a_mongodb,
}
