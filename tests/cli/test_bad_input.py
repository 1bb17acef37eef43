"""Bad input, as a practice range can show it: its name, its exit code, guidance, and nothing left or overwritten."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kube.cluster import Cluster
from practice.access import Identity
from practice.range import PracticeRange
from tests.cli import small
from tests.cli.command import Outcome, Program
from tests.cli.conftest import PASSWORD
from tests.e2e.leftovers import leftovers

PENDING, NEVER = "cli-pending", "cli-never"
SIDE_BY_SIDE = 2


@dataclass(frozen=True)
class Scene:
    """What a bad command line may need; ``vault`` holds one point, ``unused`` is never made."""

    folder: Path
    namespace: str
    site: tuple[str, ...]
    reader: str
    nobody: str
    password_file: Path

    def vault(self, name: str, password_file: object = None) -> tuple[object, ...]:
        """Flags of a vault below the scene's folder."""
        return ("--vault", f"file://{self.folder}/{name}", "--password-file", password_file or self.password_file)

    @property
    def unused(self) -> tuple[object, ...]:
        """A vault that no command makes."""
        return self.vault("unused")

    def file(self, name: str, text: str) -> Path:
        """A file with this text."""
        path = self.folder / name
        path.write_text(text)
        return path

    def protect(self, *words: object) -> tuple[object, ...]:
        """Protecting the small application, but for ``words``."""
        return ("protect", "db", "-n", self.namespace, "-l", small.LABEL, *words)


@dataclass(frozen=True)
class Bad:
    """One bad command line; ``says`` is in what is said, so that it can be acted on."""

    name: str
    words: Callable[[Scene], tuple[object, ...]]
    code: str
    exit_code: int
    says: str = ""
    environment: dict[str, str] = field(default_factory=dict)


S3 = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-store", "AWS_REGION": "us-east-1",
      "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}  # fmt: skip
MISSPELT = """\
apiVersion: refloat/v1
kind: Application
name: db
members: [{namespace: cli-small, selectr: app=db}]
"""

CASES = [
    Bad("unknown namespace", lambda s: ("protect", "db", "-n", "no-such-place", *s.site, *s.unused),
        "OBJECT-MISSING", 30, "no-such-place"),
    Bad("unknown context", lambda s: s.protect(*s.site, "--context", "no-such", *s.unused),
        "OBJECT-MISSING", 30, "no-such"),
    Bad("nothing selected", lambda s: ("protect", "db", "-n", s.namespace, "-l", "app=nothing", *s.site, *s.unused),
        "EMPTY-SELECTION", 30, "app=nothing"),
    Bad("no rights at all", lambda s: s.protect("--kubeconfig", s.nobody, *s.unused), "FORBIDDEN", 30),
    Bad("rights to read only", lambda s: s.protect("--kubeconfig", s.reader, *s.unused), "FORBIDDEN", 30, "create"),
    Bad("store that is not there", lambda s: s.protect(*s.site, "--vault", "s3://bucket/vault", "--password-file",
        s.password_file), "UNAVAILABLE", 20, "127.0.0.1:9", S3),
    Bad("wrong password", lambda s: s.protect(*s.site, *s.vault("vault", s.file("other", "wrong"))), "WRONG-KEY", 41),
    Bad("empty password", lambda s: s.protect(*s.site, *s.vault("unused", s.file("empty", "\n"))), "MISSING-KEY", 10),
    Bad("no password", lambda s: s.protect(*s.site, "--vault", f"file://{s.folder}/unused"), "MISSING-KEY", 10,
        "REFLOAT_PASSWORD"),
    Bad("Secret that is not there", lambda s: s.protect(*s.site, "--vault", f"file://{s.folder}/unused",
        "--password-secret", "default/no-such"), "MISSING-KEY", 10, "default/no-such"),
    Bad("vault that is not one", lambda s: s.protect(*s.site, *s.vault("photos")), "NOT-A-VAULT", 44),
    Bad("claim that is Pending", lambda s: ("protect", "p", "-n", PENDING, *s.site, *s.unused),
        "NOT-READY", 30, "waiting"),
    Bad("misspelt field", lambda s: ("protect", "-f", s.file("misspelt.yaml", MISSPELT), *s.site, *s.unused),
        "INVALID-DOCUMENT", 10, "did you mean selector?"),
    Bad("store nobody provides", lambda s: s.protect(*s.site, "--vault", "tape://drive/1", "--password-file",
        s.password_file), "UNKNOWN-PROVIDER", 10, "tape"),
    Bad("points of no vault", lambda s: ("points", "db", *s.unused), "VAULT-MISSING", 40),
    Bad("points by a wrong password", lambda s: ("points", *s.vault("vault", s.file("other", "wrong"))),
        "WRONG-KEY", 41),
    Bad("unknown application", lambda s: ("recover", "no-db", "--yes", *s.site, *s.vault("vault")),
        "NO-RECOVERY-POINT", 60, "no-db"),
    Bad("unknown point", lambda s: ("recover", "db", "--point", "ffffffffffffffff", "--yes", *s.site,
        *s.vault("vault")),
        "NO-RECOVERY-POINT", 60, "ffffffffffffffff"),
    Bad("a time before all points", lambda s: ("plan", "db", "--at", "2020-01-01", *s.site, *s.vault("vault")),
        "NO-RECOVERY-POINT", 60, "2020-01-01"),
    Bad("unknown class", lambda s: ("recover", "db", "--yes", "--to-namespace", NEVER, "--storage-class",
        "practice=no-such-class", *s.site, *s.vault("vault")), "PLAN-BLOCKED", 61, "no-such-class"),
    Bad("recover without rights", lambda s: ("recover", "db", "--yes", "--to-namespace", NEVER, "--kubeconfig",
        s.reader, *s.vault("vault")), "PLAN-BLOCKED", 61),
    Bad("Prefect server that is not there", lambda s: s.protect(*s.site, *s.unused), "UNAVAILABLE", 20, "127.0.0.1:9",
        {"PREFECT_API_URL": "http://127.0.0.1:9/api"}),
    Bad("block that is not there", lambda s: ("protect", "no-such-block", *s.site), "CONFIG", 10, "no-such-block"),
]  # fmt: skip


