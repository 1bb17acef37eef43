"""A hold with nobody around it: plans the ledger's hold, holds until told to stop, and says every step.

Usage: python -m tests.e2e.holder_alone KUBECONFIG NAMESPACE. A line on standard input ends the hold. It is
a process of its own so that a test can kill it.
"""

from __future__ import annotations

import json
import sys

import yaml

from kube.cluster import Cluster
from kube.discovery import discover
from kube.hold_plan import plan_hold
from kube.holding import held
from refloat.application import Application
from refloat.errors import RefloatError
from tests.e2e.ledger import document


def say(word: str, **facts: object) -> None:
    """One line of JSON."""
    print(json.dumps({"step": word, **facts}), flush=True)


def main(kubeconfig: str, namespace: str) -> int:
    """Hold until a line comes."""
    cluster = Cluster.open(kubeconfig=kubeconfig)
    application = Application.model_validate(yaml.safe_load(document(namespace, "always")))
    plan = plan_hold(cluster, application, discover(cluster, application), group=True)
    say("planned", parts=[part.name for part in plan.parts])
    try:
        with held(cluster, plan.parts, application.hold, run="alone") as hold:
            say("held")
            sys.stdin.readline()
    except RefloatError as failure:
        say("failed", code=failure.code, message=failure.message)
        return failure.exit_code
    say("over", broken=[part.broken for part in hold.records if part.broken])
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:3]))
