"""A wire between a client and its API server that can be cut in every way a network knows, and counts what it did."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from types import TracebackType
from typing import Literal

PIECE = 1 << 16
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that makes close send RST (socket(7))."""
State = Literal["whole", "blackhole", "reset", "gone"]


class Wire:
    """Forwards connections to ``target`` until it is broken; ``heal`` makes it whole for new ones.

    ``blackhole``: bytes of all connections are taken and lost both ways, and no end is passed on. ``reset``: every
    connection is reset, new ones too. ``gone``: the same, and new ones are refused.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._port: int = self._listener.getsockname()[1]
        self._guard = threading.Lock()
        self._ends: set[socket.socket] = set()
        self._state: State = "whole"
        self.swallowed_bytes = self.cut = 0

    @property
    def url(self) -> str:
        """Where clients reach the server through it."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def did(self) -> int:
        """What the last break has done so far: bytes swallowed or connections cut."""
        return self.swallowed_bytes + self.cut

    def __enter__(self) -> Wire:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.turn("gone")

    def turn(self, state: State) -> None:
        """Break it; the counts begin at nothing."""
        with self._guard:
            was, self._state = self._state, state
            if state != "whole":
                self.swallowed_bytes = self.cut = 0
        if state == "gone":
            _stop_listening(self._listener)
        if state in ("reset", "gone"):
            self._reset_all()
        if state == "whole" and was != "whole":
            self._reset_all()  # what a blackhole has swallowed cannot be made good
            if was == "gone":
                self._listener = socket.create_server(("127.0.0.1", self._port), backlog=64)
                threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def heal(self) -> None:
        """Whole again, for new connections."""
        self.turn("whole")

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # stopped
            with self._guard:
                state = self._state
                self.cut += state == "reset"
                if state == "blackhole":
                    self._ends.add(client)
            if state == "reset":
                _reset(client)
            elif state == "blackhole":
                threading.Thread(target=self._forward, args=(client, None), daemon=True).start()
            else:
                self._join(client)

    def _join(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._target, timeout=30)
        except OSError:
            _reset(client)
            return
        server.settimeout(None)
        with self._guard:
            self._ends |= {client, server}
        for source, sink in ((client, server), (server, client)):
            threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket | None) -> None:
        """Until the source ends; the sink learns of it, unless this is a blackhole by then."""
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE):
                with self._guard:
                    is_lost = self._state == "blackhole"
                    self.swallowed_bytes += len(piece) if is_lost else 0
                if not is_lost and sink is not None:
                    sink.sendall(piece)
        with self._guard:
            is_lost = self._state == "blackhole"
        if not is_lost and sink is not None:
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)

    def _reset_all(self) -> None:
        with self._guard:
            ends, self._ends = self._ends, set()
        for end in ends:
            with contextlib.suppress(OSError):
                end.getpeername()  # only what is still connected is cut
                with self._guard:
                    self.cut += self._state != "whole"
            _reset(end)


def _reset(end: socket.socket) -> None:
    """Close with RST, whoever is reading from it."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RD)  # wakes the thread that reads, which keeps the socket open otherwise
    end.close()


def _stop_listening(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()
