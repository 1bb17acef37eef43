"""The janitor's pod, from the shipped manifest and image, lets go of what nothing else is left to let go of."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from kube.cluster import Cluster
from kube.hold_record import HOLD
from kube.home import HOME, ensure_home
from kube.janitor import EVERY
from kube.marks import annotations_of
from kube.runs import LEASE
from kube.thawing import lease_of, name_of_lease
from refloat.errors import ObjectExists
from tests.e2e.command import Refloat
from tests.e2e.given import Site, environment
from tests.e2e.shop import make_namespace, remove_namespace
from tests.until import until

NAMESPACE, APPLICATION = "shop-e2e-janitor", "frozen"
MANIFEST = Path(__file__).parents[2] / "deployments/manifests/50-janitor.yaml"
SOON, LOOK = timedelta(seconds=10), timedelta(seconds=0.5)
READY_WITHIN = timedelta(minutes=2)
SLACK_SECONDS = 10.0
FLAG = "/dev/shm/frozen"
RULE = {"freeze": f"touch {FLAG}", "thaw": f"rm -f {FLAG}", "confirm": f"test ! -e {FLAG}", "stopsWrites": "true"}
# the word is put together here, so that this very shell is not one of those it looks for
KILL_HOLDERS = """word=refloat- word=${word}hold killed=0
for each in /proc/[0-9]*; do
  tr '\\0' ' ' <"$each/cmdline" 2>/dev/null | grep -q "$word" || continue
  kill -9 "${each#/proc/}" && killed=$((killed + 1))
done; echo $killed"""


def kind_of(obj: dict[str, Any]) -> str:
    """As the cluster names it."""
    group, slash, _ = obj["apiVersion"].partition("/")
    return f"{obj['kind']}.{group}" if slash else str(obj["kind"])


@pytest.fixture
def janitor(site_a: Site, refloat: Refloat) -> Iterator[Cluster]:
    """The shipped janitor, ready, with its right in the namespace; all of it is removed."""
    assert refloat
    image, cluster = environment("REFLOAT_E2E_JANITOR_IMAGE"), site_a.cluster
    made = [each for each in yaml.safe_load_all(MANIFEST.read_text()) if each]
    ensure_home(cluster)
    make_namespace(cluster, NAMESPACE)
    try:
        for obj in made:
            if obj["kind"] == "Deployment":
                obj["spec"]["template"]["spec"]["containers"][0]["image"] = image
            try:
                cluster.create(obj)
            except ObjectExists:
                continue
        cluster.create(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                "metadata": {"name": "refloat-janitor", "namespace": NAMESPACE},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "refloat-janitor"},
                "subjects": [{"kind": "ServiceAccount", "name": "janitor", "namespace": HOME}],
            }
        )  # fmt: skip
        cluster.wait(
            "Deployment.apps", "janitor", HOME,
            lambda obj: bool(obj and (obj.get("status") or {}).get("readyReplicas")),
            timeout=READY_WITHIN, what="the janitor is ready",
        )  # fmt: skip
        yield cluster
    finally:
        remove_namespace(cluster, NAMESPACE)
        for obj in reversed(made):
            cluster.delete(kind_of(obj), obj["metadata"]["name"], obj["metadata"].get("namespace"))
        cluster.delete(LEASE, name_of_lease(APPLICATION), HOME)


def sh(cluster: Cluster, script: str) -> str:
    """A shell script in the pod; it must succeed."""
    done = cluster.exec(NAMESPACE, "quiet", "main", ("sh", "-c", script), timeout=SOON)
    assert done.exit_code == 0, f"{script}: {done}"
    return done.stdout.decode().strip()


def is_frozen(cluster: Cluster) -> bool:
    """As its file system tells."""
    return sh(cluster, f"[ -e {FLAG} ] && echo yes || echo no") == "yes"


def test_the_janitor_is_enough(janitor: Cluster, site_a: Site, tmp_path: Path) -> None:
    """refloat, the holder and its watchdog are all killed: only the record on the lease and the janitor are left."""
    pod = {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "quiet", "namespace": NAMESPACE, "labels": {"app": "quiet"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
            "name": "main", "image": environment("REFLOAT_E2E_POSTGRES_IMAGE"), "command": ["sleep", "infinity"],
        }]},
    }  # fmt: skip
    janitor.create(pod)
    janitor.wait(
        "Pod", "quiet", NAMESPACE, lambda obj: bool(obj and obj["status"].get("phase") == "Running"),
        timeout=READY_WITHIN, what="the pod runs",
    )  # fmt: skip
    document = {
        "apiVersion": "refloat/v1", "kind": "Application", "name": APPLICATION,
        "members": [{"namespace": NAMESPACE}],
        "quiesce": [{"selector": "app=quiet", "engine": "commands", "options": RULE}],
        "hold": {"softBudget": "3s", "hardBudget": "5s", "lease": "5s"},
    }  # fmt: skip
    file = tmp_path / "application.yaml"
    file.write_text(yaml.safe_dump(document))
    words = (sys.executable, "-m", "tests.e2e.recorded_hold", site_a.kubeconfig, str(file))
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGSTOP)
        killed = int(sh(janitor, KILL_HOLDERS))
        process.kill()
    assert (said["held"], killed >= 2) == (1, True), f"the fault did not fire: {killed} processes killed"
    assert is_frozen(janitor), "something else has let go"
    # it may learn of the hold a turn late, and look again a turn after its time is over
    limit = timedelta(seconds=said["over_after"] + SLACK_SECONDS) + 2 * EVERY
    until(lambda: not is_frozen(janitor), "let go", limit, every=LOOK)
    until(
        lambda: HOLD not in annotations_of(lease_of(janitor, APPLICATION)), "the hold is off record", SOON, every=LOOK
    )
