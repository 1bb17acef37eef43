"""A TCP proxy between clients and a store that dies after so many bytes of upload, and can be counted on it."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from urllib.parse import urlsplit

PIECE = 1 << 16


class DyingStore:
    """Forwards connections to a store until ``dies_after_bytes`` went up; then it drops all and refuses new ones.

    ``uploaded_bytes`` counts what went up, ``dropped`` the connections it cut, ``refused`` those it turned away.
    """

    def __init__(self, endpoint: str, seen_as: str, dies_after_bytes: int) -> None:
        parts = urlsplit(endpoint)
        self._target = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
        self._listener = socket.create_server(("", 0), backlog=64)
        self.endpoint = f"{parts.scheme}://{seen_as}:{self._listener.getsockname()[1]}"
        self.dies_after_bytes = dies_after_bytes
        self.uploaded_bytes = self.dropped = self.refused = 0
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()

    @property
    def is_dead(self) -> bool:
        """Whether it has seen enough."""
        return self.uploaded_bytes >= self.dies_after_bytes

    def __enter__(self) -> DyingStore:
        threading.Thread(target=self._accept, name="dying-store", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        self._drop_all()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            if self.is_dead:
                self.refused += 1
                client.close()
                continue
            try:
                store = socket.create_connection(self._target, timeout=30)
            except OSError:
                client.close()
                continue
            store.settimeout(None)
            with self._guard:
                self._open |= {client, store}
            for source, sink, is_upload in ((client, store, True), (store, client, False)):
                threading.Thread(target=self._forward, args=(source, sink, is_upload), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, is_upload: bool) -> None:
        try:
            while piece := source.recv(PIECE):
                sink.sendall(piece)
                if is_upload:
                    with self._guard:
                        self.uploaded_bytes += len(piece)
                    if self.is_dead:
                        self._drop_all()
        except OSError:
            pass  # the other side is gone, or this proxy cut it
        finally:
            self._close(source, sink)

    def _close(self, *sockets: socket.socket) -> None:
        for each in sockets:
            with self._guard:
                self._open.discard(each)
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _drop_all(self) -> None:
        with self._guard:
            cut, self._open = self._open, set()
            self.dropped += len(cut) // 2
        self._close(*cut)
