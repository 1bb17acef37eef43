"""What the in-repo servers of clouds share: real HTTP on loopback; faults come by weather, and each is counted."""

from __future__ import annotations

import random
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

Weather = Callable[[random.Random, str, str], str | None]
"""What befalls a request, by method and path: ``refuse`` (503), ``reset`` before it is handled, ``torn`` (half of the
body, either way), ``lose`` (handled, its answer lost), ``expire`` (credentials), ``stall``, ``page`` (a web page with
200), ``flip`` (a bit of the body changes on the way in); None: nothing.
"""


def clear(rng: random.Random, method: str, path: str) -> None:
    """Nothing goes wrong."""


def storm(rng: random.Random, method: str, path: str) -> str | None:
    """30 % refused, 5 % cut, 5 % of answers lost."""
    drawn = rng.random()
    return "refuse" if drawn < 0.30 else "reset" if drawn < 0.35 else "lose" if drawn < 0.40 else None


def first(times: int, fault: str, *methods: str) -> Weather:
    """The fault, for the first so many requests with one of the methods (all when none is named)."""
    left = [times]

    def weather(rng: random.Random, method: str, path: str) -> str | None:
        if (methods and method not in methods) or not left[0]:
            return None
        left[0] -= 1
        return fault

    return weather


class FaultyCloud:
    """A server; ``faults`` counts what happened, ``requests`` are the methods and paths seen, in order."""

    handler: type[Request]

    def __init__(self, seed: int = 1, certificate: Path | None = None) -> None:
        self.weather: Weather = clear
        self.faults: Counter[str] = Counter()
        self.requests: list[tuple[str, str]] = []
        self.skew = timedelta(0)
        """How far the server's clock is ahead of ours."""
        self.refusal: tuple[int, str, str] | None = None
        """Where set, every request is answered with it: status, code, text."""
        self.ignores_conditions = False
        """As lax servers do: they answer success and overwrite."""
        self.guard = threading.RLock()
        self.released = threading.Event()
        self._rng = random.Random(seed)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (self.handler,), {"cloud": self}))
        self._server.daemon_threads = True
        self._server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]
        if certificate is not None:  # it and its key, in one file
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.endpoint = f"http{'s' if certificate else ''}://127.0.0.1:{self._server.server_address[1]}"

    def now(self) -> datetime:
        """By the server's clock."""
        return datetime.now(UTC) + self.skew

    def befalls(self, method: str, path: str) -> str | None:
        """The fault of the next request."""
        with self.guard:
            self.requests.append((method, path))
            fault = self.weather(self._rng, method, path)
            if fault is not None:
                self.faults[fault] += 1
            return fault

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


class Refused(Exception):
    """What a handler answers instead."""

    def __init__(self, status: int, code: str, text: str, *more: str) -> None:
        super().__init__(text)
        self.status, self.words = status, (code, text, *more)


class Request(BaseHTTPRequestHandler):
    """One connection; ``answer`` and ``fail`` are the cloud's own."""

    cloud: Any
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self) -> None:
        raise NotImplementedError

    def fail(self, status: int, code: str, text: str, detail: str = "") -> None:
        raise NotImplementedError

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.route, self.words = parts.path, dict(parse_qsl(parts.query, keep_blank_values=True))
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.fault = self.cloud.befalls(self.command, self.path)
        try:
            if self.cloud.refusal:
                raise Refused(*self.cloud.refusal)
            self.go_wrong_or_on()
        except Refused as refused:
            self.fail(refused.status, *refused.words)

    do_PUT = do_POST = do_HEAD = do_DELETE = do_PATCH = do_GET  # noqa: N815

    def go_wrong_or_on(self) -> None:
        if self.fault == "refuse":
            self.fail(503, *self.busy)
        elif self.fault == "expire":
            self.fail(401, *self.expired)
        elif self.fault == "stall":
            self.cloud.released.wait(20)
            self.close_connection = True
        elif self.fault == "page":
            self.give(200, b"<html>Please log in</html>", **{"Content-Type": "text/html"})
        elif self.fault == "reset" or (self.fault == "torn" and self.command != "GET"):
            self.reset()
        else:
            if self.fault == "flip" and self.body:
                middle = len(self.body) // 2
                self.body = self.body[:middle] + bytes([self.body[middle] ^ 1]) + self.body[middle + 1 :]
            self.answer()

    busy: tuple[str, str] = ("", "")
    expired: tuple[str, str] = ("", "")

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def give(self, status: int, body: bytes = b"", **words: str) -> None:
        if self.fault == "lose":
            self.reset()
            return
        self.send_response(status)
        for name, value in words.items():
            self.send_header(name, value)
        if status != 204 and "Content-Length" not in words:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if self.fault == "torn" else body)
        self.wfile.flush()
        if self.fault == "torn":
            self.close_connection = True
