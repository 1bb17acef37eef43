"""Watches: events of one collection, and waiting until an object is as wanted, across dropped connections."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from kube.kinds import Kind
from kube.transport import Transport, translate
from refloat.clock import Deadline, pause
from refloat.errors import Expired, NotReady, RefloatError, Retry

Object = dict[str, Any]
SLICE = timedelta(seconds=60)
"""One watch request lasts at most this long; a silent one is renewed."""


def events(
    transport: Transport,
    kind: Kind,
    namespace: str | None,
    *,
    labels: str = "",
    fields: str = "",
    timeout: timedelta,
    resource_version: str = "",
) -> Iterator[tuple[str, Object]]:
    """(type, object) as they come, for at most ``timeout``; ends early when the connection does.

    Raises:
        Expired: The resource version is too old (410): list again.
    """
    seconds = max(1, int(timeout.total_seconds()))
    query = {
        "watch": "true",
        "labelSelector": labels,
        "fieldSelector": fields,
        "timeoutSeconds": seconds,
        "resourceVersion": resource_version,
        "allowWatchBookmarks": "true",
    }
    for line in transport.lines(kind.path(namespace), query=query, read_seconds=seconds + 10):
        if not line.strip():
            continue
        event = json.loads(line)
        if event["type"] == "ERROR":
            status = event["object"]
            raise translate(int(status.get("code", 500)), json.dumps(status).encode(), f"watch {kind.name}")
        if event["type"] != "BOOKMARK":
            yield event["type"], event["object"]


def wait_until(
    transport: Transport,
    kind: Kind,
    namespace: str | None,
    name: str,
    until: Callable[[Object | None], bool],
    *,
    find: Callable[[], Object | None],
    timeout: timedelta,
    what: str,
) -> Object | None:
    """The object once ``until`` says yes of it; None stands for an absent object.

    Raises:
        NotReady: Not within ``timeout``; ``what`` says what was waited for.
    """
    deadline = Deadline.after(timeout)
    while True:
        seen = find()
        if until(seen):
            return seen
        version = seen["metadata"]["resourceVersion"] if seen else ""
        try:
            for change, obj in events(
                transport,
                kind,
                namespace,
                fields=f"metadata.name={name}",
                timeout=max(timedelta(seconds=1), min(SLICE, deadline.remaining)),
                resource_version=version,
            ):
                seen = None if change == "DELETED" else obj
                if until(seen):
                    return seen
                if deadline.is_over:
                    break
        except Expired:
            pass
        except RefloatError as passing:
            if passing.retry is Retry.NEVER:
                raise
        if deadline.is_over:
            raise NotReady(f"{what}: not within {timeout.total_seconds():.0f} s", name=name, namespace=namespace)
        pause(timedelta(milliseconds=50))
