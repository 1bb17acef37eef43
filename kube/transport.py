"""Raw HTTP to one API server: JSON in and out, bounded retries of reads, failures as errors of our tree."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import urllib3
from urllib3.exceptions import HTTPError

from refloat.clock import pause
from refloat.errors import (
    ClusterError,
    Conflict,
    Expired,
    Forbidden,
    ObjectExists,
    ObjectMissing,
    RefloatError,
    Rejected,
    Unreachable,
)

CONNECT_SECONDS = 5.0
READ_SECONDS = 60.0
TRIES = 4
LONGEST_PAUSE = timedelta(seconds=10)
JSON = "application/json"


def translate(status: int, body: bytes, what: str) -> RefloatError:
    """The error for an answer that is no success, by status and the Status object's reason (API conventions)."""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = {}
    message = str(answer.get("message") or body[:200].decode(errors="replace")) if isinstance(answer, dict) else ""
    reason = str(answer.get("reason", "")) if isinstance(answer, dict) else ""
    text = f"{what}: {message or status}"
    by_status: dict[int, type[ClusterError]] = {
        401: Forbidden, 403: Forbidden, 404: ObjectMissing, 410: Expired,
        400: Rejected, 405: Rejected, 413: Rejected, 415: Rejected, 422: Rejected,
    }  # fmt: skip
    if status == 409:
        return ObjectExists(text) if reason == "AlreadyExists" else Conflict(text)
    if status == 401:
        return Forbidden(text, guidance="Log in again: the API server does not accept these credentials.")
    if status in by_status:
        return by_status[status](text)
    return Unreachable(text, guidance="The API server is busy or failing; run again in a moment.")


class Transport:
    """Requests to one API server over a shared pool of connections; safe from several threads."""

    def __init__(self, pool: urllib3.PoolManager, server: str, headers: Callable[[], Mapping[str, str]]) -> None:
        self._pool, self.server, self._headers = pool, server.rstrip("/"), headers

    def url(self, path: str, query: Mapping[str, Any]) -> str:
        """Absolute address; query values that are None or empty are left out."""
        words = {k: v for k, v in query.items() if v not in (None, "", False)}
        return f"{self.server}{path}" + (f"?{urlencode(words, doseq=True)}" if words else "")

    def call(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Any = None, content: str = JSON
    ) -> Any:
        """One request and its JSON answer. Reads are repeated on connection loss, 429 and 5xx; writes on 429 only.

        Raises:
            Unreachable: No answer, or the server kept failing.
            RefloatError: What ``translate`` makes of the answer.
        """
        what = f"{method} {path}"
        data = None if body is None else json.dumps(body).encode()
        for left in reversed(range(TRIES)):
            try:
                answer = self._pool.request(
                    method,
                    self.url(path, query or {}),
                    body=data,
                    headers={**self._headers(), "Accept": JSON, "Content-Type": content},
                    timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
                    retries=False,
                )
            except HTTPError as lost:
                if method != "GET" or left == 0:
                    raise Unreachable(f"{what}: the API server {self.server} does not answer: {lost}") from lost
                pause(timedelta(seconds=0.5))
                continue
            if 200 <= answer.status < 300:
                return json.loads(answer.data)
            again = answer.status == 429 or (method == "GET" and answer.status >= 500)
            if not again or left == 0:
                raise translate(answer.status, answer.data, what)
            wait = answer.headers.get("Retry-After", "1")
            pause(min(LONGEST_PAUSE, timedelta(seconds=float(wait) if wait.isdigit() else 1)))
        raise AssertionError("the last try returns or raises")

    def lines(self, path: str, *, query: Mapping[str, Any], read_seconds: float) -> Iterator[bytes]:
        """The lines of an answer that goes on (watch, log); ends when the server or the connection does."""
        try:
            answer = self._pool.request(
                "GET",
                self.url(path, query),
                headers=dict(self._headers()),
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=read_seconds),
                retries=False,
                preload_content=False,
            )
        except HTTPError as lost:
            raise Unreachable(f"GET {path}: the API server {self.server} does not answer: {lost}") from lost
        try:
            if answer.status != 200:
                raise translate(answer.status, answer.data, f"GET {path}")
            rest = b""
            for piece in answer.stream(65536, decode_content=True):
                *whole, rest = (rest + piece).split(b"\n")
                yield from whole
            if rest:
                yield rest
        except HTTPError:
            return  # a watch or log that breaks off is simply over; who needs more asks again
        finally:
            answer.close()
            answer.release_conn()
