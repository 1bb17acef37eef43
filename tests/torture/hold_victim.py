"""The victim: a process that plans and runs one real hold, and stops at every step until it is told to go on.

Standard input: its order as one line of JSON, then "go" for every mark. Output: "mark STEP SECONDS" (monotonic), and
at last "end" with what became of the hold, as JSON.
"""

from __future__ import annotations

import importlib
import json
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import websocket

from kube.cluster import SESSION_OPENS_WITHIN, Cluster
from kube.discovery import discover
from kube.exec import connect
from kube.held_part import PlannedPart, look
from kube.hold_plan import asking, plan_hold
from kube.holding import Hold, held
from kube.sessions import ExecSession
from refloat.application import Application, HoldRules
from refloat.certificate import Certificate, VolumeCut
from refloat.clock import Deadline, monotonic_seconds, now, pause
from refloat.errors import RefloatError
from refloat.ports.quiescer import HoldScript, Place
from refloat.values import Consistency
from refloat.verdict import judged


class Marks:
    """Counts what was said and heard over all parts, and stops at the steps that follow from it."""

    def __init__(self) -> None:
        self.parts = 0
        self.is_cut = False
        self._counts: dict[str, int] = {}
        self._guard, self._talking = threading.Lock(), threading.Lock()

    def stop_at(self, step: str) -> None:
        """Tell that the step is reached, and wait."""
        with self._talking:  # the beating thread may reach a step while the main one stands at another
            print("mark", step.replace(" ", "-"), monotonic_seconds(), flush=True)
            sys.stdin.readline()

    def count(self, event: str) -> None:
        """One part more; the step is reached with the last one."""
        with self._guard:
            number = self._counts[event] = self._counts.get(event, 0) + 1
            if event == "held" and number == 1 and self.parts > 1:
                self.stop_at("half held")
            if number == self.parts:
                self.stop_at(event)


class MarkedSession(ExecSession):
    """A session that is listened to."""

    def __init__(self, channel: websocket.WebSocket, what: str, marks: Marks) -> None:
        self._marks = marks
        super().__init__(channel, what)

    def say(self, text: str) -> None:
        super().say(text)
        if text in ("freeze", "release"):
            self._marks.count(f"{text} sent")

    def hear(self, deadline: Deadline) -> str | None:
        line = super().hear(deadline)
        words = (line or "").split()
        if words[2:3] == ["ARMED"]:
            self._marks.count("armed")
        elif words[2:4] == ["HELD", "0"]:
            self._marks.count("held")
        elif words[2:3] == ["HELD"] and self._marks.is_cut:
            self._marks.count("second beat")
        return line


class MarkedCluster(Cluster):
    """A cluster whose sessions are listened to."""

    marks: Marks

    def session(self, namespace: str, pod: str, container: str, command: Sequence[str]) -> ExecSession:
        url, what = self._exec_url(namespace, pod, container, command, stdin=True)
        return MarkedSession(connect(url, self._headers(), self._tls(), SESSION_OPENS_WITHIN, what), what, self.marks)


def plan(cluster: Cluster, order: dict[str, Any]) -> list[PlannedPart]:
    """As preflight does, for an application or for one server; on demand without the server's own timer."""
    if "application" in order:
        application = Application.model_validate(order["application"])
        return list(plan_hold(cluster, application, discover(cluster, application), group=True).parts)
    pod = cluster.get("Pod", order["pod"], order["namespace"])
    place = Place(order["namespace"], order["pod"], pod["metadata"]["uid"], "main")
    before = look(cluster, place)
    assert before is not None
    quiescer = importlib.import_module(f"providers.quiescers.{order['engine']}").open_quiescer()
    scripts: Sequence[HoldScript] = quiescer.scripts(place, order["options"], asking(cluster, place))
    if order["without"]:
        old, new = order["without"]
        assert all(old in script.functions for script in scripts), f"{order['engine']} has no {old!r} any more"
        scripts = [replace(script, functions=script.functions.replace(old, new)) for script in scripts]
    return [PlannedPart(place, script, before, script.rank) for script in scripts]


def certificate(hold: Hold, cut: dict[str, Any]) -> Certificate:
    """Of a cut of two volumes at one instant."""
    cuts = tuple(VolumeCut(namespace="n", claim=claim, cut_at=now()) for claim in ("data", "log"))
    facts = Certificate(verdict=Consistency.INCONSISTENT, group=True, cuts=cuts, parts=tuple(hold.records), **cut)
    return judged(facts)


def run(order: dict[str, Any]) -> dict[str, Any]:
    """The hold, and what became of it."""
    cluster = cast("MarkedCluster", MarkedCluster.open(kubeconfig=order["kubeconfig"]))
    cluster.marks = marks = Marks()
    planned = plan(cluster, order)
    marks.parts = len(planned)
    print("thaw", json.dumps([each.thaw_by_hand for each in planned]), flush=True)
    rules = HoldRules.model_validate(order["rules"])
    hold: Hold | None = None
    cut: dict[str, Any] = {}
    error = ""
    try:
        with held(cluster, planned, rules, run=order["run"]) as hold:
            marks.stop_at("cut begun")
            cut["cut_asked_at"] = hold.clock.instant()
            pause(timedelta(seconds=order["cut_seconds"]))
            cut["cut_seen_at"] = hold.clock.instant()
            marks.stop_at("cut seen")
            marks.is_cut = True
    except RefloatError as failure:
        error = f"{type(failure).__name__}: {failure.message}"
    found = certificate(hold, cut) if hold is not None and hold.records else None
    return {
        "error": error,
        "verdict": found.verdict.value if found else "none",
        "reasons": list(found.reasons) if found else [],
        "broken": [part.broken for part in found.parts] if found else [],
        "confirmed": [part.confirmed for part in found.parts] if found else [],
    }


def main(read: Callable[[], str] = sys.stdin.readline) -> None:
    """One order."""
    print("end", json.dumps(run(json.loads(read()))), flush=True)


if __name__ == "__main__":
    main()
