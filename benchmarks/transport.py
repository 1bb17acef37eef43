"""What moves bytes to and from S3: our own requests beside boto3 and the bare minimum, in the same run.

Usage: python -m benchmarks.transport [--rounds N] [--json FILE]. A versitygw of its own on loopback; the ways take
turns, every number is the median of the rounds. CPU is the client's alone.
The bare minimum is http.client: no proxies, no CAs, no pool, so it shows what those cost and is no candidate.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import statistics
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from benchmarks.places import REGION, Bucket, s3_server
from providers.object_stores.s3_bodies import NOTHING
from refloat.registry import open_object_store
from tests.tools import versitygw

MIB = 1 << 20
PACK = 17 * MIB
OBJECT = "object"
FLIGHTS = (1, 2, 8, 16, 32)


@dataclass(frozen=True)
class Way:
    """How to put a pack under a key and to get a range of the object."""

    name: str
    put: Callable[[str], None]
    get: Callable[[int, int], bytes]


@dataclass(frozen=True)
class Case:
    """``count`` requests of ``size`` bytes each, ``flight`` of them at once."""

    verb: str
    size: int
    count: int
    flight: int


@dataclass(frozen=True)
class Spent:
    """Of one request: seconds of the run, and CPU seconds of the client."""

    wall: float
    cpu: float


def ways(bucket: Bucket, body: bytes) -> list[Way]:
    """boto3 as a careful caller sets it up, the product's store, and http.client with the same signatures."""
    digest = sha256(body)
    words = bucket.environment
    store = open_object_store(f"s3://{bucket.name}", words)
    client = boto3.client(
        "s3", endpoint_url=words["AWS_ENDPOINT_URL"], region_name=REGION,
        aws_access_key_id=bucket.access, aws_secret_access_key=bucket.secret,
        config=Config(
            max_pool_connections=max(FLIGHTS), retries={"total_max_attempts": 1, "mode": "standard"},
            s3={"addressing_style": "path"}, request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )  # fmt: skip

    def boto_get(start: int, size: int) -> bytes:
        answer = client.get_object(Bucket=bucket.name, Key=OBJECT, Range=f"bytes={start}-{start + size - 1}")
        return bytes(answer["Body"].read())

    bare = Bare(bucket, store._bodies._signed)  # type: ignore[attr-defined]
    return [
        Way("boto3", lambda key: bool(client.put_object(Bucket=bucket.name, Key=key, Body=body)) or None, boto_get),
        Way(
            "refloat",
            lambda key: store.put(key, body, sha256=digest.digest()),
            lambda start, size: store.get(OBJECT, start=start, length=size),
        ),
        Way("http.client", lambda key: bare.put(key, body, digest.hexdigest()), bare.get),
    ]


class Bare:
    """http.client, one kept connection for each thread."""

    def __init__(self, bucket: Bucket, signed: Callable[..., dict[str, str]]) -> None:
        self._bucket, self._signed, self._local = bucket, signed, threading.local()

    def _ask(self, method: str, key: str, words: dict[str, str], digest: str, body: bytes | None) -> bytes:
        line = getattr(self._local, "line", None)
        if line is None:
            parts = urlsplit(f"http://{self._bucket.address}")
            line = self._local.line = http.client.HTTPConnection(str(parts.hostname), parts.port)
            line.connect()
            line.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        path = f"/{self._bucket.name}/{key}"
        line.request(method, path, body, self._signed(method, path, words, digest))
        answer = line.getresponse()
        found = answer.read()
        if answer.status not in (200, 206):
            sys.exit(f"{method} {path}: {answer.status} {found!r}")
        return bytes(found)

    def put(self, key: str, body: bytes, digest: str) -> None:
        """A whole object."""
        self._ask("PUT", key, {}, digest, body)

    def get(self, start: int, size: int) -> bytes:
        """A range of the object."""
        return self._ask("GET", OBJECT, {"Range": f"bytes={start}-{start + size - 1}"}, NOTHING, None)


def cases() -> list[Case]:
    """Packs both ways, and the ranges that a restore asks for."""
    puts = [Case("put", PACK, 12, flight) for flight in (1, 2, 8)]
    gets = [(PACK, 16), (MIB, 96), (64 << 10, 400), (4 << 10, 800)]
    return puts + [Case("get", size, count, flight) for size, count in gets for flight in FLIGHTS]


def run(way: Way, case: Case) -> Spent:
    """One case by one way, connections warm."""

    def one(number: int) -> None:
        if case.verb == "put":
            way.put(f"pack-{number % case.flight}")
        elif len(way.get(number * 1_000_003 % (PACK - case.size + 1), case.size)) != case.size:
            sys.exit(f"{way.name} read something else than it asked for")

    with ThreadPoolExecutor(case.flight) as pool:
        list(pool.map(one, range(2 * case.flight)))
        begun, before = perf_counter(), _cpu()
        list(pool.map(one, range(case.count)))
        return Spent((perf_counter() - begun) / case.count, (_cpu() - before) / case.count)


def show(case: Case, spent: Spent) -> str:
    """One way's columns."""
    rates = f"{case.size / spent.wall / 1e6:>7.0f}{spent.cpu / case.size * 1e9:>9.2f}"
    return f"{1e3 * spent.wall:>10.2f}{1e3 * spent.cpu:>8.2f}{rates}"


def _cpu() -> float:
    spent = os.times()
    return spent.user + spent.system


def main() -> None:
    """Run all cases and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    program = versitygw.find()
    if program is None:
        sys.exit("NOT RUN: no versitygw (python -m tests.tools.versitygw gets one)")
    rows = []
    body = os.urandom(PACK)
    with (
        tempfile.TemporaryDirectory(prefix="refloat-transport-") as folder,
        s3_server(program, Path(folder)) as server,
    ):
        bucket = server.bucket("transport")
        found = ways(bucket, body)
        found[0].put(OBJECT)
        names = [way.name for way in found]
        print(f"{'':22}" + "".join(f"{name:>34}" for name in names))
        print(f"{'':22}" + f"{'ms wall':>10}{'ms CPU':>8}{'MB/s':>7}{'CPU-s/GB':>9}" * len(found))
        for case in cases():
            spent: dict[str, list[Spent]] = {name: [] for name in names}
            for _ in range(args.rounds):
                for way in found:
                    spent[way.name].append(run(way, case))
                found.reverse()
            middle = {
                name: Spent(statistics.median(s.wall for s in each), statistics.median(s.cpu for s in each))
                for name, each in spent.items()
            }
            rows.append({**asdict(case), **{name: asdict(each) for name, each in middle.items()}})
            cells = (show(case, middle[name]) for name in names)
            print(f"{case.verb} {case.size >> 10:>6} KiB x{case.flight:<7}" + "".join(cells), flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
