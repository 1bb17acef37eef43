"""The process that reads bombs for bar 22: `python -m tests.torture.bomb_reader`, one line of JSON in, one out, each.

In: the folder of a vault, its password, and trees to extract. Each bomb is read by a fork of its own, whose memory and
processor time are what the kernel counted: others may be at work on this machine.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from refloat.errors import RefloatError
from refloat.registry import open_object_store
from vault.catalogue import manifests, points
from vault.extract import extract
from vault.locks import refuse_conflicts
from vault.repository import OpenVault, open_vault
from vault.survey import survey
from vault.surveyed import Level
from vault.tally import Tally
from vault.verify import verify

ADDRESS_LIMIT_BYTES = 6 << 30
"""Only so that a bomb ends its reader and not the machine: what it used is measured."""
LIMIT_SECONDS = 60


def read(folder: str, password: str, trees: list[str]) -> dict[str, str]:
    """Everything that reads a vault; what each step ended with."""
    said: dict[str, str] = {}

    def step(name: str, work: Callable[[], Any]) -> Any:
        try:
            found = work()
        except RefloatError as error:
            said[name] = f"{error.code}: {error.message[:300]}"
            return None
        except Exception:  # noqa: BLE001 - what is looked for
            said[name] = f"BUG: {traceback.format_exc()[-1500:]}"
            return None
        said[name] = "done"
        return found

    vault: OpenVault | None = step("open", lambda: open_vault(open_object_store(f"file://{folder}", {}), password))
    if vault is None:
        return said
    listed = step("points", lambda: points(vault)) or []
    found = step("survey", lambda: survey(vault, level=Level.FULL))
    if found is not None:
        said["survey"] = "; ".join(f"{d.object}: {d.reasons[0][:200]}" for d in found.damages) or "intact"
    step("locks", lambda: refuse_conflicts(vault.files))
    for number, each in enumerate(listed):
        step(f"verify {number}", lambda each=each: verify(vault, each, level="sample"))
        step(f"manifests {number}", lambda each=each: manifests(vault, each))
    for tree in trees:
        step("extract", lambda tree=tree: _extract(vault, tree))
    return said


def _extract(vault: OpenVault, tree: str) -> None:
    out = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    try:
        extract(vault, tree, out, Tally())
    finally:
        subprocess.run(["rm", "-rf", str(out)], check=True)  # rmtree recurses, and trees are deep here


def in_a_fork(job: dict[str, Any]) -> dict[str, Any]:
    """Read one bomb; steps, seconds, and peak memory."""
    mine, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_LIMIT_BYTES, ADDRESS_LIMIT_BYTES))
        signal.alarm(LIMIT_SECONDS)
        said = read(job["folder"], job["password"], job["trees"])
        os.write(theirs, json.dumps(said).encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(mine, "rb") as pipe:
        text = pipe.read()
    _, status, used = os.wait4(child, 0)
    return {
        "said": json.loads(text or b"{}"),
        "status": status,
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 2),
        "peak_bytes": used.ru_maxrss * 1024,
    }


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(in_a_fork(json.loads(line))), flush=True)
