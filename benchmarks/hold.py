"""How long a hold lasts whose cut takes a second, and how even it is: many pods, the real driver, writes all the while.

Usage: python -m benchmarks.hold [--rounds N] [--parts N] [--engines writer,postgresql,mariadb,redis] [--cut SECONDS]
[--json FILE] [--application FILE]. Pods of the practice range, whose servers are real; with --application the one of
that document on the cluster that REFLOAT_TEST_KUBECONFIG names, which is held but not cut. Storage that takes a second
is made up here: its cuts fall at random within that second. Beside it, what Velero 1.18.3 did on the lab.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import monotonic, sleep

import yaml

from benchmarks.machine import facts
from kube.cluster import Cluster
from kube.discovery import discover
from kube.held_part import PlannedPart
from kube.hold_plan import plan_hold
from kube.holding import held
from practice.range import PracticeRange
from refloat.application import Application, HoldRules, Member, Quiesce
from refloat.certificate import Certificate, VolumeCut
from refloat.values import Consistency
from refloat.verdict import judged
from tests.contract.given import container, pod, start, until_phase
from tests.kube.still import Writer
from tests.torture.letting_go import Writer as Client
from tests.torture.servers import SERVERS, free_port

NAMESPACE = "bench"
RULES = HoldRules(mode="always")
VELERO = (
    ("Velero 1.18.3, defaults", "5.1", "10343", "no: never all frozen at once"),
    ("Velero, early polling and 3 workers", "3.2", "1174", "no"),
    ("Velero, volume group", "600.5", "20", "yes, but it failed"),
    ("Velero, killed while frozen", "for ever", "-", "-"),
)
"""Three pods on the lab's three nodes (research/baselines.md §2): longest freeze of a pod in s, skew of cuts in ms."""
Between = Callable[[float, float], int]


@dataclass(frozen=True)
class Setup:
    """What is held, and how many writes it acknowledged between two instants; None: nobody counts."""

    cluster: Cluster
    parts: Sequence[PlannedPart]
    written: Between | None


@dataclass(frozen=True)
class Measured:
    """One hold, in seconds."""

    hold: float
    freeze: float
    skew: float
    """Of the freezes."""
    is_proven: bool
    written: int


@contextmanager
def on_range(engines: Sequence[str], count: int, folder: Path) -> Iterator[Setup]:
    """So many pods of these engines in turn, written to all the time."""
    with PracticeRange(folder / "range") as practice, ExitStack() as stack:
        cluster = Cluster.open(kubeconfig=str(practice.kubeconfig))
        cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        parts: list[PlannedPart] = []
        counters: list[Between] = []
        rules: list[Quiesce] = []
        for number in range(count):
            engine = engines[number % len(engines)]
            name = f"{engine}-{number}"
            if engine == "writer":
                writer = Writer(cluster, NAMESPACE, name, folder / name, "server" if number % 2 else "session")
                writer.start()
                parts.append(writer.planned())
                counters.append(writer.writes_between)
            else:
                rules.append(serve(cluster, engine, name, folder / name, stack, counters))
        if rules:
            app = Application(name="bench", members=(Member(namespace=NAMESPACE),), quiesce=tuple(rules), hold=RULES)
            parts += plan_hold(cluster, app, discover(cluster, app), group=True).parts
        yield Setup(cluster, parts, lambda since, until: sum(each(since, until) for each in counters))


def serve(cluster: Cluster, engine: str, name: str, folder: Path, stack: ExitStack, counters: list[Between]) -> Quiesce:
    """A real server in a pod, with a client that writes; how it is held."""
    folder.mkdir()
    folder.parent.chmod(0o755)  # servers do not run as root
    server = SERVERS[engine](folder, free_port())
    if server.program() is None:
        sys.exit(f"bench: {engine} is not installed here; choose --engines")
    made = pod(NAMESPACE, name, containers=[container(server.script())])
    made["metadata"]["labels"] = {"server": name}
    start(cluster, made)
    until_phase(cluster, name, NAMESPACE, "Running")
    limit = monotonic() + 180
    while subprocess.run(server.make_ready(), capture_output=True, check=False).returncode != 0:
        if monotonic() > limit:
            sys.exit(f"bench: {name} does not become ready")
        sleep(0.2)
    client = Client(server)
    stack.callback(client.stop)
    counters.append(client.between)
    return Quiesce(selector=f"server={name}", engine=engine, options=server.options())


