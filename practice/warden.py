"""Kills what the practice range started when the range's process is gone, however it went.

Run as a script with a pipe as standard input: lines ``+ PGID`` and ``- PGID``; at the end of input every process
group still listed gets SIGKILL (after SIGCONT has no meaning: SIGKILL ends stopped processes too).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys


def main() -> None:
    """Keep the list until the pipe closes, then end every group on it."""
    for wanted in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(wanted, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        sign, _, group = line.strip().partition(" ")
        (groups.add if sign == "+" else groups.discard)(int(group))
    for group in groups:
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
