"""A process that stands where a container's process 1 stands: it tells how every child ended that a holder left to it.

Usage: python -m tests.kube.orphans SCENARIO TEXT; TEXT is a holder's. Output: one line of JSON, ``{"said": [line, …],
"ended": {pid: status}}``, statuses as waitpid(2) gives them, of processes that were not the holder or its starter.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from kube.held_part import READER
from refloat.clock import Deadline, pause

PR_SET_CHILD_SUBREAPER = 36
"""prctl(2): orphans below become this process's children, as a container's become those of its process 1."""
LIMIT_SECONDS = 20


def children(pid: int) -> list[int]:
    """Those that live or wait to be reaped."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def main(scenario: str, text: str) -> None:
    """Hold, do what the scenario says, and reap until nobody is left."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    words = ["sh", "-c", 'sh -c "$0" refloat-hold; exit 0', READER]
    starter = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert starter.stdin is not None and starter.stdout is not None

    def hear() -> str:
        assert starter.stdout is not None
        return starter.stdout.readline().strip()

    starter.stdin.write(text + "\n#refloat-end\n")
    starter.stdin.flush()
    said = [hear()]
    (holder,) = children(starter.pid)
    starter.stdin.write("freeze\n")
    starter.stdin.flush()
    said.append(hear())
    if scenario == "release":
        starter.stdin.write("release\n")
        starter.stdin.flush()
        said.append(hear())
    elif scenario == "end of input":
        starter.stdin.close()
    elif scenario != "silence":
        os.kill(holder, {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP}[scenario])
    ended: dict[int, int] = {}
    limit = Deadline.after(timedelta(seconds=LIMIT_SECONDS))
    while children(os.getpid()):
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid and pid not in (starter.pid, holder):
            ended[pid] = status
        if limit.is_over:
            raise SystemExit(f"left: {children(os.getpid())}")
        pause(timedelta(milliseconds=10))
    print(json.dumps({"said": said, "ended": ended}))


if __name__ == "__main__":
    main(*sys.argv[1:])
