"""A small S3 server on loopback that goes wrong on purpose and counts it; honest where no fault is injected."""

from __future__ import annotations

import ssl
import threading
from dataclasses import dataclass
from email.utils import formatdate
from hashlib import md5, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import SO_RCVBUF, SOL_SOCKET
from types import TracebackType
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "bucket"
PAGE = 1000


@dataclass
class Fault:
    """The next ``times`` requests with ``method`` go wrong; ``fired`` counts those that did.

    ``answer`` with ``status`` and an S3 error ``code``; ``drop`` before it is handled or ``lose-answer`` after;
    ``half-body``: announce the whole body and close half-way; ``short-body``: announce and send half of it; ``hang``;
    ``ignore-condition`` and ``ignore-range`` as lax servers do; ``lists``: ``text`` instead of a listing; ``page``: a
    success that is none; ``flip``: one bit of a body changes on the way in.
    """

    act: Literal[
        "answer",
        "drop",
        "lose-answer",
        "half-body",
        "short-body",
        "hang",
        "ignore-condition",
        "ignore-range",
        "lists",
        "page",
        "flip",
    ]
    method: str
    times: int = 1
    status: int = 500
    code: str = "InternalError"
    text: str = "injected"
    fired: int = 0


class FaultyS3:
    """One bucket in memory. ``requests`` are the methods and paths seen, in order."""

    def __init__(self, certificate: Path | None = None) -> None:
        self.objects: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.requests: list[tuple[str, str]] = []
        self.faults: list[Fault] = []
        self.pace = 0.0
        """Seconds to wait after every 256 KiB of a body that comes in; ``paced`` counts."""
        self.paced = 0
        self.expected: list[bool] = []
        """Whether each put asked before it sent its body."""
        self.region: str | None = None
        """Where set, requests signed for another are refused, and counted in ``misdirected``."""
        self.misdirected = 0
        self.signed: list[tuple[str, str]] = []
        """Method and region of every request that was signed for the right one."""
        self.guard = threading.Lock()
        self.released = threading.Event()
        handler = type("Bound", (Answers,), {"store": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._server.socket.setsockopt(SOL_SOCKET, SO_RCVBUF, 2**16)  # a slow reader is felt at once
        if certificate is not None:  # it and its key, in one file
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self._server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]
        scheme = "https" if certificate else "http"
        self.endpoint = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"

    def inject(self, fault: Fault) -> Fault:
        """Let it happen, and give it back for its count."""
        self.faults.append(fault)
        return fault

    def fault_for(self, method: str) -> Fault | None:
        with self.guard:
            for fault in self.faults:
                if fault.method == method and fault.fired < fault.times:
                    fault.fired += 1
                    return fault
        return None

    def seen(self, method: str) -> int:
        """How many requests of a method came."""
        return sum(1 for one, _ in self.requests if one == method)

    def __enter__(self) -> FaultyS3:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


class Answers(BaseHTTPRequestHandler):
    """One connection."""

    store: FaultyS3
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_PUT(self) -> None:
        self.handle_one("PUT")

    def do_GET(self) -> None:
        self.handle_one("GET")

    def do_HEAD(self) -> None:
        self.handle_one("HEAD")

    def do_DELETE(self) -> None:
        self.handle_one("DELETE")

    def handle_one(self, method: str) -> None:
        if method == "PUT":
            self.store.expected.append("Expect" in self.headers)
        body = self.body()
        parts = urlsplit(self.path)
        bucket, _, key = unquote(parts.path).removeprefix("/").partition("/")
        is_list = method == "GET" and not key
        self.store.requests.append(("LIST" if is_list else method, self.path))
        fault = self.store.fault_for("LIST" if is_list else method)
        act = fault.act if fault else None
        if self.is_misdirected(method):
            pass
        elif fault and act == "answer":
            self.fail(fault.status, fault.code, fault.text)
        elif act == "drop":
            self.close_connection = True
        elif act == "hang":
            self.store.released.wait(20)
            self.close_connection = True
        elif bucket != BUCKET:
            self.fail(404, "NoSuchBucket", "The specified bucket does not exist")
        elif is_list:
            page = fault.text if fault and act == "lists" else self.listing(parse_qs(parts.query))
            self.give(200, page.encode())
        elif method == "PUT":
            self.put(key, body, act)
        elif method == "DELETE":
            self.store.objects.pop(key, None)
            self.give(204)
        elif key not in self.store.objects:
            self.fail(404, "NoSuchKey", "The specified key does not exist.")
        else:
            self.get(key, act)

    def body(self) -> bytes:
        left, pieces = int(self.headers.get("Content-Length") or 0), []
        while left:
            pieces.append(self.rfile.read(min(left, 2**18)))
            left -= len(pieces[-1])
            if self.store.pace and self.command == "PUT":
                self.store.paced += 1
                threading.Event().wait(self.store.pace)
        return b"".join(pieces)

    def is_misdirected(self, method: str) -> bool:
        signed = self.headers.get("Authorization", "").partition("Credential=")[2].split("/")
        region = signed[2] if len(signed) > 2 else ""
        if self.store.region in (None, region):
            self.store.signed.append((method, region))
            return False
        self.store.misdirected += 1
        text = f"<Error><Code>AuthorizationHeaderMalformed</Code><Region>{self.store.region}</Region></Error>"
        self.give(400, text.encode())
        return True

    def put(self, key: str, body: bytes, act: str | None) -> None:
        if act == "page":
            self.give(200, b"<html>Please log in</html>")
            return
        if act == "flip":
            body = bytes([body[0] ^ 1]) + body[1:]
        if sha256(body).hexdigest() != self.headers.get("x-amz-content-sha256"):
            self.fail(400, "XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match")
            return
        words = {name: value for name, value in self.headers.items() if name.lower().startswith("x-amz-meta-")}
        with self.store.guard:
            is_refused = "If-None-Match" in self.headers and key in self.store.objects and act != "ignore-condition"
            if not is_refused:
                self.store.objects[key] = body, words
        if act == "lose-answer":
            self.close_connection = True
        elif is_refused:
            self.fail(412, "PreconditionFailed", "At least one of the preconditions you specified did not hold.")
        else:
            self.give(200, ETag=f'"{md5(body).hexdigest()}"')

    def get(self, key: str, act: str | None) -> None:
        body, words = self.store.objects[key]
        words = {**words, "Last-Modified": formatdate(usegmt=True)}
        status = 200
        if "Range" in self.headers and act != "ignore-range":
            first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            if int(first) >= len(body):
                self.fail(416, "InvalidRange", "The requested range is not satisfiable")
                return
            status, whole = 206, len(body)
            body = body[int(first) : int(last) + 1]
            words["Content-Range"] = f"bytes {first}-{int(first) + len(body) - 1}/{whole}"
        if act == "short-body":
            body = body[: len(body) // 2]
        if act == "half-body":
            self.give(status, body[: len(body) // 2], announced=len(body), **words)
            self.close_connection = True
        else:
            self.give(status, body, **words)

    def listing(self, words: dict[str, list[str]]) -> str:
        prefix, after = words.get("prefix", [""])[0], words.get("continuation-token", [""])[0]
        most = int(words.get("max-keys", [str(PAGE)])[0])
        keys = sorted(key for key in self.store.objects if key.startswith(prefix) and key > after)
        page, is_truncated = keys[:most], len(keys) > most
        items = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.store.objects[key][0])}</Size>"
            "<LastModified>2026-01-02T03:04:05.000Z</LastModified></Contents>"
            for key in page
        )
        token = f"<NextContinuationToken>{page[-1]}</NextContinuationToken>" if is_truncated else ""
        truncated = f"<IsTruncated>{str(is_truncated).lower()}</IsTruncated>"
        return f"<ListBucketResult>{truncated}{token}{items}</ListBucketResult>"

    def fail(self, status: int, code: str, text: str) -> None:
        self.give(status, f"<Error><Code>{code}</Code><Message>{escape(text)}</Message></Error>".encode())

    def give(self, status: int, body: bytes = b"", *, announced: int | None = None, **words: str) -> None:
        self.send_response(status)
        for name, value in words.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if announced is None else announced))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
