"""A pod held by its node's agent: planned, held, recorded and thawed there; without an agent it is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kube.cluster import Cluster
from kube.hold_plan import plan_hold
from kube.hold_record import planned_record
from kube.holding import held
from kube.node_agent import CONTAINER, LABEL, NAMESPACE, is_ready
from kube.thawing import thaw_part
from practice.range import PracticeRange
from refloat.application import Application, HoldRules, Member, Quiesce
from refloat.clock import now
from refloat.errors import QuiesceFailed, Unsupported
from refloat.inventory import Inventory, Pod
from tests.contract.given import STAYS, pod, run_pod
from tests.until import until

RULES = HoldRules()
APPLICATION = Application(
    name="shop", members=(Member(namespace="shop"),), quiesce=(Quiesce(selector="", engine="cgroup"),)
)


@dataclass
class Node:
    """A range with a pod, and files in the place of its control group."""

    cluster: Cluster
    inventory: Inventory
    groups: Path
    group: Path

    @property
    def state(self) -> str:
        """Of the group."""
        return (self.group / "freezer.state").read_text().strip()

    def start_agent(self, states: Path) -> None:
        """The agent of the pod's node."""
        self.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        key, _, value = LABEL.partition("=")
        agent = pod(NAMESPACE, "agent-x", STAYS)
        agent["metadata"]["labels"] = {key: value}
        agent["spec"]["nodeName"] = self.cluster.get("Pod", "app", "shop")["spec"]["nodeName"]
        agent["spec"]["containers"][0] |= {
            "name": CONTAINER,
            "env": [{"name": "CGROUPS", "value": str(self.groups)}, {"name": "STATES", "value": str(states)}],
        }
        run_pod(self.cluster, agent)
        until(lambda: is_ready(self.cluster.get("Pod", "agent-x", NAMESPACE)), "the agent is ready")


@pytest.fixture
def node(practice: PracticeRange, tmp_path: Path) -> Iterator[Node]:
    """One pod runs; the agent does not yet."""
    cluster = Cluster.open(kubeconfig=str(practice.kubeconfig))
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    made = run_pod(cluster, pod("shop", "app", STAYS))
    uid = made["metadata"]["uid"]
    group = tmp_path / f"groups/freezer/kubepods/pod{uid}"
    group.mkdir(parents=True)
    (group / "freezer.state").write_text("THAWED\n")
    seen = Pod("shop", "app", uid, "Running", {}, {}, ("main",), ("any",))
    yield Node(cluster, Inventory("shop", (), (), (seen,)), tmp_path / "groups", group)


def test_without_an_agent_it_is_refused_before_anything_is_touched(node: Node) -> None:
    """With what to do about it."""
    with pytest.raises(Unsupported, match="has no node agent that is ready") as refused:
        plan_hold(node.cluster, APPLICATION, node.inventory, group=True)
    assert "60-node-agent.yaml" in refused.value.guidance


def test_the_agent_holds_and_lets_go(node: Node, tmp_path: Path) -> None:
    """The holder runs in the agent's pod; the record says on which node, and whoever is the agent then thaws."""
    states = tmp_path / "states"
    states.mkdir()
    node.start_agent(states)
    plan = plan_hold(node.cluster, APPLICATION, node.inventory, group=True)
    (part,) = plan.parts
    assert (str(part.place), str(part.runs_in)) == ("shop/app", f"{NAMESPACE}/agent-x")
    assert f"kubectl exec -n {NAMESPACE} agent-x" in part.thaw_by_hand
    with held(node.cluster, plan.parts, RULES, run="run") as hold:
        assert (node.state, hold.is_whole) == ("FROZEN", True)
        assert len(list(states.iterdir())) == 1
    assert (node.state, list(states.iterdir())) == ("THAWED", [])
    assert hold.records[0].confirmed
    (node.group / "freezer.state").write_text("FROZEN\n")
    (place,) = planned_record("run", plan.parts, at=now(), over_after=RULES.hard_budget).parts
    assert thaw_part(node.cluster, place) == ("thawed", None)
    assert node.state == "THAWED"


def test_a_pod_whose_group_the_agent_does_not_find_is_refused(node: Node, tmp_path: Path) -> None:
    """Named, with its uid."""
    (tmp_path / "states").mkdir()
    node.start_agent(tmp_path / "states")
    node.group.rename(node.group.with_name("podother"))
    with pytest.raises(QuiesceFailed, match=f"no control group of pod {node.inventory.pods[0].uid}"):
        plan_hold(node.cluster, APPLICATION, node.inventory, group=True)
