"""The HTTP side of the practice range: one API server on a free port of 127.0.0.1, on a thread of this process."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import weakref
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl

import uvicorn
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket
from uvicorn.protocols.http.h11_impl import H11Protocol

from practice import logs, sessions
from practice.access import Access, Fault, require
from practice.addresses import Address, check_query, is_watch, read_path, verb_of
from practice.controllers.kubelet import Kubelet
from practice.kinds import discovery
from practice.processes import Processes
from practice.refusal import Refusal
from practice.store import Store
from practice.verbs import Request, Verbs
from practice.watching import Watches

_HEALTH = ("/healthz", "/livez", "/readyz")
_OPEN_TO_ALL = (*_HEALTH, "/version")
_REPEATED = "command"
Place = tuple[Any, Any]


class _Cut(OSError):
    """A fault has cut the connection."""


class ApiServer:
    """Serves a store until `stop`; `url` is known at once."""

    def __init__(self, store: Store, access: Access, kubelet: Kubelet, processes: Processes) -> None:
        self._store, self._access, self._kubelet, self._processes = store, access, kubelet, processes
        self._verbs, self._watches = Verbs(store), Watches(store)
        # with its protocol named, asyncio turns Nagle's algorithm off: else every small answer waits 40 ms
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._connections: weakref.WeakValueDictionary[Place, asyncio.Transport] = weakref.WeakValueDictionary()
        self._server = uvicorn.Server(self._config())
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="practice-server", daemon=True)

    def _config(self) -> uvicorn.Config:
        connections = self._connections

        class Connection(H11Protocol):
            """One HTTP connection, kept where a fault can find it."""

            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                super().connection_made(transport)
                connections[transport.get_extra_info("peername"), transport.get_extra_info("sockname")] = transport

        return uvicorn.Config(
            self,
            http=Connection,
            ws="websockets-sansio",
            ws_ping_interval=None,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=3600,
        )

    def start(self) -> None:
        """Serve on a thread; returns when requests are accepted."""
        self._thread.start()
        self._is_up.wait()

    def stop(self) -> None:
        """Close every connection and end the thread."""
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(timeout=10)
        self._socket.close()

    def _serve(self) -> None:
        async def serve() -> None:
            loop = asyncio.get_running_loop()
            self._socket.listen(512)
            self._watches.start(loop)
            loop.call_soon(self._is_up.set)
            try:
                await self._server.serve(sockets=[self._socket])
            finally:
                self._watches.start(None)

        asyncio.run(serve())

    # --- one request ---------------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: faults first, then the request itself."""
        path = scope["raw_path"].decode()
        address = path + (f"?{scope['query_string'].decode()}" if scope["query_string"] else "")
        fault = self._access.fault_of(scope.get("method", "GET"), address)
        try:
            if fault is not None and fault.act == "delay":
                await asyncio.sleep(fault.delay_seconds)
            elif fault is not None and fault.act == "drop":
                self._cut(scope)
            elif fault is not None and fault.act == "drop-after":
                send = self._cutting(scope, send)
            serve = self._http if scope["type"] == "http" else self._websocket
            await serve(scope, receive, send, fault if fault is not None and fault.act == "answer" else None)
        except _Cut:
            return

    def _cut(self, scope: Scope) -> None:
        transport = self._connections.get((tuple(scope["client"]), tuple(scope["server"])))
        if transport is not None:
            transport.abort()
        raise _Cut

    def _cutting(self, scope: Scope, send: Send) -> Send:
        """Answers nothing: the connection is cut where the answer, or an exec's exit status, would begin."""

        async def cutting(message: Message) -> None:
            kind, data = message["type"], message.get("bytes") or b""
            if kind in ("http.response.start", "http.response.body") or data[:1] == b"\x03":
                self._cut(scope)
            await send(message)

        return cutting

    async def _http(self, scope: Scope, receive: Receive, send: Send, fault: Fault | None) -> None:
        request = HttpRequest(scope, receive)
        try:
            if fault is not None:
                raise _refusal_of(fault)
            response = await self._answer(scope["raw_path"].decode(), request)
        except Refusal as refusal:
            response = _refused(refusal, fault)
        await response(scope, receive, send)

    async def _answer(self, path: str, request: HttpRequest) -> Response:
        if path in _HEALTH:
            return PlainTextResponse("ok")
        identity = None if path in _OPEN_TO_ALL else self._access.identify(request.headers.get("authorization", ""))
        if request.method == "GET" and (document := discovery(self._store.kinds, path)) is not None:
            return JSONResponse(document)
        assert identity is not None
        address = read_path(self._store.kinds, path)
        query = dict(parse_qsl(request.url.query, keep_blank_values=True))
        verb = verb_of(request.method, address, query)
        require(identity, verb, address.resource, address.namespace, address.name, address.subresource)
        check_query(verb, address, query)
        if address.subresource == "exec":
            raise Refusal(400, "unable to upgrade: the practice range's exec speaks WebSocket only")
        if address.subresource == "log":
            return self._log(address, query)
        asked = Request(
            method=request.method,
            resource=address.resource,
            namespace=address.namespace,
            name=address.name,
            subresource=address.subresource,
            query=query,
            identity=identity,
            agent=request.headers.get("user-agent", ""),
            content_type=request.headers.get("content-type", "application/json").partition(";")[0].strip(),
            body=await request.body(),
        )
        if verb == "watch":
            asked.matcher()
            return StreamingResponse(self._watch(asked), media_type="application/json")
        status, body = self._verbs.run(asked)
        return JSONResponse(body, status_code=status)

    async def _watch(self, asked: Request) -> AsyncIterator[bytes]:
        async for event in self._watches.stream(asked):
            yield json.dumps(event).encode() + b"\n"

    def _log(self, address: Address, query: dict[str, str]) -> Response:
        pod = self._store.read("pods", address.namespace, address.name)
        self._kubelet.log(pod, logs.container_of(pod, query), previous=query.get("previous") == "true")
        return StreamingResponse(logs.stream(self._kubelet, pod, query), media_type="text/plain")

    # --- exec ----------------------------------------------------------------------------------------------------

    async def _websocket(self, scope: Scope, receive: Receive, send: Send, fault: Fault | None) -> None:
        channel = WebSocket(scope, receive, send)
        try:
            if fault is not None:
                raise _refusal_of(fault)
            protocol, pod, name, words, streams = self._session(scope, channel)
            container = self._kubelet.container(pod, name)
        except Refusal as refusal:
            await channel.send_denial_response(_refused(refusal, fault))
            return
        await channel.accept(subprotocol=protocol)
        try:
            command = sessions.start(self._processes, container, words, streams, asyncio.get_running_loop())
        except OSError as error:
            await sessions.report_unstartable(channel, words[0], error)
            return
        self._kubelet.join(pod, name, command.group)
        await sessions.attend(channel, protocol, command)
        self._kubelet.leave(pod, name, command.group)

    def _session(self, scope: Scope, channel: WebSocket) -> tuple[str, dict[str, Any], str, list[str], frozenset[int]]:
        """What an exec request asks for, once it may: protocol, pod, container, command, streams."""
        identity = self._access.identify(channel.headers.get("authorization", ""))
        address = read_path(self._store.kinds, scope["raw_path"].decode())
        pairs = parse_qsl(scope["query_string"].decode(), keep_blank_values=True)
        query = dict(pairs)
        if address.subresource != "exec" or is_watch(query):
            raise Refusal(400, "the practice range speaks WebSocket for exec only")
        require(identity, "create", address.resource, address.namespace, address.name, "exec")
        check_query("create", address, query)
        if query.get("tty") in ("true", "1"):
            raise Refusal(400, "the practice range has no terminals")
        pod = self._store.read("pods", address.namespace, address.name)
        words = [value for name, value in pairs if name == _REPEATED]
        if not words:
            raise Refusal(400, "you must specify a command for the exec")
        asked = {
            number for number, name in enumerate(("stdin", "stdout", "stderr")) if query.get(name) in ("true", "1")
        }
        if not asked:
            raise Refusal(400, "you must specify at least 1 of stdin, stdout, stderr")
        protocol = sessions.protocol_of(scope["subprotocols"])
        return protocol, pod, logs.container_of(pod, query), words, frozenset(asked)


def _refusal_of(fault: Fault) -> Refusal:
    return Refusal(fault.status, f"a fault of the practice range answers {fault.status}")


def _refused(refusal: Refusal, fault: Fault | None) -> Response:
    headers = {}
    if fault is not None and fault.retry_after_seconds is not None:
        headers["Retry-After"] = str(fault.retry_after_seconds)
    return JSONResponse(refusal.as_status(), status_code=refusal.code, headers=headers)
