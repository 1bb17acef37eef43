"""Bad input on real clusters: each has its exit code and its named error, and leaves nothing behind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from refloat.registry import open_object_store
from tests.e2e.command import Refloat
from tests.e2e.given import Protected, Site, Vault
from tests.e2e.kubeconfigs import identity
from tests.e2e.leftovers import leftovers
from tests.e2e.shop import LABEL, make_namespace, remove_namespace

RIGHTS, PENDING = "e2e-rights", "e2e-pending"
READ_ALL = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}]


@dataclass(frozen=True)
class Scene:
    """Everything a bad command line may need."""

    site: Site
    vault: Vault
    folder: Path
    nobody: str
    reader: str
    storage_class: str

    @property
    def shop(self) -> tuple[str, ...]:
        """Flags that choose the shop as it is."""
        return ("-n", "shop-e2e", "-l", LABEL)

    @property
    def unused(self) -> Vault:
        """An empty prefix."""
        return self.vault.beside("unused")

    def document(self, text: str) -> str:
        """A file with this text."""
        path = self.folder / "document.yaml"
        path.write_text(text)
        return str(path)

    def password(self, text: str) -> str:
        """A password file."""
        path = self.folder / "other-password"
        path.write_text(text)
        return str(path)


@pytest.fixture(scope="module")
def scene(
    protected: Protected, site_a: Site, vault: Vault, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """Identities with few rights, a namespace with a claim nobody uses, and a prefix with something foreign in it."""
    folder, cluster = tmp_path_factory.mktemp("scene"), site_a.cluster
    for name in (RIGHTS, PENDING):
        make_namespace(cluster, name)
    cluster.create(
        {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "waiting", "namespace": PENDING},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        }
    )  # fmt: skip
    store = open_object_store(vault.beside("foreign").url, os.environ)
    store.put("holiday.jpg", b"not a vault")
    store.close()
    with (
        identity(cluster, site_a.kubeconfig, RIGHTS, "nobody", [], folder) as nobody,
        identity(cluster, site_a.kubeconfig, RIGHTS, "reader", READ_ALL, folder) as reader,
    ):
        yield Scene(site_a, vault, folder, nobody, reader, protected.point["volumes"][0]["storage_class"])
    for name in (RIGHTS, PENDING):
        remove_namespace(cluster, name)


Words = Callable[[Scene], tuple[object, ...]]


@dataclass(frozen=True)
class Bad:
    """One bad command line; ``says`` is in the error, so that it can be acted on."""

    name: str
    words: Words
    code: str
    exit_code: int
    says: str = ""
    environment: dict[str, str | None] = field(default_factory=dict)


def protect(*words: object, namespace: str = "shop-e2e") -> tuple[object, ...]:
    """A protect command line without a choice of vault."""
    return ("protect", "shop", "-n", namespace, *words)


MISSPELT = """\
apiVersion: refloat/v1
kind: Application
name: shop
members:
  - namespace: shop-e2e
    selectr: app.kubernetes.io/part-of=shop
