"""The peers: stock restic and kopia, as their makers ship them, and as a user who changes nothing runs them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from benchmarks.places import REGION, Place
from benchmarks.spent import Spent, run
from benchmarks.tools import DEVICE, PASSWORD, Mode


class Restic:
    """Stock restic with default settings: its cache too, which lies in the place's home and is new with it."""

    name = "restic"

    def __init__(self, program: str, mode: Mode = "folder") -> None:
        self._program, self._mode = program, mode

    def version(self) -> str:
        """Its own word."""
        said = subprocess.run([self._program, "version"], capture_output=True, text=True, check=True).stdout
        return said.split(" compiled")[0].strip()

    def prepare(self, place: Place) -> None:
        """Make an empty repository."""
        self._place = place
        place.home.mkdir(parents=True)
        self._run("init")

    def backup(self, source: Path) -> Spent:
        """The folder's content; a device from standard input."""
        if self._mode == "device":
            return self._run("backup", "--stdin", "--stdin-filename", DEVICE, given=source)
        return self._run("backup", ".", cwd=source)

    def restore(self, target: Path) -> Spent:
        """The latest snapshot; a device as a sparse file."""
        sparse = ("--sparse",) if self._mode == "device" else ()
        return self._run("restore", "latest", "--target", str(target), *sparse)

    def judge(self, place: Place) -> None:
        """Read all that another tool wrote.

        Raises:
            Failed: It is not whole.
        """
        self._place = place
        self._run("check", "--read-data", "--no-lock", "--no-cache")

    def _run(self, *words: str, cwd: Path | None = None, given: Path | None = None) -> Spent:
        bucket = self._place.bucket
        at = f"s3:http://{bucket.address}/{bucket.name}/vault" if bucket else str(self._place.folder)
        options = ["-o", "s3.bucket-lookup=path"] if bucket else []
        environment = {
            **self._place.environment,
            "RESTIC_REPOSITORY": at,
            "RESTIC_PASSWORD": PASSWORD,
            "RESTIC_CACHE_DIR": str(self._place.home / "cache"),
        }
        return run([self._program, *options, *words], environment, cwd=cwd, given=given)[0]


class Kopia:
    """kopia with zstd, and else its default settings: its cache too, which is new with every repository."""

    name = "kopia"

    def __init__(self, program: str) -> None:
        self._program = program

    def version(self) -> str:
        """Its own word, which tests.tools.kopia taught it where that built it."""
        said = subprocess.run([self._program, "--version"], capture_output=True, text=True, check=True).stdout
        return f"kopia {said.strip()}"

    def prepare(self, place: Place) -> None:
        """Make an empty repository that compresses."""
        self._place = place
        place.home.mkdir(parents=True)
        bucket = place.bucket
        where = ["filesystem", "--path", str(place.folder)]
        if bucket:
            address = ["--endpoint", bucket.address, "--disable-tls", "--region", REGION]
            where = ["s3", "--bucket", bucket.name, *address]
        self._run("repository", "create", *where)
        self._run("policy", "set", "--global", "--compression", "zstd")

    def backup(self, source: Path) -> Spent:
        """Snapshot the folder."""
        spent, said = self._run("snapshot", "create", "--json", str(source))
        self._root = json.loads(said)["rootEntry"]["obj"]
        return spent

    def restore(self, target: Path) -> Spent:
        """The last snapshot."""
        return self._run("snapshot", "restore", self._root, str(target))[0]

    def _run(self, *words: str) -> tuple[Spent, str]:
        home = self._place.home
        environment = {
            **self._place.environment,
            "KOPIA_PASSWORD": PASSWORD,
            "KOPIA_CONFIG_PATH": str(home / "config"),
            "KOPIA_CACHE_DIRECTORY": str(home / "cache"),
            "KOPIA_LOG_DIR": str(home / "log"),
            "KOPIA_CHECK_FOR_UPDATES": "false",
            "KOPIA_PERSIST_CREDENTIALS_ON_CONNECT": "false",
        }
        return run([self._program, *words], environment)
