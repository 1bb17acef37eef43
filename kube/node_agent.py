"""The node agent, as refloat finds it: the pod on a node that may freeze control groups there, if one is installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kube.cluster import Cluster
from refloat.errors import Unsupported
from refloat.ports.quiescer import Place

NAMESPACE = "refloat-agent"
"""Of its own: what it may touch on a node, refloat's other pods never may (deployments/manifests/optional)."""
LABEL = "app.kubernetes.io/name=refloat-agent"
CONTAINER = "agent"


def agent_on(cluster: Cluster, node: str) -> Place:
    """Where the agent of a node runs.

    Raises:
        Unsupported: There is none that is ready.
        ClusterError: Pods of its namespace may not be listed.
    """
    for pod in cluster.list("Pod", NAMESPACE, labels=LABEL):
        if pod["spec"].get("nodeName") == node and is_ready(pod):
            return Place(NAMESPACE, pod["metadata"]["name"], pod["metadata"]["uid"], CONTAINER)
    raise Unsupported(
        f"node {node} has no node agent that is ready, which alone can freeze a control group",
        guidance="Apply deployments/manifests/optional/60-node-agent.yaml if you allow that, or name another engine.",
    )


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether commands can be run in it, as the cluster knows."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    is_going = "deletionTimestamp" in pod["metadata"]
    return not is_going and any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
