"""Azurite, the emulator of Azure Blob: where it is, how it runs, and `python -m tests.tools.azurite`, which gets it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from tests.tools import restic

VERSION = "3.35.0"
"""The newest that Node 20 runs."""
OURS = restic.OURS.parents[1] / "azurite"
PROGRAM = OURS / "node_modules" / ".bin" / "azurite-blob"
ACCOUNT = "devstoreaccount1"
START_SECONDS = 30


def find() -> str | None:
    """The one that ``REFLOAT_AZURITE`` names, ours in .tools, or the machine's."""
    return os.environ.get("REFLOAT_AZURITE") or (str(PROGRAM) if PROGRAM.exists() else shutil.which("azurite-blob"))


def provide() -> str | None:
    """Put it into .tools where there is none; None when there is one now, else why not."""
    if find() is not None:
        return None
    if shutil.which("npm") is None:
        return "npm is not installed"
    print(f"installing Azurite {VERSION}, the emulator of Azure Blob (once, half a minute)", flush=True)
    unfinished = OURS.with_name(f"azurite-{os.getpid()}")
    words = ["npm", "install", "--prefix", str(unfinished), "--no-audit", "--no-fund", "--ignore-scripts"]
    unfinished.mkdir(parents=True)
    reason = restic.run([*words, f"azurite@{VERSION}"], {})
    if reason is None:
        shutil.rmtree(OURS, ignore_errors=True)
        unfinished.rename(OURS)
    shutil.rmtree(unfinished, ignore_errors=True)
    return reason


@contextmanager
def running(program: str, folder: Path, key: str) -> Iterator[str]:
    """The endpoint of one of our own on loopback, in memory, with this key (base64) of its one account."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [program, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence", "--silent"]
    words += ["--skipApiVersionCheck", "--disableTelemetry"]
    with (folder / "azurite.log").open("wb") as log:
        server = subprocess.Popen(
            words, stdout=log, stderr=log, cwd=folder, env={**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{key}"}
        )
    try:
        ends = monotonic() + START_SECONDS
        while not _listens(port):
            if server.poll() is not None or monotonic() > ends:
                raise RuntimeError(f"Azurite did not start: {(folder / 'azurite.log').read_text()[-500:]}")
            sleep(0.05)
        yield f"http://127.0.0.1:{port}/{ACCOUNT}"
    finally:
        server.terminate()
        server.wait(timeout=20)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    why_not = provide()
    if why_not is not None:
        sys.exit(f"NOT RUN: Azurite: {why_not}")
