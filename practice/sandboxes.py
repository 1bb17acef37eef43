"""Sandboxes: what runs of each pod on this machine, and how that reads as the pod's status."""

from __future__ import annotations

from dataclasses import dataclass, field

from practice.containers import Container
from practice.controllers.scheduler import set_condition
from practice.kinds import Object
from practice.store import stamp
from refloat.clock import Deadline


@dataclass
class Running:
    """One container of a pod, over all its restarts."""

    name: str
    group: int | None = None
    made: Container | None = None
    restarts: int = 0
    waiting: tuple[str, str] = ("ContainerCreating", "")
    started_at: str = ""
    ended: Object | None = None
    last: Object | None = None
    is_ready: bool = False
    next_start: Deadline | None = None
    probed: bool = False
    misses: int = 0
    """Readiness probes that failed one after the other."""
    sessions: set[int] = field(default_factory=set)
    """Process groups of exec sessions; they end with the container."""


@dataclass
class Sandbox:
    """One pod on this machine."""

    uid: str
    containers: dict[str, Running] = field(default_factory=dict)
    stopping: Deadline | None = None
    is_killed: bool = False
    deadline: Deadline | None = None
    """When the pod's activeDeadlineSeconds are over."""
    is_overdue: bool = False

    @property
    def is_alive(self) -> bool:
        """Whether any container runs."""
        return any(one.group is not None for one in self.containers.values())


def report(pod: Object, sandbox: Sandbox) -> None:
    """Write what is into the pod's status."""
    status = pod["status"]
    status |= {"hostIP": "127.0.0.1", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}
    status.setdefault("startTime", stamp())
    mains = _rows(sandbox, pod["spec"]["containers"])
    inits = _rows(sandbox, pod["spec"].get("initContainers") or [])
    status["containerStatuses"] = [_container_status(one, spec) for one, spec in mains]
    if inits:
        status["initContainerStatuses"] = [_container_status(one, spec) for one, spec in inits]
    status["phase"] = _phase(pod, [one for one, _ in mains], [one for one, _ in inits])
    if sandbox.is_overdue and not sandbox.is_alive:
        text = "Pod was active on the node longer than the specified deadline"
        status |= {"phase": "Failed", "reason": "DeadlineExceeded", "message": text}
    is_ready = all(one.is_ready for one, _ in mains)
    done = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(status["phase"])
    reason = done or ("" if is_ready else "ContainersNotReady")
    set_condition(pod, "Initialized", all(succeeded(one) for one, _ in inits))
    set_condition(pod, "ContainersReady", is_ready, reason)
    set_condition(pod, "Ready", is_ready, reason)


def _rows(sandbox: Sandbox, specs: list[Object]) -> list[tuple[Running, Object]]:
    return [(sandbox.containers.get(spec["name"]) or Running(spec["name"]), spec) for spec in specs]


def terminated(code: int, reason: str, message: str, started_at: str) -> Object:
    """The terminated state of a container."""
    ended = {"exitCode": code, "reason": reason, "startedAt": started_at, "finishedAt": stamp()}
    return ended | ({"message": message} if message else {}) | ({"signal": code - 128} if code > 128 else {})


def succeeded(running: Running) -> bool:
    """Whether the container's last end was a success."""
    return running.ended is not None and running.ended["exitCode"] == 0


def _phase(pod: Object, mains: list[Running], inits: list[Running]) -> str:
    policy = pod["spec"].get("restartPolicy", "Always")
    if any(_has_failed(one) for one in inits) and policy == "Never":
        return "Failed"
    if all(one.ended is not None and one.group is None for one in mains) and policy != "Always":
        if all(succeeded(one) for one in mains):
            return "Succeeded"
        if policy == "Never":
            return "Failed"
    started = any(one.group is not None or one.ended is not None for one in mains)
    return "Running" if started else "Pending"


def _has_failed(one: Running) -> bool:
    return one.ended is not None and one.ended["exitCode"] != 0


def _container_status(one: Running, spec: Object) -> Object:
    row: Object = {"name": one.name, "image": spec.get("image", ""), "imageID": "", "restartCount": one.restarts}
    row |= {"ready": one.is_ready and one.group is not None, "started": one.group is not None}
    row["lastState"] = {"terminated": one.last} if one.last else {}
    if one.group is not None:
        row["state"] = {"running": {"startedAt": one.started_at}}
        row["containerID"] = f"practice://{one.group}"
    elif one.ended is not None:
        restarting = one.next_start is not None and one.restarts > 0 and one.ended["exitCode"] != 0
        row["state"] = {"terminated": one.ended}
        if restarting and one.restarts >= 2:
            text = "back-off restarting failed container"
            row["state"] = {"waiting": {"reason": "CrashLoopBackOff", "message": text}}
            row["lastState"] = {"terminated": one.ended}
    else:
        row["state"] = {"waiting": {"reason": one.waiting[0]} | ({"message": one.waiting[1]} if one.waiting[1] else {})}
    return row
