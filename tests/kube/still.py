"""A small engine that can be held, for tests of the hold itself: a process that writes all the time unless it may not.

It keeps every acknowledged write with the instant, on the clock `time.monotonic` reads, so that what really happened
is known without asking any certificate. It is held by a session's own lock, as PostgreSQL is, or by a pause that
expires in the server, as Redis is. Its folder is the working directory of its container.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kube.cluster import Cluster
from kube.held_part import HOLDER_BASES, PlannedPart, look
from refloat.ports.quiescer import PRIMARY, HoldScript, Place
from tests.contract.given import IMAGE, Object, run_pod, until_gone

Style = Literal["session", "server"]
HOLDER = b"refloat-hold"
"""What names a holder in its command line."""
FIRST_FACTS = "primary 1"

WRITER = """
import fcntl, os, signal, struct, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
gate = os.open("gate", os.O_RDWR | os.O_CREAT)
log = os.open("writes", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
if os.path.exists("paused"):
    os.unlink("paused")  # a server that starts is not paused
def paused():
    try:
        with open("paused") as pause, open("/proc/uptime") as uptime:
            return float(uptime.read().split()[0]) < float(pause.read().split()[0])
    except OSError:
        return False
while True:
    fcntl.flock(gate, fcntl.LOCK_SH)
    if not paused():
        os.write(log, struct.pack("<d", time.monotonic()))
    fcntl.flock(gate, fcntl.LOCK_UN)
    time.sleep(0.005)
"""

FACTS = """
facts() { read -r role timeline <facts; facts="role=$role timeline=$timeline"; }
"""
BY_SESSION = """
arm() {
  client sh -c 'echo $$ >locker; exec 9>>gate
    while read -r word; do case $word in
      lock) flock -w 5 9 || exit 1; echo locked ;;
      unlock) flock -u 9; echo unlocked ;;
      *) echo here ;;
    esac; done'
  tell who; hear here
}
freeze() { tell lock; hear locked; }
beat() { tell who; hear here; }
release() { tell unlock; hear unlocked; }
undo() { :; }
"""
BY_SERVER = """
arm() { :; }
pause() { now; until_=$((secs + lease)); echo "$until_ $token" >paused.new && mv paused.new paused; }
holds() {
  read -r is by <paused && [ "$is $by" = "$until_ $token" ] || { why="somebody ended the pause"; return 1; }
  now
  [ "$secs" -lt "$is" ] || { why="the pause expired"; return 1; }
}
freeze() { pause; flock -w 5 gate true || { why="a write does not end"; return 1; }; }
beat() { ends=$until_; holds && pause && { [ "$secs" -lt "$ends" ] || { why="the pause expired"; return 1; }; }; }
release() { holds && rm -f paused; }
undo() { read -r is by <paused; [ "$by" != "$token" ] || rm -f paused; }
"""
THAWS = {
    "session": 'read -r pid <locker; [ "$(readlink /proc/$pid/cwd)" != "$PWD" ] || kill -9 $pid; true',
    "server": "rm -f paused",
}
CONFIRM = """
was=$(stat -c %s writes)
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  [ "$(stat -c %s writes)" -gt "$was" ] && exit 0
  sleep 0.1
done
exit 1
"""


def script(style: Style, *, rank: int = PRIMARY) -> HoldScript:
    """How it is held."""
    return HoldScript(
        engine="writer",
        method={"session": "an exclusive lock of a session", "server": "a pause that expires in the server"}[style],
        stops_writes=True,
        ends_with=style,
        functions=(BY_SESSION if style == "session" else BY_SERVER) + FACTS,
        thaw=("sh", "-c", THAWS[style]),
        confirm=("sh", "-c", CONFIRM),
        rank=rank,
    )


@dataclass(frozen=True)
class Writer:
    """One such engine in a pod of its own; ``folder`` is on this machine, as pods of the practice range are."""

    cluster: Cluster
    namespace: str
    name: str
    folder: Path
    style: Style

    def start(self) -> None:
        """Create its pod and wait until it runs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tell(FIRST_FACTS)
        run_pod(self.cluster, self._pod())

    def replace(self) -> None:
        """Delete its pod at once and create another of the same name."""
        self.cluster.delete("Pod", self.name, self.namespace, grace_seconds=0)
        until_gone(self.cluster, "Pod", self.name, self.namespace)
        self.cluster.create(self._pod())

    def _pod(self) -> Object:
        mount = {"name": "here", "mountPath": "/here"}
        main = {
            "name": "main", "image": IMAGE, "workingDir": "/here", "volumeMounts": [mount],
            "command": ["python3", "-IS", "-c", WRITER],
        }  # fmt: skip
        volume = {"name": "here", "hostPath": {"path": str(self.folder)}}
        meta = {"name": self.name, "namespace": self.namespace}
        spec = {"containers": [main], "volumes": [volume], "terminationGracePeriodSeconds": 1}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}

    def planned(self, cluster: Cluster | None = None, *, rank: int = PRIMARY) -> PlannedPart:
        """As preflight would plan it."""
        found = self.cluster.get("Pod", self.name, self.namespace)
        place = Place(self.namespace, self.name, found["metadata"]["uid"], "main")
        before = look(cluster or self.cluster, place)
        assert before is not None
        return PlannedPart(place, script(self.style, rank=rank), before, rank)

    def tell(self, facts: str) -> None:
        """Set its role and timeline."""
        (self.folder / "facts.new").write_text(facts + "\n")
        (self.folder / "facts.new").replace(self.folder / "facts")

    @property
    def count(self) -> int:
        """Writes acknowledged so far."""
        log = self.folder / "writes"
        return log.stat().st_size // 8 if log.exists() else 0

    def writes_between(self, since: float, until: float) -> int:
        """How many were acknowledged between two instants of `time.monotonic`."""
        data = (self.folder / "writes").read_bytes()
        return sum(since < at < until for (at,) in struct.iter_unpack("<d", data[: len(data) // 8 * 8]))

    # --- its processes on this machine ---------------------------------------------------------------------------

    def processes(self) -> dict[int, bytes]:
        """Every process at work in its folder, with its command line; zombies have none and are left out."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if (entry / "cwd").readlink() == self.folder and (words := (entry / "cmdline").read_bytes()):
                        found[int(entry.name)] = words
                except OSError:
                    continue
        return found

    def server(self) -> list[int]:
        """The engine itself."""
        return [pid for pid, words in self.processes().items() if WRITER.encode() in words]

    def holders(self) -> list[int]:
        """Holders; a watchdog is a holder's child of the same command line."""
        return [pid for pid, of in self._shells().items() if of not in self._shells()]

    def watchdogs(self) -> list[int]:
        """Watchdogs."""
        shells = self._shells()
        return [pid for pid, of in shells.items() if of in shells]

    def client(self) -> int | None:
        """The process of the session that holds the lock, as the holder knows it."""
        return next(
            (pid for pid, words in self.processes().items() if b"exec 9>>gate" in words and HOLDER not in words), None
        )

    def _shells(self) -> dict[int, int]:
        shells = {}
        for pid, words in self.processes().items():
            if words.rstrip(b"\0").endswith(HOLDER):
                try:
                    shells[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
                except OSError:
                    continue
        return shells


def left_of(run: str) -> list[str]:
    """Folders of holders of a run, by the names of their tokens."""
    return [str(place) for base in HOLDER_BASES for place in Path(base).glob(f"refloat-{run}-*")]
