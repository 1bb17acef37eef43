"""Places for repositories: a folder on disk, or a bucket of a real S3 server on loopback, started for it."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from benchmarks.spent import Failed

REGION = "us-east-1"
START_SECONDS = 30


@dataclass(frozen=True)
class Bucket:
    """A bucket of the server at ``address`` (host:port); its objects lie as files in ``folder``."""

    address: str
    name: str
    folder: Path
    access: str
    secret: str

    @property
    def environment(self) -> dict[str, str]:
        """As every client of S3 takes it."""
        return {
            "AWS_ENDPOINT_URL": f"http://{self.address}",
            "AWS_ACCESS_KEY_ID": self.access,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@dataclass(frozen=True)
class Place:
    """Where one tool keeps one repository, and in ``home`` what it remembers between its runs."""

    home: Path
    bucket: Bucket | None = None

    @property
    def folder(self) -> Path:
        """The repository's folder; of a bucket, where its server keeps it."""
        return self.bucket.folder if self.bucket else self.home / "repository"

    @property
    def environment(self) -> dict[str, str]:
        """The machine's plain environment, without a word about any other store, and the bucket's."""
        plain = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        return {**plain, "HOME": str(self.home), **(self.bucket.environment if self.bucket else {})}

    def stored_bytes(self) -> int:
        """Of all objects of the repository."""
        inner = (path for path in self.folder.rglob("*") if not path.relative_to(self.folder).parts[0].startswith("."))
        return sum(path.stat().st_size for path in inner if path.is_file())

    def remove(self) -> None:
        """The repository and all caches."""
        shutil.rmtree(self.home, ignore_errors=True)
        if self.bucket:
            shutil.rmtree(self.bucket.folder, ignore_errors=True)


class S3Server:
    """versitygw over a folder: an instance of our own, with keys of its own."""

    def __init__(self, address: str, folder: Path, access: str, secret: str) -> None:
        self.address, self._folder, self._access, self._secret = address, folder, access, secret

    def bucket(self, name: str) -> Bucket:
        """A new, empty one."""
        self.client().create_bucket(Bucket=name)
        return Bucket(self.address, name, self._folder / name, self._access, self._secret)

    def client(self) -> Any:
        """boto3's."""
        import boto3

        return boto3.client(
            "s3", endpoint_url=f"http://{self.address}", region_name=REGION, aws_access_key_id=self._access,
            aws_secret_access_key=self._secret,
        )  # fmt: skip


@contextmanager
def s3_server(program: str, folder: Path) -> Iterator[S3Server]:
    """Start one on a free port of loopback, wait until it answers, and stop it at the end.

    Raises:
        Failed: It does not come up.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    objects, users, log = folder / "objects", folder / "users", folder / "log"
    for each in (objects, users):
        each.mkdir(parents=True)
    access, secret = "benchmark", secrets.token_hex(16)
    # without it versitygw ends the connection after every request, as no store in earnest does
    words = [program, "--quiet", "--keep-alive", "--port", address, "--iam-dir", str(users), "posix", str(objects)]
    keys = {"ROOT_ACCESS_KEY_ID": access, "ROOT_ACCESS_KEY": access, "ROOT_SECRET_ACCESS_KEY": secret}
    with log.open("wb") as said:
        process = subprocess.Popen(
            words, env={**_plain(), **keys, "ROOT_SECRET_KEY": secret}, stdout=said, stderr=subprocess.STDOUT
        )
    try:
        _wait(process, address, log)
        yield S3Server(address, objects, access, secret)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _plain() -> Mapping[str, str]:
    return {"PATH": os.environ["PATH"]}


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    host, _, port = address.partition(":")
    end = monotonic() + START_SECONDS
    while process.poll() is None and monotonic() < end:
        with suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return
        sleep(0.05)
    raise Failed(f"the S3 server does not answer at {address}: {log.read_text(errors='replace')[-500:]}")
