"""Open folders below a root, by path: opened one name after the other, so that no symbolic link leads elsewhere."""

from __future__ import annotations

import os
from collections import OrderedDict

OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
MOST_OPEN = 64


class Folders:
    """Keeps the folders used last open; a path is names joined by slashes, empty for the root. Not thread-safe."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._open: OrderedDict[bytes, int] = OrderedDict()

    def file(self, path: bytes) -> int:
        """The folder's descriptor; it stays open until 63 others were asked for.

        Raises:
            OSError: It is gone, or no folder.
        """
        if not path:
            return self._root
        found = self._open.get(path)
        if found is not None:
            self._open.move_to_end(path)
            return found
        known = path
        while known and known not in self._open:
            known = known.rpartition(b"/")[0]
        here = self._open.get(known, self._root)
        for name in path[len(known) :].lstrip(b"/").split(b"/"):
            known = known + b"/" + name if known else name
            here = os.open(name, OPEN_FOLDER, dir_fd=here)
            self.keep(known, here)
        return here

    def keep(self, path: bytes, file: int) -> None:
        """Take over a folder that somebody opened."""
        if path in self._open:
            os.close(self._open.pop(path))
        self._open[path] = file
        if len(self._open) > MOST_OPEN:
            _, oldest = self._open.popitem(last=False)
            os.close(oldest)

    def close(self) -> None:
        """Close all but the root."""
        while self._open:
            os.close(self._open.popitem()[1])
