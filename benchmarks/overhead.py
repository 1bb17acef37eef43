"""What a run costs beside its work: the `refloat` command on a practice range, a server up, less its steps' time.

Usage: python -m benchmarks.overhead [--rounds N]. Beside it, in the same run, a process that only imports Prefect: what
the machine makes of the least any such command must do.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic
from typing import Any

from cli.shop import Shop
from kube.cluster import Cluster
from practice.range import PracticeRange
from refloat.duration import parse_duration

PROGRAM = Path(sys.executable).with_name("refloat")
MOST_SECONDS = 3.0


def run(environment: dict[str, str], *words: str) -> tuple[float, Any]:
    """One command with JSON output: its seconds beside its steps, and its report."""
    begun = monotonic()
    done = subprocess.run([PROGRAM, *words, "-o", "json"], env=environment, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    steps = sum(parse_duration(each["duration"]).total_seconds() for each in report["steps"])
    return monotonic() - begun - steps, report


def main() -> None:
    """Protect and recover the practice shop several times; print medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    found: dict[str, list[float]] = {"protect": [], "recover": [], "import prefect": []}
    with (
        tempfile.TemporaryDirectory(prefix="refloat-bench-") as folder,
        PracticeRange(Path(folder) / "range") as practice,
    ):
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "REFLOAT_"))},
            "REFLOAT_HOME": f"{folder}/home",
            "REFLOAT_VAULT": f"file://{folder}/vault",
            "REFLOAT_PASSWORD": "benchmark",
            "KUBECONFIG": str(practice.kubeconfig),
        }
        subprocess.run([PROGRAM, "server", "start"], env=environment, check=True, stdout=subprocess.DEVNULL)
        try:
            Shop(Cluster.open(kubeconfig=str(practice.kubeconfig))).open()
            for number in range(rounds):
                found["protect"].append(run(environment, "protect", "shop", "-n", "shop")[0])
                words = ("recover", "shop", "--to-namespace", f"shop-{number}", "--yes")
                found["recover"].append(run(environment, *words)[0])
                begun = monotonic()
                subprocess.run([sys.executable, "-c", "import prefect"], check=True)
                found["import prefect"].append(monotonic() - begun)
        finally:
            subprocess.run([PROGRAM, "server", "stop"], env=environment, check=True, stdout=subprocess.DEVNULL)
    print(f"seconds beside the work (at most {MOST_SECONDS:.0f} is promised), median of {rounds} (range)")
    for what, values in found.items():
        print(f"{what:16}{statistics.median(values):6.2f} ({min(values):.2f}-{max(values):.2f})")


if __name__ == "__main__":
    main()