@contextmanager
def on_cluster(document: Path) -> Iterator[Setup]:
    """An application of a real cluster, held as its document and its images say."""
    cluster = Cluster.open(kubeconfig=os.environ["REFLOAT_TEST_KUBECONFIG"])
    app = Application.model_validate(yaml.safe_load(document.read_text())).model_copy(update={"hold": RULES})
    plan = plan_hold(cluster, app, discover(cluster, app), group=True)
    for pod_ in plan.unheld:
        print(f"not held: {pod_.namespace}/{pod_.pod}: {pod_.reason}")
    yield Setup(cluster, plan.parts, None)


def hold_once(setup: Setup, cut_seconds: float, rng: random.Random) -> Measured:
    """One hold around one made-up cut."""
    with held(setup.cluster, setup.parts, RULES, run=f"bench-{secrets.token_hex(4)}") as hold:
        asked, began = hold.clock.instant(), monotonic()
        sleep(cut_seconds)
        ended, seen = monotonic(), hold.clock.instant()
    cuts = tuple(
        VolumeCut(
            namespace=part.place.namespace,
            claim=part.place.pod,
            cut_at=asked + timedelta(seconds=rng.uniform(0, cut_seconds)),
        )
        for part in setup.parts
    )
    found = judged(
        Certificate(
            verdict=Consistency.INCONSISTENT, cut_asked_at=asked, cut_seen_at=seen, cuts=cuts, parts=tuple(hold.records)
        )
    )
    first = min(part.freeze_sent_at for part in found.parts if part.freeze_sent_at)
    last = max(part.held_at for part in found.parts if part.held_at)
    released = min(part.release_sent_at for part in found.parts if part.release_sent_at)
    is_within = all(last <= cut.cut_at <= released for cut in cuts)
    return Measured(
        found.hold.total_seconds(),
        (last - first).total_seconds(),
        found.freeze_skew.total_seconds(),
        found.verdict is Consistency.APPLICATION and is_within,
        setup.written(began, ended) if setup.written else 0,
    )


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share does not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def show(found: Sequence[Measured], parts: int, cut_seconds: float) -> dict[str, object]:
    """Print the table; the numbers for JSON."""
    holds, skews = [each.hold for each in found], [each.skew for each in found]
    numbers: dict[str, object] = {
        "rounds": len(found),
        "parts": parts,
        "cut_seconds": cut_seconds,
        "hold_seconds": {"median": statistics.median(holds), "p99": quantile(holds, 0.99), "most": max(holds)},
        "first_freeze_to_last_held_seconds": {
            "median": statistics.median(each.freeze for each in found),
            "most": max(each.freeze for each in found),
        },
        "freeze_skew_seconds": {"median": statistics.median(skews), "p99": quantile(skews, 0.99), "most": max(skews)},
        "all_cuts_within_the_hold": sum(each.is_proven for each in found),
        "writes_while_cut": sum(each.written for each in found),
    }
    print(f"{parts} parts held over a cut of {cut_seconds:g} s, {len(found)} times")
    print(
        f"hold, s            median {statistics.median(holds):6.3f}  p99 {quantile(holds, 0.99):6.3f}  "
        f"most {max(holds):6.3f}"
    )
    print(
        f"freeze skew, ms    median {1000 * statistics.median(skews):6.1f}  p99 {1000 * quantile(skews, 0.99):6.1f}  "
        f"most {1000 * max(skews):6.1f}"
    )
    proven = sum(each.is_proven for each in found)
    print(f"all cuts within the common hold, proven: {proven} of {len(found)}")
    print(f"writes acknowledged while cut: {sum(each.written for each in found)}")
    print("\nmeasured on the lab, three pods              frozen, s   skew of cuts, ms   all within the hold")
    for name, frozen, skew, within in VELERO:
        print(f"{name:42}{frozen:>12}{skew:>19}   {within}")
    return numbers


def main() -> None:
    """Hold again and again, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--parts", type=int, default=6)
    parser.add_argument("--engines", default="writer")
    parser.add_argument("--cut", type=float, default=1.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--application", type=Path, metavar="FILE")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="refloat-bench-") as folder:
        place = (
            on_cluster(given.application)
            if given.application
            else on_range(given.engines.split(","), given.parts, Path(folder))
        )
        with place as setup:
            hold_once(setup, 0.1, random.Random(0))  # what is slow once only
            found = [hold_once(setup, given.cut, random.Random(number)) for number in range(given.rounds)]
            numbers = show(found, len(setup.parts), given.cut)
        if given.json:
            given.json.write_text(
                json.dumps({"machine": facts(Path(folder)), "engines": given.engines, **numbers}, indent=2) + "\n"
            )


if __name__ == "__main__":
    main()
