"""Commands inside containers, over the exec sub-resource's WebSocket, driven directly.

Protocol: Kubernetes remotecommand ``v5.channel.k8s.io`` (``v4`` on older servers): one byte of channel before each
message; 0 stdin, 1 stdout, 2 stderr, 3 the final Status. End of input is a hint only, and a missing status is a failure
(research/reliability.md §1.3). No TTY. The client library's own stream is 50 times slower.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import websocket

from refloat.clock import Deadline
from refloat.errors import ClusterError, Forbidden, ObjectMissing, Unreachable

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDOUT, STDERR, STATUS, CLOSE = 1, 2, 3, 255
KEPT_BYTES = 1 << 20
"""Of each output stream the last MiB is kept."""


@dataclass(frozen=True)
class ExecResult:
    """How a command ended. ``exit_code`` None: it had not within its time, and may still be running."""

    exit_code: int | None
    stdout: bytes
    stderr: bytes


def run_in_pod(
    url: str, headers: Mapping[str, str], tls: Mapping[str, Any], *, timeout: timedelta, stdin: bytes | None, what: str
) -> ExecResult:
    """Run what the URL's query says and wait for its end, at most ``timeout``.

    Raises:
        ClusterError: The connection ended without an exit status.
        ObjectMissing, Forbidden, Unreachable: The server refused the connection.
    """
    deadline = Deadline.after(timeout)
    channel = connect(url, headers, tls, timeout, what)
    output = {STDOUT: bytearray(), STDERR: bytearray()}
    try:
        if stdin is not None:
            for start in range(0, len(stdin), 1 << 15):
                channel.send_binary(b"\x00" + stdin[start : start + (1 << 15)])
            if channel.getsubprotocol() == PROTOCOLS[0]:
                channel.send_binary(bytes([CLOSE, 0]))
        while not deadline.is_over:
            channel.settimeout(max(0.05, deadline.remaining.total_seconds()))
            try:
                message = channel.recv()
            except websocket.WebSocketTimeoutException:
                break
            except (websocket.WebSocketException, OSError) as lost:
                raise ClusterError(f"{what}: the connection ended without an exit status: {lost}") from lost
            data = message.encode() if isinstance(message, str) else bytes(message)
            if not data:
                if not channel.connected:
                    raise ClusterError(f"{what}: the connection ended without an exit status")
                continue
            if data[0] == STATUS:
                return ExecResult(exit_code(json.loads(data[1:]), what), bytes(output[STDOUT]), bytes(output[STDERR]))
            if data[0] in output:
                kept = output[data[0]]
                kept += data[1:]
                del kept[:-KEPT_BYTES]
        return ExecResult(None, bytes(output[STDOUT]), bytes(output[STDERR]))
    finally:
        channel.close(timeout=1)


def connect(
    url: str, headers: Mapping[str, str], tls: Mapping[str, Any], timeout: timedelta, what: str
) -> websocket.WebSocket:
    """An open channel; the server's refusal as an error of ours."""
    try:
        return websocket.create_connection(
            url.replace("http", "ws", 1),
            timeout=min(30.0, max(1.0, timeout.total_seconds())),
            header=[f"{name}: {value}" for name, value in headers.items()],
            subprotocols=list(PROTOCOLS),
            sslopt=dict(tls) or {"cert_reqs": ssl.CERT_NONE},
            enable_multithread=False,
        )
    except websocket.WebSocketBadStatusException as refused:
        body = (refused.resp_body or b"")[:300]
        text = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
        kind = {401: Forbidden, 403: Forbidden, 404: ObjectMissing}.get(refused.status_code, ClusterError)
        raise kind(f"{what}: the API server refused ({refused.status_code}): {text}") from refused
    except (websocket.WebSocketException, OSError) as lost:
        raise Unreachable(f"{what}: no connection to the API server: {lost}") from lost


def exit_code(status: Mapping[str, Any], what: str) -> int:
    """The exit code in the final Status (reason NonZeroExitCode, cause ExitCode); anything else is a failure."""
    if status.get("status") == "Success":
        return 0
    if status.get("reason") == "NonZeroExitCode":
        for cause in (status.get("details") or {}).get("causes", []):
            if cause.get("reason") == "ExitCode":
                return int(cause["message"])
    raise ClusterError(f"{what}: {status.get('message', 'the command did not run')}")
