"""Pod logs: what a container has written, and what it goes on writing while somebody follows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import BinaryIO

from practice.controllers.kubelet import Kubelet
from practice.kinds import Object
from practice.refusal import Refusal

_LOOK_SECONDS = 0.03
_PIECE = 1 << 16


def container_of(pod: Object, query: Mapping[str, str]) -> str:
    """The container a request names, or the only one; 400 in the API server's words."""
    specs = [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]
    names, name = [spec["name"] for spec in specs], query.get("container", "")
    pod_name = pod["metadata"]["name"]
    if not name:
        if len(names) > 1:
            text = f"a container name must be specified for pod {pod_name}, choose one of: [{' '.join(names)}]"
            raise Refusal(400, text)
        return str(names[0])
    if name not in names:
        raise Refusal(400, f"container {name} is not valid for pod {pod_name}")
    return name


async def stream(kubelet: Kubelet, pod: Object, query: Mapping[str, str]) -> AsyncIterator[bytes]:
    """The log of one container, from its start or the last ``tailLines``; with ``follow`` until it ends."""
    name, previous = container_of(pod, query), query.get("previous") == "true"
    path, is_running = kubelet.log(pod, name, previous=previous)
    with path.open("rb") as log:
        if "tailLines" in query:
            _skip_to_tail(log, int(query["tailLines"]))
        left = int(query.get("limitBytes") or 0) or None
        while True:
            was_running = is_running()
            while piece := log.read(_PIECE if left is None else min(_PIECE, left)):
                yield piece
                left = None if left is None else left - len(piece)
                if left == 0:
                    return
            if query.get("follow") != "true" or not was_running:
                return
            await asyncio.sleep(_LOOK_SECONDS)


def _skip_to_tail(log: BinaryIO, lines: int) -> None:
    whole = log.read()
    kept = whole.splitlines(keepends=True)[-lines:] if lines else []
    log.seek(len(whole) - sum(map(len, kept)))
