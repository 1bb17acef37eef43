"""Exec sessions that stay: lines to a command in a container and lines back, each with the instant it came.

The same channel protocol as `kube.exec`, over the same connection code. A session that dies tells so; whatever runs in
the container must not depend on that (research/reliability.md §3.1).
"""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
from dataclasses import dataclass
from datetime import timedelta

import websocket

from kube.exec import STATUS, STDOUT, exit_code
from refloat.clock import Deadline
from refloat.errors import RefloatError

LONGEST_LINE = 1 << 16
PIECE = 1 << 15


@dataclass(frozen=True)
class Ended:
    """The end of a session. ``exit_code`` None: its connection was lost, and nobody knows."""

    exit_code: int | None
    why: str


class ExecSession:
    """One command that runs in a container. Lines are sent by any thread, and heard by one at a time."""

    def __init__(self, channel: websocket.WebSocket, what: str) -> None:
        self.what = what
        self.ended: Ended | None = None
        self._channel = channel
        self._heard: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._guard = threading.Lock()
        channel.settimeout(None)
        threading.Thread(target=self._read, name=what, daemon=True).start()

    def say(self, text: str) -> None:
        """Send text and a line break; a session that has ended swallows it, and ``hear`` tells."""
        data = (text + "\n").encode()
        with self._guard, contextlib.suppress(websocket.WebSocketException, OSError):
            for start in range(0, len(data), PIECE):
                self._channel.send_binary(b"\x00" + data[start : start + PIECE])

    def hear(self, deadline: Deadline) -> str | None:
        """The next line of standard output; None when there is none in time, or the session has ended (``ended``)."""
        if self.ended is not None and self._heard.empty():
            return None
        try:
            return self._heard.get(timeout=max(0.0, deadline.remaining.total_seconds()))
        except queue.Empty:
            return None

    def close(self) -> None:
        """Leave: the command gets the end of its input, if its runtime tells it."""
        with contextlib.suppress(websocket.WebSocketException, OSError):
            self._channel.close(timeout=0)
        connection = self._channel.sock
        with contextlib.suppress(OSError):
            if connection is not None:
                connection.shutdown(socket.SHUT_RDWR)

    def _read(self) -> None:
        """Channel messages to lines, until the end; the last entry is None."""
        ended, rest = Ended(None, "the connection was lost"), b""
        try:
            while True:
                message = self._channel.recv()
                data = message.encode() if isinstance(message, str) else bytes(message)
                if not data:
                    if not self._channel.connected:
                        break
                elif data[0] == STATUS:
                    ended = Ended(exit_code(json.loads(data[1:]), self.what), "")
                    break
                elif data[0] == STDOUT:
                    *lines, rest = (rest + data[1:]).split(b"\n")
                    rest = rest[-LONGEST_LINE:]
                    for line in lines:
                        self._heard.put(line[-LONGEST_LINE:].decode(errors="replace"))
        except (websocket.WebSocketException, OSError, ValueError) as lost:
            ended = Ended(None, f"the connection was lost: {lost}")
        except RefloatError as refused:
            ended = Ended(None, refused.message)
        self.ended = ended
        self._heard.put(None)


def within(seconds: float) -> Deadline:
    """A deadline so many seconds from now."""
    return Deadline.after(timedelta(seconds=seconds))
