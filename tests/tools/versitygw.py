"""versitygw, a real S3 server: where it is, and `python -m tests.tools.versitygw`, which builds one from its module."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.tools import restic

VERSION = "v1.8.0"
OURS = restic.OURS.with_name("versitygw")
LAB = Path(os.environ.get("LAB_HOME", "/var/lib/refloat-lab")) / "bin" / "versitygw"


def find() -> str | None:
    """Ours in .tools, the lab's, or the machine's."""
    return next((str(each) for each in (OURS, LAB) if each.exists()), shutil.which("versitygw"))


def provide() -> str | None:
    """Put one into .tools/bin where there is none; None when there is one now, else why not."""
    if find() is not None:
        return None
    if shutil.which("go") is None:
        return "Go is not installed"
    print("building versitygw, the S3 server of benchmarks (once, a minute)", flush=True)
    with tempfile.TemporaryDirectory(prefix="refloat-versitygw-") as folder:
        words = ["go", "install", "-trimpath", f"github.com/versity/versitygw/cmd/versitygw@{VERSION}"]
        return restic.run(words, {"GOBIN": folder}) or restic.install(Path(folder, "versitygw"), OURS, "--version")


if __name__ == "__main__":
    why_not = provide()
    if why_not is not None:
        sys.exit(f"NOT RUN: versitygw: {why_not}")
