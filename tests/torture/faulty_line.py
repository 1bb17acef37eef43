"""A line to an S3 server that goes wrong on purpose: an HTTP proxy between client and server that counts its faults.

Which request meets which fault is drawn from a seed, in the order of arrival.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from urllib3 import HTTPConnectionPool
from urllib3.exceptions import HTTPError

Weather = Callable[[random.Random, str, str], str | None]
"""What befalls a request, by method and path: ``refuse`` (503 SlowDown), ``reset`` before it is handled, ``torn`` (half
of the body arrives, either way), ``lose`` (handled, its answer lost), ``expire`` (credentials), ``twice`` (the server
sees it twice and the second answer is given), ``stall`` (no answer until the line ends); None: nothing.
"""
_PASSED_ON = ("content-length", "etag", "last-modified", "content-range", "x-amz-bucket-region")


class FaultyLine:
    """The proxy; ``faults`` counts what happened, ``requests`` what came."""

    def __init__(self, server: str, seed: int) -> None:
        host, _, port = server.removeprefix("http://").partition(":")
        self.server = host, int(port)
        self.weather: Weather = clear
        self.faults: Counter[str] = Counter()
        self.requests = 0
        self.released = threading.Event()
        self.one_at_a_time = threading.Lock()
        """Held while a create-if-absent is with the server, as some servers check and store in two steps (versitygw's
        pull request 2288): what happens at one instant is their matter and not what a line does.
        """
        self._rng, self._guard = random.Random(seed), threading.Lock()
        self._proxy = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Request,), {"line": self}))
        self._proxy.daemon_threads = True
        self._proxy.handle_error = lambda request, client_address: None  # type: ignore[method-assign]
        self.endpoint = f"http://127.0.0.1:{self._proxy.server_address[1]}"

    def befalls(self, method: str, path: str) -> str | None:
        """The fault of the next request."""
        with self._guard:
            self.requests += 1
            fault = self.weather(self._rng, method, path)
            if fault is not None:
                self.faults[fault] += 1
            return fault

    def __enter__(self) -> FaultyLine:
        threading.Thread(target=self._proxy.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released.set()
        self._proxy.shutdown()
        self._proxy.server_close()


def clear(rng: random.Random, method: str, path: str) -> None:
    """Nothing goes wrong."""


class _Request(BaseHTTPRequestHandler):
    """One connection of a client, and one to the server."""

    line: FaultyLine
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.behind = HTTPConnectionPool(*self.line.server, timeout=60)

    def finish(self) -> None:
        self.behind.close()
        with suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.line.befalls(self.command, self.path)
        if fault == "refuse":
            self.fail(503, "SlowDown", "Please reduce your request rate.")
        elif fault == "expire":
            self.fail(400, "ExpiredToken", "The provided token has expired.")
        elif fault == "stall":
            self.line.released.wait(60)
            self.close_connection = True
        elif fault == "reset" or (fault == "torn" and self.command not in ("GET", "PUT")):
            self.reset()
        elif fault == "torn" and self.command == "PUT":
            self.forward_half(body)
            self.reset()
        else:
            self.pass_on(body, fault)

    do_PUT = do_HEAD = do_DELETE = do_GET  # noqa: N815 (as http.server calls them)

    def pass_on(self, body: bytes, fault: str | None) -> None:
        try:
            with self.line.one_at_a_time if "If-None-Match" in self.headers else nullcontext():
                for _ in range(2 if fault == "twice" else 1):
                    status, words, found = self.ask(body)
        except (OSError, HTTPError):
            self.reset()
            return
        if fault == "lose":
            self.reset()
            return
        self.send_response_only(status)
        for name, value in words:
            self.send_header(name, value)
        self.end_headers()
        if fault == "torn":
            self.wfile.write(found[: len(found) // 2])
            self.close_connection = True
        else:
            self.wfile.write(found)

    def ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        words = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
        answer = self.behind.urlopen(
            self.command, self.path, body=body or None, headers=words, retries=False, decode_content=False
        )
        kept = [(n, value) for n, value in answer.headers.items() if n.lower() in _PASSED_ON or "-meta-" in n.lower()]
        if "Content-Length" not in answer.headers and self.command != "HEAD":
            kept.append(("Content-Length", str(len(answer.data))))
        return answer.status, kept, answer.data

    def forward_half(self, body: bytes) -> None:
        """Let the server see an announced body break off."""
        with suppress(OSError), socket.create_connection(self.line.server, timeout=60) as to:
            lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items() if name.lower() != "expect")
            to.sendall(f"{self.command} {self.path} HTTP/1.1\r\n{lines}\r\n".encode() + body[: len(body) // 2])

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def fail(self, status: int, code: str, text: str) -> None:
        body = (
            b"" if self.command == "HEAD" else f"<Error><Code>{code}</Code><Message>{text}</Message></Error>".encode()
        )
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
