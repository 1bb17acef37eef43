"""A line between refloat and an API server that can be cut, fall silent or lag for exec sessions, one way or both.

Only sessions of holders are touched: what thaws and confirms afterwards comes over connections of its own.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import yaml

from kube.cluster import Cluster

MARK = b"refloat-hold"
"""Of a request that begins a holder's session."""


class HoldLine:
    """The proxy. ``words`` are what refloat says, ``answers`` what it hears; unset, they do not pass."""

    def __init__(self, kubeconfig: Path, folder: Path, name: str) -> None:
        document = yaml.safe_load(kubeconfig.read_text())
        host, _, port = document["clusters"][0]["cluster"]["server"].rpartition("//")[2].partition(":")
        self._target = host, int(port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self._sessions: list[socket.socket] = []
        self.words, self.answers = threading.Event(), threading.Event()
        self.heal()
        document["clusters"][0]["cluster"]["server"] = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        path = folder / f"line-{name}.yaml"
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(document))
        self.cluster = Cluster.open(kubeconfig=str(path))

    def heal(self) -> None:
        """Everything passes, what has been kept back as well."""
        self.words.set()
        self.answers.set()

    def pull(self) -> int:
        """End every session's connection, both ways, at once; how many there were."""
        ends, self._sessions = self._sessions, []
        return sum(shut(end) for end in ends)

    def __enter__(self) -> HoldLine:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.heal()
        shut(self._server)
        self._server.close()
        self.pull()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
                far = socket.create_connection(self._target)
            except OSError:
                return
            threading.Thread(target=self._carry, args=(near, far), daemon=True).start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        """Words of one connection; its answers run beside it."""
        passing, is_session = threading.Event(), False
        passing.set()
        try:
            first = near.recv(65536)
            is_session = MARK in first
            if is_session:
                self._sessions += [near, far]
            answers = self.answers if is_session else passing
            threading.Thread(target=pass_on, args=(far, near, answers), daemon=True).start()
            far.sendall(first)
            pass_on(near, far, self.words if is_session else passing)
        except OSError:
            shut(far)


def pass_on(source: socket.socket, sink: socket.socket, passing: threading.Event) -> None:
    """One direction, until either end is closed; while ``passing`` is unset what comes is kept back."""
    with suppress(OSError):
        while data := source.recv(65536):
            passing.wait()
            sink.sendall(data)
    shut(sink)


def shut(end: socket.socket) -> bool:
    """Whether the connection was still there to be ended."""
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        return False
    return True
