"""What a benchmark's numbers depend on: processor, kernel, memory, disk, versions, date; for the record."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("cryptography", "zstandard", "orjson", "boto3")
MEMORY_ONLY = ("tmpfs", "ramfs")


def facts(folder: Path) -> dict[str, object]:
    """Of this machine, and of the file system ``folder`` lies on."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _field("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory": _field("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "file_system": file_system(folder),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "source": _commit(),
    }


def file_system(folder: Path) -> str:
    """Type of the file system a folder lies on (proc_pid_mounts(5)), ``unknown`` when the system does not tell."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, at, its, *_ = line.split()
        if folder.resolve().is_relative_to(at) and len(at) >= len(best):
            best, kind = at, its
    return kind


def _field(file: str, name: str) -> str:
    lines = Path(file).read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "unknown")


def _commit() -> str:
    words = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def disk_folder(default: Path) -> Path:
    """The folder for temporary files, unless it is memory: then /var/tmp."""
    if file_system(default) not in MEMORY_ONLY:
        return default
    if file_system(Path("/var/tmp")) in MEMORY_ONLY:
        sys.exit("bench: every folder for temporary files is memory: name one on disk with --folder")
    return Path("/var/tmp")
