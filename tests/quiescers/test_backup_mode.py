"""PostgreSQL on three volumes that are cut one after another: held in backup mode, a real server over the copies."""

from __future__ import annotations

import os
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from kube.cluster import Cluster
from providers.quiescers import postgresql
from refloat.conformance.quiescer_bench import answer, opened
from refloat.errors import Unsupported
from refloat.ports.quiescer import HoldScript
from tests.contract.given import until_gone
from tests.quiescers.range_bench import RangeBench, pod_of
from tests.quiescers.servers import client, free_port, program, until

NAMESPACE = "quiescers"
VOLUMES = ("data", "log", "space")
PSQL = ("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1")
ROWS = 2000


@dataclass
class Spread:
    """A server over three folders that stand for volumes, and what a client of it says."""

    folder: Path
    bench: RangeBench
    said: Callable[[str], str]


def as_postgres() -> str:
    """PostgreSQL will not run as root."""
    return "setpriv --reuid postgres --regid postgres --clear-groups " if os.geteuid() == 0 else ""


def owned(folder: Path) -> Path:
    """A folder of its user's."""
    folder.mkdir()
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    return folder


@pytest.fixture
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that PostgreSQL's user may enter."""
    place = Path(f"/tmp/refloat-spread-{os.getpid()}-{free_port()}")
    yield owned(place)
    shutil.rmtree(place)


@pytest.fixture
def spread(shared_cluster: Cluster, base: Path) -> Iterator[Spread]:
    """Its data, its log and a tablespace, each on one of three volumes."""
    server, port = program("postgres"), str(free_port())
    for name in VOLUMES:
        owned(base / name)
    owned(base / "space/own")
    script = f"""cd {base}
{as_postgres()}{program("initdb")} -D data/pg -X {base}/log/pg_wal -A trust -U postgres -N >initdb.log 2>&1 || exit 1
exec {as_postgres()}{server} -D {base}/data/pg -k {base} -h '' -p {port} -c shared_buffers=16MB >server.log 2>&1"""
    place = pod_of(shared_cluster, NAMESPACE, f"spread-{port}", script, {})
    env = {"PGHOST": str(base), "PGPORT": port, "PGUSER": "postgres", "PGDATABASE": "postgres"}

    def said(words: str) -> str:
        return client([*PSQL, "-c", words], env).strip()

    until(lambda: said("select 1"), "postgresql answers")
    said(f"create tablespace apart location '{base}/space/own'")
    said("create table kept (id int)")
    said("create table apart_kept (id int) tablespace apart")
    mounts = {str(base / name): name for name in VOLUMES}
    cut_apart = replace(place, mounts=mounts, is_one_instant=False)
    bench = RangeBench(
        shared_cluster, postgresql.open_quiescer(), cut_apart, lambda: None, lambda: None,
        options={"host": str(base), "port": port, "database": "postgres"},
    )  # fmt: skip
    yield Spread(base, bench, said)
    shared_cluster.delete("Pod", place.pod, place.namespace)
    until_gone(shared_cluster, "Pod", place.pod, place.namespace)


def scripts_of(bench: RangeBench) -> list[HoldScript]:
    """What is to be held."""
    return list(bench.quiescer.scripts(bench.place, bench.options, bench.ask))


def cut(base: Path, name: str) -> None:
    """A copy of one volume: of no instant at all, which is more than snapshots ask for."""
    subprocess.run(["cp", "-a", str(base / name), str(base / f"cut-{name}")], check=False, stderr=subprocess.DEVNULL)


@contextmanager
def started_again(base: Path, files: Mapping[str, str]) -> Iterator[tuple[dict[str, str], Path]]:
    """A server over copies of the cuts with these files in its folder; its clients' environment, and its folder."""
    here = owned(base / f"again-{len(files)}")
    for name in VOLUMES:
        subprocess.run(["cp", "-a", str(base / f"cut-{name}"), str(here / name)], check=True)
    data = here / "data/pg"
    for path, text in files.items():
        place = data / Path(path).name
        place.write_text(text.replace(f"{base}/space/", f"{here}/space/"))
        if os.geteuid() == 0:
            shutil.chown(place, "postgres")
    for link in (data / "pg_wal", *(data / "pg_tblspc").iterdir()):
        target = str(link.readlink()).replace(str(base), str(here))
        link.unlink()
        link.symlink_to(target)
    (data / "postmaster.pid").unlink()
    port = str(free_port())
    words = f"exec {as_postgres()}{program('postgres')} -D {data} -k {base} -h '' -p {port}"
    env = {"PGHOST": str(base), "PGPORT": port, "PGUSER": "postgres", "PGDATABASE": "postgres"}
    with (
        (here / "server.log").open("wb") as log,
        subprocess.Popen(["sh", "-c", words], stdout=log, stderr=log) as server,
    ):
        try:
            until(lambda: client([*PSQL, "-c", "select 1"], env, 5), "the copy answers")
            yield env, data
        finally:
            server.terminate()


def test_what_is_cut_one_after_another_is_one_server_again(spread: Spread) -> None:
    """Checkpoints and log go on between the cuts; with label and map the copy has all that was committed."""
    base, bench = spread.folder, spread.bench
    with opened(bench) as hold:
        (script,) = hold.scripts
        assert [bench.place.claim_at(path) for path in script.cut_last] == ["log"]
        for table in ("kept", "apart_kept"):
            spread.said(f"insert into {table} select i from generate_series(1, {ROWS}) i")
        hold.freeze()
        cut(base, "space")
        spread.said("checkpoint")  # what was in memory comes to the volume that was cut already
        spread.said("select pg_switch_wal()")
        cut(base, "data")
        hold.beat()
        hold.holders[0].say("between")
        given = dict(word.split("=", 1) for word in answer(hold.holders[0], "BETWEEN", 5))
        cut(base, "log")
        hold.beat()
        hold.release()
    files = {path: b64decode(given[word]).decode() for word, path in script.adds.items()}
    assert sorted(Path(path).name for path in files) == ["backup_label", "tablespace_map"]
    asked = [*PSQL, "-c", "select (select count(*) from kept), (select count(*) from apart_kept)"]
    with started_again(base, {}) as (env, _):
        assert client(asked, env).strip() == f"{ROWS}|0", "the fault did not fire: locks alone were enough"
    with started_again(base, files) as (env, data):
        assert client(asked, env).strip() == f"{ROWS}|{ROWS}"
        client([*PSQL, "-c", "reindex database postgres"], env)
        # PostgreSQL puts them aside once it has used them
        assert {path.name for path in data.glob("*.old")} == {"backup_label.old", "tablespace_map.old"}
    slots = "select count(*) from pg_replication_slots"
    until(lambda: spread.said(slots) == "0", "the slot ended with the session")


def test_one_instant_or_one_volume_needs_no_backup_mode(spread: Spread) -> None:
    """Nothing is to be cut last, and no file is added."""
    bench, base = spread.bench, str(spread.folder)
    for place in (replace(bench.place, is_one_instant=True), replace(bench.place, mounts={base: "all", "/x": "other"})):
        bench.place = place
        assert [(script.cut_last, dict(script.adds)) for script in scripts_of(bench)] == [((), {})]


def test_a_log_that_is_on_no_volume_is_refused(spread: Spread) -> None:
    """A point without it would never start."""
    bench, base = spread.bench, spread.folder
    bench.place = replace(bench.place, mounts={str(base / name): name for name in ("data", "space")})
    with pytest.raises(Unsupported, match="log/pg_wal lies on no volume"):
        scripts_of(bench)
