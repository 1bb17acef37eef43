"""A hold on record with nobody around it: takes the application's lease, writes the hold down, holds, and says so.

Usage: python -m tests.e2e.recorded_hold KUBECONFIG FILE, a file with one Application. A line on standard input ends it.
It is a process of its own so that a test can stop and kill it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

from kube.application_lease import hold_application
from kube.cluster import Cluster
from kube.discovery import discover
from kube.hold_plan import plan_hold
from kube.holding import held
from refloat.application import Application
from refloat.recovery_point import new_id


def main(kubeconfig: str, file: str) -> int:
    """Hold until a line comes."""
    cluster, run = Cluster.open(kubeconfig=kubeconfig), new_id()
    application = Application.model_validate(yaml.safe_load(Path(file).read_text()))
    plan = plan_hold(cluster, application, discover(cluster, application), group=True)
    with hold_application(cluster, application.name, run) as lease:
        record = lease.record_hold(plan.parts, application.hold)
        with held(cluster, plan.parts, application.hold, run=run):
            print(json.dumps({"held": len(plan.parts), "over_after": record.over_after.total_seconds()}), flush=True)
            sys.stdin.readline()
        lease.hold_is_over()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:3]))
