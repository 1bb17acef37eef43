"""One instant for copies: the processes that use a set of volumes stand still while these are copied."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from practice.controllers.kubelet import Kubelet
from practice.controllers.scheduler import claim_names
from practice.processes import send
from practice.store import Store


@contextlib.contextmanager
def standing_still(store: Store, kubelet: Kubelet, claims: set[tuple[str, str]]) -> Iterator[None]:
    """SIGSTOP every pod that mounts one of the (namespace, claim)s, and SIGCONT them at the end, whatever happens."""
    groups: list[int] = []
    for pod in store.list("pods"):
        namespace = pod["metadata"]["namespace"]
        if any((namespace, name) in claims for name in claim_names(pod)):
            groups += kubelet.groups(pod["metadata"]["uid"])
    try:
        for group in groups:
            send(group, signal.SIGSTOP)
        _wait_stopped(set(groups))
        yield
    finally:
        for group in groups:
            send(group, signal.SIGCONT)


def _wait_stopped(groups: set[int]) -> None:
    """Until the kernel shows every process of the groups stopped (proc(5) stat: state, pgrp); at most one second."""
    ends = time.monotonic() + 1.0
    while groups and time.monotonic() < ends:
        moving = False
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError, ValueError):
                state, _, group = stat.read_text().rpartition(") ")[2].split()[:3]
                moving = moving or (int(group) in groups and state not in "TtZX")
        if not moving:
            return
        time.sleep(0.001)
