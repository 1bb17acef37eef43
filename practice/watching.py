"""Watches: what happened to a kind since a resource version, as a stream that ends on time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from practice.kinds import Object
from practice.refusal import Refusal
from practice.store import Event, Store
from practice.verbs import Request

_BOOKMARK_SECONDS = 10.0


def since(store: Store, request: Request) -> tuple[list[Object], int]:
    """The first events of a watch and the version they reach; nothing can fall between (the store is locked).

    Without a version (or with ``0``) every present object is ``ADDED`` first. A version older than the history is
    answered with an ``ERROR`` event holding 410 Expired.
    """
    text, wanted = request.query.get("resourceVersion", ""), request.matcher()
    with store.lock:
        if text in ("", "0"):
            present = store.list(request.resource.key, request.namespace or None)
            return [{"type": "ADDED", "object": obj} for obj in present if wanted(obj)], store.version
        if not text.isdigit():
            raise Refusal(400, f"invalid resource version: {text}")
        oldest = store.history[0].version if store.history else store.version + 1
        if int(text) > store.version:
            raise Refusal(504, f"Too large resource version: {text}, current: {store.version}", reason="Timeout")
        if int(text) < oldest - 1:
            gone = Refusal(410, f"too old resource version: {text} ({oldest})").as_status()
            return [{"type": "ERROR", "object": gone}], -1
        events = [shown for e in store.history if e.version > int(text) and (shown := _shown(e, request, wanted))]
        return events, store.version


def _shown(event: Event, request: Request, wanted: Any) -> Object | None:
    """The event as this watch sees it: leaving the selection is a deletion, entering it an addition."""
    meta = event.object["metadata"]
    of_kind = event.resource.key == request.resource.key
    if not of_kind or (request.namespace and meta.get("namespace") != request.namespace):
        return None
    was = event.before is not None and wanted(event.before)
    now = event.type != "DELETED" and wanted(event.object)
    if now:
        return {"type": "MODIFIED" if was else "ADDED", "object": event.object}
    if not was or event.before is None:
        return None
    if event.type == "DELETED":
        return {"type": "DELETED", "object": event.object}
    before = event.before["metadata"] | {"resourceVersion": meta["resourceVersion"]}
    return {"type": "DELETED", "object": event.before | {"metadata": before}}


class Watches:
    """Wakes every open watch when the store changes; lives on the server's event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: set[asyncio.Queue[Event]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        store.listen(self._heard)

    def start(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Serve watches on ``loop`` from now on; None when it is about to close."""
        self._loop = loop

    def _heard(self, event: Event) -> None:
        loop = self._loop
        if loop is not None and self._open:
            loop.call_soon_threadsafe(self._spread, event)

    def _spread(self, event: Event) -> None:
        for queue in self._open:
            queue.put_nowait(event)

    async def stream(self, request: Request) -> AsyncIterator[Object]:
        """Events until ``timeoutSeconds``; bookmarks in between and at the end when asked for."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + float(request.query.get("timeoutSeconds") or 1800)
        bookmarks = request.query.get("allowWatchBookmarks") == "true"
        wanted, queue = request.matcher(), asyncio.Queue[Event]()
        self._open.add(queue)
        try:
            first, reached = since(self._store, request)
            for shown in first:
                yield shown
            while reached >= 0 and (left := ends - loop.time()) > 0:
                try:
                    event = await asyncio.wait_for(queue.get(), min(left, _BOOKMARK_SECONDS))
                except TimeoutError:
                    if bookmarks:
                        yield self._bookmark(request, reached)
                    continue
                if event.version > reached:
                    reached = event.version
                    if (one := _shown(event, request, wanted)) is not None:
                        yield one
        finally:
            self._open.discard(queue)

    def _bookmark(self, request: Request, version: int) -> Object:
        resource = request.resource
        head = {"kind": resource.kind, "apiVersion": resource.api_version}
        return {"type": "BOOKMARK", "object": head | {"metadata": {"resourceVersion": str(version)}}}