@pytest.fixture(scope="module")
def scene(
    shared_range: PracticeRange, range_cluster: Cluster, application: str, cluster_flags: tuple[str, ...],
    password_file: Path, program: Program, tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Scene]:  # fmt: skip
    """Identities with few rights, a claim nobody uses, a folder of something else, and a vault with one point."""
    folder = tmp_path_factory.mktemp("scene")
    (folder / "photos").mkdir()
    (folder / "photos" / "holiday.jpg").write_bytes(b"not a vault")
    range_cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": PENDING}})
    asked = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    metadata = {"name": "waiting", "namespace": PENDING}
    range_cluster.create({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": asked})
    reader = Identity("reader", denied=tuple((verb, "[!S]*") for verb in ("create", "update", "patch", "delete")))
    nobody = Identity("nobody", denied=tuple((verb, "*") for verb in ("get", "list", "watch", "delete", "patch")))
    made = Scene(
        folder, application, cluster_flags, str(shared_range.kubeconfig_for(reader)),
        str(shared_range.kubeconfig_for(nobody)), password_file,
    )  # fmt: skip
    program(*made.protect(*made.site, *made.vault("vault"))).done()
    yield made
    range_cluster.delete("Namespace", PENDING)


@pytest.fixture(scope="module")
def outcomes(scene: Scene, program: Program) -> dict[str, Outcome]:
    """Every bad command line, run side by side: none of them may change anything."""
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        ran = pool.map(lambda bad: program(*bad.words(scene), **bad.environment), CASES)
        return {bad.name: outcome for bad, outcome in zip(CASES, ran, strict=True)}


@pytest.mark.parametrize("bad", CASES, ids=lambda bad: bad.name)
def test_bad_input_has_a_name(bad: Bad, outcomes: dict[str, Outcome]) -> None:
    """The error's code and exit code, what to do; no traceback, no secret; standard output stays empty."""
    outcome = outcomes[bad.name]
    assert (outcome.error_code, outcome.exit_code) == (bad.code, bad.exit_code), str(outcome)
    assert bad.says in outcome.stderr
    assert "\n  do        " in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert outcome.stdout == ""
    for secret in (PASSWORD, small.SECRET, S3["AWS_SECRET_ACCESS_KEY"]):
        assert secret not in outcome.stderr


def test_bad_input_leaves_nothing(outcomes: dict[str, Outcome], scene: Scene, range_cluster: Cluster) -> None:
    """Nothing made in cluster or store, and what was there is as it was."""
    assert len(outcomes) == len(CASES)
    assert leftovers(range_cluster) == []
    assert range_cluster.find("Namespace", NEVER) is None
    assert not (scene.folder / "unused").exists()
    assert [path.name for path in (scene.folder / "photos").rglob("*")] == ["holiday.jpg"]
