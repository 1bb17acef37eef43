"""The C library's heap: what of freed memory it gives back to the system, and when (mallopt(3), malloc_trim(3)).

Other C libraries than glibc have no such calls; nothing is changed there.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of malloc.h."""
_KEPT_BYTES = 16 << 20
_LARGE_BYTES = 4 << 20


def keep_freed_memory() -> None:
    """Keep up to 16 MiB of freed memory, and what comes and goes chunk by chunk on the heap: giving it back and finding
    it again took a tenth of the time of an archive.
    """
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)


def give_back_freed_memory() -> None:
    """All of it, now."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
