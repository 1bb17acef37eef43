"""How far a mover is, counted by all its threads, and the wish that it ends."""

from __future__ import annotations

import threading

from refloat.errors import Interrupted


class Tally:
    """Counts bytes and files; every piece of work asks it whether to go on."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._guard = threading.Lock()
        self._bytes = self._files = 0

    @property
    def bytes_done(self) -> int:
        """Bytes of file content dealt with so far, read or known to be unchanged."""
        return self._bytes

    @property
    def files_done(self) -> int:
        """Files dealt with so far."""
        return self._files

    def add(self, *, data_bytes: int = 0, files: int = 0) -> None:
        """Count, and go on.

        Raises:
            Interrupted: The work shall end.
        """
        if self.stop.is_set():
            raise Interrupted("the mover was told to end before it had done its work")
        with self._guard:
            self._bytes += data_bytes
            self._files += files
