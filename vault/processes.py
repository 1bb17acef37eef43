"""Processes of this machine as vault locks name them: a mark that no later process bears, and whether its owner lives.

A process number alone says nothing: pods on one node share the hostname and count processes from 1, each for itself.
The mark names the boot, the namespace the number is of (pid_namespaces(7)) and the start (proc(5), field 22 of stat).
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")


def mark_of(pid: int) -> dict[str, Any] | None:
    """What tells a living process of this machine from all others; None where there is no such process, or no /proc."""
    with suppress(OSError, ValueError, IndexError):
        started = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        return {"boot": _boot(), "namespace": _namespace(), "started": started}
    return None


def is_gone(pid: object, mark: object) -> bool:
    """Whether the process that bore the mark has ended for certain: it was of this boot and namespace, and is no more.

    A process that is there and cannot be looked at (another user's) is not gone.
    """
    if not isinstance(pid, int) or pid <= 0 or not isinstance(mark, dict):
        return False
    with suppress(OSError, OverflowError):
        if mark.get("boot") == _boot() and mark.get("namespace") == _namespace():
            return not _is_there(pid) or mark_of(pid) not in (None, mark)
    return False


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _boot() -> str:
    return _BOOT.read_text().strip()


def _namespace() -> int:
    return _NAMESPACE.stat().st_ino
