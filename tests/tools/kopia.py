"""kopia, a peer in `make bench`: where it is, and `python -m tests.tools.kopia`, which builds one from its Go module.

The fork that Velero ships is built, at the version that ``shared/research/baselines.md`` measured; ``REFLOAT_KOPIA``
names another. It calls itself by the original module's name, hence the replacement.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.tools import restic

VERSION = "v0.0.0-20251230033609-d946b1e75197"
NAME = "github.com/kopia/kopia"
OURS = restic.OURS.with_name("kopia")
MODULE = f"""module peer

go 1.24

require {NAME} v0.0.0

replace {NAME} => github.com/project-velero/kopia {VERSION}
"""


def find() -> str | None:
    """The kopia that ``REFLOAT_KOPIA`` names, ours in .tools, or the machine's."""
    return os.environ.get("REFLOAT_KOPIA") or (str(OURS) if OURS.exists() else shutil.which("kopia"))


def provide() -> str | None:
    """Put a kopia into .tools/bin where there is none; None when there is one now, else why not."""
    if find() is not None:
        return None
    if shutil.which("go") is None:
        return "Go is not installed"
    print("building kopia, a peer in benchmarks (once, some minutes)", flush=True)
    with tempfile.TemporaryDirectory(prefix="refloat-kopia-") as folder:
        Path(folder, "go.mod").write_text(MODULE)
        built = Path(folder, "kopia")
        named = f"-X {NAME}/repo.BuildVersion={VERSION}"
        words = ["go", "build", "-C", folder, "-trimpath", "-ldflags", named, "-o", str(built), NAME]
        reason = restic.run(words, {"GOFLAGS": "-mod=mod -buildvcs=false"})
        return reason or restic.install(built, OURS, "--version")


if __name__ == "__main__":
    why_not = provide()
    if why_not is not None:
        sys.exit(f"NOT RUN: kopia: {why_not}")
