"""Stock restic, the judge that is not ours: where it is, and `python -m tests.tools.restic`, which gets one.

It is built from its Go module where Go is there, else taken from Debian where that is allowed. Silent when it is there.
With `--all` the older ones that long proofs use are built too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

VERSION = "v0.19.1"
OLDER = ("v0.16.4", "v0.18.0")
OURS = Path(__file__).parents[2] / ".tools" / "bin" / "restic"
DEBIAN = Path("/usr/bin/restic")
BUILD_SECONDS = 900


def find() -> str | None:
    """The restic that ``REFLOAT_RESTIC`` names, ours in .tools, or the machine's."""
    return os.environ.get("REFLOAT_RESTIC") or (str(OURS) if OURS.exists() else shutil.which("restic"))


def needed() -> str:
    """A stock restic; without one the test is reported as not run."""
    found = find()
    if found is None:
        pytest.skip("NOT RUN: stock restic is missing (python -m tests.tools.restic gets one)")
    return found


def place_of(name: str) -> Path:
    """Where the restic of a name is, or would be: ``debian``, ``newest``, or an older one's version."""
    return {"debian": DEBIAN, "newest": OURS}.get(name) or OURS.with_name(f"restic-{name.removeprefix('v')}")


def version(program: str | None = None) -> tuple[int, ...]:
    """Of the restic found, or of this one, as (major, minor, patch)."""
    said = subprocess.run([program or needed(), "version"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, said.split()[1].partition("-")[0].split(".")))


def restic(repository: str, password: str, *words: str, cwd: Path | None = None, program: str | None = None) -> str:
    """Run stock restic on a repository; it must succeed. Its output, bytes that are no UTF-8 replaced."""
    done = subprocess.run(
        [program or needed(), "--no-cache", *words],
        env={**os.environ, "RESTIC_REPOSITORY": repository, "RESTIC_PASSWORD": password},
        cwd=cwd, capture_output=True, text=True, errors="replace", check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, f"restic {' '.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout


def provide() -> str | None:
    """Put a restic into .tools/bin; None when there is one now, else why there is none."""
    if OURS.exists():
        return None
    OURS.parent.mkdir(parents=True, exist_ok=True)
    reasons = []
    for way in (build, from_debian):
        reason = way()
        if reason is None:
            return None
        reasons.append(reason)
    return "; ".join(reasons)


def build() -> str | None:
    """From the Go module, of exactly ``VERSION``."""
    if shutil.which("go") is None:
        return "Go is not installed"
    print(f"building stock restic {VERSION}, the judge of our vaults (once, about a minute)", flush=True)
    with tempfile.TemporaryDirectory(prefix="refloat-restic-") as folder:
        words = ["go", "install", "-trimpath", f"github.com/restic/restic/cmd/restic@{VERSION}"]
        return run(words, {"GOBIN": folder}) or install(Path(folder) / "restic")


def provide_older(wanted: str) -> str | None:
    """Put an older one beside ours; None when it is there now, else why it is not.

    From a copy of its module's sources: ``go install`` refuses modules that replace others, as 0.16 does.
    """
    if place_of(wanted).exists():
        return None
    if shutil.which("go") is None:
        return "Go is not installed"
    print(f"building stock restic {wanted} (once, about a minute)", flush=True)
    with tempfile.TemporaryDirectory(prefix="refloat-restic-") as folder:
        got = Path(folder) / "module.json"
        words = ["sh", "-c", f"go mod download -json github.com/restic/restic@{wanted} > {got}"]
        if (reason := run(words, {})) is not None:
            return reason
        source = Path(folder) / "source"
        shutil.copytree(json.loads(got.read_text())["Dir"], source)
        words = ["sh", "-c", f"chmod -R u+w {source} && cd {source} && go build -trimpath -o ../restic ./cmd/restic"]
        return run(words, {}) or install(Path(folder) / "restic", place_of(wanted))


def from_debian() -> str | None:
    """Debian's own: older, and just as good a judge."""
    if shutil.which("restic") is None:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            return "no restic on this machine, and no right to install Debian's"
        reason = run(["apt-get", "install", "--yes", "--quiet", "restic"], {"DEBIAN_FRONTEND": "noninteractive"})
        if reason is not None:
            return reason
    found = shutil.which("restic")
    return install(Path(found)) if found else "Debian's restic is not on the path"


def run(words: list[str], environment: dict[str, str]) -> str | None:
    """Run a command; None when it succeeded, else the last of what it said."""
    try:
        done = subprocess.run(
            words, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{' '.join(words)}: {error}"
    said = (done.stderr or done.stdout).strip().splitlines() or ["no word"]
    return f"{' '.join(words)}: {said[-1]}" if done.returncode else None


def install(program: Path, to: Path = OURS, word: str = "version") -> str | None:
    """Copy it into place in one step, so that a broken-off copy is never taken for it; ``word`` makes it speak."""
    to.parent.mkdir(parents=True, exist_ok=True)
    unfinished = to.with_name(f"{to.name}-{os.getpid()}")
    shutil.copy2(program, unfinished)
    reason = run([str(unfinished), word], {})
    if reason is not None:
        unfinished.unlink()
        return reason
    unfinished.replace(to)
    return None


if __name__ == "__main__":
    why_not = provide()
    if why_not is not None:
        sys.exit(f"NOT RUN: stock restic: {why_not}")
    for older in OLDER if "--all" in sys.argv[1:] else ():
        if (why_not := provide_older(older)) is not None:
            sys.exit(f"NOT RUN: stock restic {older}: {why_not}")
