"""Bars 10, 11 and 12: a store behind a bad line loses nothing, commits nothing twice, and says what went wrong.

Between client and server is a proxy that goes wrong on purpose (``tests.torture.faulty_line``); the server is a real
one, versitygw, where there is one, else an emulated one.
"""

from __future__ import annotations

import random
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from time import monotonic

import boto3
import pytest
from moto.server import ThreadedMotoServer

from benchmarks.places import REGION, s3_server
from providers.object_stores.patience import Patience
from providers.object_stores.s3 import S3ObjectStore
from providers.object_stores.s3_client import parse
from refloat.errors import AccessDenied, AlreadyExists, TimedOut
from tests.tools import versitygw
from tests.tools.restic import find, restic
from tests.torture.faulty_line import FaultyLine, clear
from tests.vault.given import MIB, PASSWORD, protect
from vault.catalogue import points
from vault.repository import OpenVault, init, open_vault
from vault.verify import verify

Rounds = Callable[[int, int], int]
BUCKET = "torture"
USUAL = Patience()
MOST_SLOWDOWN = 2.5
ACROSS = 8
"""Requests in flight."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a server with an empty bucket."""
    with ExitStack() as stack:
        program = versitygw.find()
        if program is not None:
            place = stack.enter_context(s3_server(program, tmp_path_factory.mktemp("server"))).bucket(BUCKET)
            yield place.environment
            return
        moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        moto.start()
        stack.callback(moto.stop)
        host, port = moto.get_host_and_port()
        words = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_REGION": REGION}
        words |= {"AWS_ACCESS_KEY_ID": "emulated", "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16)}
        client = boto3.client(
            "s3", endpoint_url=words["AWS_ENDPOINT_URL"], region_name=REGION, aws_access_key_id="emulated",
            aws_secret_access_key=words["AWS_SECRET_ACCESS_KEY"],
        )  # fmt: skip
        client.create_bucket(Bucket=BUCKET)
        yield words


@pytest.fixture
def line(server: dict[str, str], seed: int) -> Iterator[FaultyLine]:
    """A good line to it, until its weather changes; faults of a test that saw none are a failure."""
    with FaultyLine(server["AWS_ENDPOINT_URL"], seed) as line:
        yield line
        print(f"{line.requests} requests, faults: {dict(line.faults)}")
        assert line.faults, "no fault ever happened"


def behind(line: FaultyLine, server: dict[str, str], prefix: str, patience: Patience = USUAL) -> S3ObjectStore:
    """A store that is reached over the line."""
    words = {**server, "AWS_ENDPOINT_URL": line.endpoint}
    return S3ObjectStore(parse(f"s3://{BUCKET}/{prefix}", words), words, patience)


def straight(server: dict[str, str], prefix: str) -> S3ObjectStore:
    """The same store without it."""
    return S3ObjectStore(parse(f"s3://{BUCKET}/{prefix}", server), server)


def judge(server: dict[str, str], prefix: str) -> None:
    """Stock restic's word, where there is one."""
    if find() is None:
        return
    words = {"AWS_ACCESS_KEY_ID": server["AWS_ACCESS_KEY_ID"], "AWS_SECRET_ACCESS_KEY": server["AWS_SECRET_ACCESS_KEY"]}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in words.items():
            patch.setenv(name, value)
        place = f"s3:{server['AWS_ENDPOINT_URL']}/{BUCKET}/{prefix}"
        said = restic(place, PASSWORD, "-o", "s3.bucket-lookup=path", "check", "--read-data", "--no-lock")
    assert "no errors were found" in said


def storm(rng: random.Random, method: str, path: str) -> str | None:
    """30 % refused, 5 % cut, 1 % torn."""
    drawn = rng.random()
    return "refuse" if drawn < 0.30 else "reset" if drawn < 0.35 else "torn" if drawn < 0.36 else None


def put_files(folder: Path, size: int, seed: int) -> Path:
    """A folder of that many random bytes, mostly in large files."""
    rng = random.Random(seed)
    folder.mkdir()
    for number in range(200):
        (folder / f"small-{number}").write_bytes(rng.randbytes(rng.randrange(20_000)))
    for number in range(8):
        with (folder / f"large-{number}").open("wb") as file:
            for _ in range(8):
                file.write(rng.randbytes(size // 64))
    return folder


def timed_run(vault: OpenVault, folder: Path) -> float:
    """Seconds of one whole run."""
    begun = monotonic()
    with vault.lock("run"):
        protect(vault, folder)
    return monotonic() - begun


@pytest.mark.timeout(1500)
def test_a_storm_delays_a_run_and_spoils_nothing(
    line: FaultyLine, server: dict[str, str], tmp_path: Path, rounds: Rounds, seed: int
) -> None:
    """Bar 10: it completes within 2.5 times the clean time; full verification and stock restic find nothing wrong."""
    size = rounds(48, 1024) * MIB
    folder = put_files(tmp_path / "source", size, seed)
    before = timed_run(init(behind(line, server, "before"), PASSWORD), folder)
    vault = init(behind(line, server, "storm"), PASSWORD)
    line.weather = storm
    spent = timed_run(vault, folder)
    verified = points(open_vault(behind(line, server, "storm"), PASSWORD))
    line.weather = clear
    clean = max(before, timed_run(init(behind(line, server, "after"), PASSWORD), folder))
    print(f"clean {before:.1f} s before and at most {clean:.1f} s; in the storm {spent:.1f} s")
    assert line.faults["refuse"] >= rounds(1, 30)
    fresh = open_vault(straight(server, "storm"), PASSWORD)
    assert points(fresh) == verified and len(verified) == 1
    verify(fresh, verified[0], level="full")
    judge(server, "storm")
    # how long a short run waits is luck: its bar has ten seconds of grace
    assert spent <= MOST_SLOWDOWN * clean + rounds(10, 0), f"{spent:.1f} s instead of {clean:.1f} s"


def test_every_kind_of_request_outlasts_a_storm(
    line: FaultyLine, server: dict[str, str], rounds: Rounds, seed: int
) -> None:
    """Bar 10, by request: with several in flight, for a minute, no call fails and no byte is wrong."""
    store = behind(line, server, f"requests-{seed}")
    line.weather = storm
    ends = monotonic() + rounds(2, 60)

    def work(number: int) -> Counter[str]:
        rng, done = random.Random(seed + number), Counter[str]()
        while monotonic() < ends:
            key, body = f"data/{number}/{done['put']}", rng.randbytes(rng.choice((10, 5_000, 300_000)))
            store.put(key, body, if_absent=bool(done["put"] % 2))
            assert store.get(key) == body
            assert store.get(key, start=3, length=5) == body[3:8]
            assert store.stat(key).size_bytes == len(body)
            assert [one.key for one in store.list(key)][:1] == [key]
            store.delete(key)
            done["put"] += 1
        return done

    with ThreadPoolExecutor(ACROSS) as pool:
        turns = sum(done["put"] for done in pool.map(work, range(ACROSS)))
    line.weather = clear
    print(f"{turns} turns of six calls")
    assert turns and all(line.faults[fault] for fault in ("refuse", "reset"))
    assert list(store.list()) == []


class LosesFirstAnswers:
    """Every put's first answer is lost."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def __call__(self, rng: random.Random, method: str, path: str) -> str | None:
        if method != "PUT" or path in self._seen:
            return None
        self._seen.add(path)
        return "lose"


def test_lost_answers_make_no_false_winner_and_no_duplicate(
    line: FaultyLine, server: dict[str, str], rounds: Rounds, seed: int
) -> None:
    """Bar 11: of two that create each key, exactly one is told that it did, and the object is the winner's."""
    times = rounds(40, 1000)
    stores = [behind(line, server, f"lost-{seed}") for _ in range(2)]
    line.weather = LosesFirstAnswers()

    def create(turn: tuple[int, int]) -> bool:
        number, writer = turn
        try:
            stores[writer].put(f"locks/{number}", b"writer %d" % writer, if_absent=True)
        except AlreadyExists:
            return False
        return True

    turns = [(number, writer) for number in range(times) for writer in range(2)]
    with ThreadPoolExecutor(ACROSS) as pool:
        won = dict(zip(turns, pool.map(create, turns), strict=True))
    assert line.faults["lose"] == times
    for number in range(times):
        winners = [writer for writer in range(2) if won[number, writer]]
        assert len(winners) == 1, f"{len(winners)} writers were told that they created locks/{number}"
        assert stores[0].get(f"locks/{number}") == b"writer %d" % winners[0]


def test_lost_answers_seal_one_point(line: FaultyLine, server: dict[str, str], tmp_path: Path, seed: int) -> None:
    """Bar 11, a run: the first answer to every put is lost; one point is listed, whole, and nothing twice."""
    vault = init(behind(line, server, "lost"), PASSWORD)
    line.weather = LosesFirstAnswers()
    timed_run(vault, put_files(tmp_path / "source", 24 * MIB, seed))
    line.weather = clear
    assert line.faults["lose"] >= 5, "a lock, packs, an index and a record"
    fresh = open_vault(straight(server, "lost"), PASSWORD)
    [point] = points(fresh)
    verify(fresh, point, level="full")
    judge(server, "lost")


def test_a_line_that_repeats_requests_does_not_make_a_winner_a_loser(line: FaultyLine, server: dict[str, str]) -> None:
    """Proxies repeat what they think was lost: the answer that comes through is that to the second."""
    store = behind(line, server, "twice")
    line.weather = lambda rng, method, path: "twice" if method == "PUT" else None
    store.put("locks/a", b"mine", if_absent=True)
    with pytest.raises(AlreadyExists):
        store.put("locks/a", b"other", if_absent=True)
    assert store.get("locks/a") == b"mine" and line.faults["twice"] == 2


def test_a_store_that_never_answers_is_named_in_time(line: FaultyLine, server: dict[str, str]) -> None:
    """Within the patience, and with nothing half-written to be seen."""
    patience = replace(Patience(), read=timedelta(seconds=0.3), tries=2, first_pause=timedelta(milliseconds=10))
    store = behind(line, server, "silent", patience)
    line.weather = lambda rng, method, path: "stall"
    begun = monotonic()
    with pytest.raises(TimedOut, match="s3://torture/silent/data/a"):
        store.put("data/a", bytes(MIB), if_absent=True)
    assert monotonic() - begun < 5 and line.faults["stall"] == 2
    assert list(straight(server, "silent").list()) == []


@pytest.mark.timeout(1500)
def test_credentials_that_expire_leave_no_partial_point(
    line: FaultyLine, server: dict[str, str], tmp_path: Path, rounds: Rounds, seed: int
) -> None:
    """Bar 12: wherever they expire, the run ends by name, nothing partial is listed, and the next run completes."""
    prefix, folder = "expiry", put_files(tmp_path / "source", 4 * MIB, seed)
    near, far = straight(server, prefix), behind(line, server, prefix)
    init(near, PASSWORD)
    timed_run(open_vault(far, PASSWORD), folder)
    whole, rng, ends = line.requests, random.Random(seed), Counter[str]()
    samples = rounds(3, 200)
    for turn in range(samples):
        for old in [*near.list("snapshots/"), *near.list("locks/")]:  # the dead left their locks
            near.delete(old.key)
        for name in ("large-3", "small-7"):
            (folder / name).write_bytes(rng.randbytes((folder / name).stat().st_size))
        last = line.requests + (turn * whole // samples if samples < whole else rng.randrange(whole))
        line.weather = lambda rng, method, path, last=last: "expire" if line.requests > last else None
        try:
            timed_run(open_vault(far, PASSWORD), folder)
        except AccessDenied as denied:
            assert "ExpiredToken" in denied.message
            ends["named"] += 1
        else:
            ends["completed"] += 1
        line.weather = clear
        vault = open_vault(near, PASSWORD)
        listed = points(vault)
        assert len(listed) <= 1
        for point in listed:  # it was sealed before they expired
            ends["sealed"] += 1
            verify(vault, point, level="full")
        timed_run(vault, folder)
        assert len(points(vault)) == len(listed) + 1
    verify(vault, points(vault)[-1], level="full")
    print(f"{samples} expiries over {whole} requests: {dict(ends)}")
    assert ends["named"]
    judge(server, prefix)