"""

CASES = [
    Bad("unknown namespace", lambda s: protect(*s.site.flags, *s.unused.flags, namespace="no-such-place"),
        "OBJECT-MISSING", 30, "no-such-place"),
    Bad("unknown context", lambda s: protect("-l", LABEL, *s.site.flags, "--context", "no-such", *s.unused.flags),
        "OBJECT-MISSING", 30, "no-such"),
    Bad("kubeconfig that is not there", lambda s: protect("--kubeconfig", "/no/such/file", *s.unused.flags),
        "CONFIG", 10, "/no/such/file"),
    Bad("selector that matches nothing", lambda s: protect("-l", "app=nothing", *s.site.flags, *s.unused.flags),
        "EMPTY-SELECTION", 30, "app=nothing"),
    Bad("no rights at all", lambda s: protect("-l", LABEL, "--kubeconfig", s.nobody, *s.unused.flags),
        "FORBIDDEN", 30),
    Bad("rights to read only", lambda s: protect("-l", LABEL, "--kubeconfig", s.reader, *s.unused.flags),
        "FORBIDDEN", 30, "create"),
    Bad("unknown bucket", lambda s: protect("-l", LABEL, *s.site.flags, "--vault", "s3://refloat-no-such-bucket/vault",
        "--password-file", s.vault.password_file), "NOT-FOUND", 21, "refloat-no-such-bucket"),
    Bad("wrong store keys", lambda s: protect("-l", LABEL, *s.site.flags, *s.unused.flags),
        "ACCESS-DENIED", 21, environment={"AWS_SECRET_ACCESS_KEY": "wrong"}),
    Bad("store that is not there", lambda s: protect("-l", LABEL, *s.site.flags, *s.unused.flags),
        "UNAVAILABLE", 20, environment={"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ENDPOINT_URL_S3": None}),
    Bad("wrong password", lambda s: protect("-l", LABEL, *s.site.flags, "--vault", s.vault.url,
        "--password-file", s.password("wrong")), "WRONG-KEY", 41),
    Bad("empty password", lambda s: protect("-l", LABEL, *s.site.flags, "--vault", s.unused.url,
        "--password-file", s.password("\n")), "MISSING-KEY", 10),
    Bad("no password", lambda s: protect("-l", LABEL, *s.site.flags, "--vault", s.unused.url), "MISSING-KEY", 10),
    Bad("vault that is not one", lambda s: protect("-l", LABEL, *s.site.flags, *s.vault.beside("foreign").flags),
        "NOT-A-VAULT", 44),
    Bad("claim that is Pending", lambda s: protect(*s.site.flags, *s.unused.flags, namespace=PENDING),
        "NOT-READY", 30, "waiting"),
    Bad("misspelt field", lambda s: ("protect", "shop", "-f", s.document(MISSPELT), *s.site.flags, *s.unused.flags),
        "INVALID-DOCUMENT", 10, "selector"),
    Bad("folder vault on a real cluster", lambda s: protect("-l", LABEL, *s.site.flags, "--vault",
        f"file://{s.folder}/vault", "--password-file", s.vault.password_file), "CONFIG", 10),
    Bad("store nobody provides", lambda s: protect("-l", LABEL, *s.site.flags, "--vault", "tape://drive/1",
        "--password-file", s.vault.password_file), "UNKNOWN-PROVIDER", 10, "tape"),
    Bad("points of no vault", lambda s: ("points", "shop", *s.unused.flags), "VAULT-MISSING", 40),
    Bad("recover an unknown application", lambda s: ("recover", "no-shop", "--yes", *s.site.flags, *s.vault.flags),
        "NO-RECOVERY-POINT", 60, "no-shop"),
    Bad("recover an unknown point", lambda s: ("recover", "shop", "--point", "ffffffffffffffff", "--yes",
        *s.site.flags, *s.vault.flags), "NO-RECOVERY-POINT", 60, "ffffffffffffffff"),
    Bad("recover to an unknown class", lambda s: ("recover", "shop", "--yes", "--to-namespace", "e2e-never",
        "--storage-class", f"{s.storage_class}=no-such-class", *s.site.flags, *s.vault.flags),
        "PLAN-BLOCKED", 61, "no-such-class"),
    Bad("recover without a yes", lambda s: ("recover", "shop", "--to-namespace", "e2e-never", *s.site.flags,
        *s.vault.flags), "APPROVAL-MISSING", 65, "--yes"),
    Bad("recover without rights", lambda s: ("recover", "shop", "--to-namespace", "e2e-never", "--yes",
        "--kubeconfig", s.reader, *s.vault.flags), "PLAN-BLOCKED", 61),
]  # fmt: skip


@pytest.mark.parametrize("bad", CASES, ids=lambda bad: bad.name)
def test_bad_input_has_a_name_and_leaves_nothing(bad: Bad, scene: Scene, refloat: Refloat) -> None:
    """The error's code and exit code; no traceback, no secret; nothing created in cluster or store."""
    before = stored(scene.unused)
    outcome = refloat.with_environment(**bad.environment)(*bad.words(scene))
    assert (outcome.error_code, outcome.exit_code) == (bad.code, bad.exit_code), str(outcome)
    said = outcome.stdout + outcome.stderr
    assert bad.says in said
    assert "Traceback" not in said
    assert "do " in outcome.stderr, "it does not say what to do"
    assert Path(scene.vault.password_file).read_text().strip() not in said
    assert leftovers(scene.site.cluster) == []
    assert scene.site.cluster.find("Namespace", "e2e-never") is None
    assert stored(scene.unused) == before == []
    assert not (scene.folder / "vault").exists()


def test_foreign_objects_are_left_alone(scene: Scene) -> None:
    """The prefix that was no vault holds what it held."""
    assert stored(scene.vault.beside("foreign")) == ["holiday.jpg"]


def stored(vault: Vault) -> list[str]:
    """Every key under a vault's prefix."""
    store = open_object_store(vault.url, os.environ)
    try:
        return [each.key for each in store.list()]
    finally:
        store.close()
