"""Handles: where the vault password comes from, and what is said when it is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from blocks.handles import open_cluster, open_existing_vault, open_or_init_vault, read_password
from kube.cluster import Cluster
from refloat.errors import ConfigError, MissingKey, NotAVault, ObjectMissing, UnknownProvider, VaultMissing, WrongKey
from refloat.policy import PasswordSource, SecretRef, VaultLocation
from refloat.target import ClusterRef


def from_file(path: Path, text: str = "correct horse\n") -> PasswordSource:
    path.write_text(text)
    return PasswordSource(file=str(path))


def test_password_from_file_and_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One trailing line break is an editor's, not the password's; inner and further white space is kept."""
    assert read_password(from_file(tmp_path / "p", "correct horse\r\n"), None) == "correct horse"
    assert read_password(from_file(tmp_path / "p", " two\n\n"), None) == " two\n"
    monkeypatch.setenv("SHOP_PASSWORD", "from env")
    assert read_password(PasswordSource(env="SHOP_PASSWORD"), None) == "from env"


def test_a_missing_password_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, variable: empty or not there; there is no default."""
    monkeypatch.delenv("SHOP_PASSWORD", raising=False)
    for source, says in (
        (PasswordSource(file=str(tmp_path / "none")), "none cannot be read"),
        (from_file(tmp_path / "empty", "\n"), "is empty or not set"),
        (from_file(tmp_path / "blank", "  \n"), "is empty or not set"),
        (PasswordSource(env="SHOP_PASSWORD"), "variable SHOP_PASSWORD is empty or not set"),
    ):
        with pytest.raises(MissingKey, match=says):
            read_password(source, None)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        read_password(PasswordSource(file=str(tmp_path / "binary")), None)


def test_password_from_a_secret(cluster: Cluster, namespace: str) -> None:
    """One key of a Kubernetes Secret; Secret, key or cluster missing is named."""
    secret = {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "vault", "namespace": namespace},
        "stringData": {"password": "from secret"},
    }  # fmt: skip
    cluster.create(secret)

    def source(name: str = "vault", key: str = "password") -> PasswordSource:
        return PasswordSource(secret=SecretRef(namespace=namespace, name=name, key=key))

    assert read_password(source(), cluster) == "from secret"
    with pytest.raises(MissingKey, match=f"there is no Secret {namespace}/other"):
        read_password(source("other"), cluster)
    with pytest.raises(MissingKey, match="has no key 'pass'"):
        read_password(source(key="pass"), cluster)
    with pytest.raises(ConfigError, match="no cluster is given"):
        read_password(source(), None)


def test_clusters_are_opened_once(kubeconfig: str) -> None:
    """Steps ask one by one and share the handle; a context that does not exist is named."""
    assert open_cluster(ClusterRef(kubeconfig=kubeconfig)) is open_cluster(ClusterRef(kubeconfig=kubeconfig))
    with pytest.raises(ObjectMissing, match="no context 'other'"):
        open_cluster(ClusterRef(kubeconfig=kubeconfig, context="other"))
    with pytest.raises(ConfigError, match="/no/such/file"):
        open_cluster(ClusterRef(kubeconfig="/no/such/file"))


def test_vaults_are_made_once_and_opened_by_their_password(tmp_path: Path) -> None:
    """None, made, opened again; a wrong password and a folder of something else change nothing."""
    location = VaultLocation(url=f"file://{tmp_path}/vault", password=from_file(tmp_path / "p"))
    with pytest.raises(VaultMissing):
        open_existing_vault(location, None)
    made = []
    for _ in range(2):
        vault, is_new = open_or_init_vault(location, None)
        vault.close()
        made.append(is_new)
    assert made == [True, False]
    wrong = location.model_copy(update={"password": from_file(tmp_path / "w", "wrong")})
    with pytest.raises(WrongKey):
        open_or_init_vault(wrong, None)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(NotAVault):
        open_or_init_vault(location.model_copy(update={"url": f"file://{tmp_path}/photos"}), None)
    assert [each.name for each in (tmp_path / "photos").iterdir()] == ["holiday.jpg"]
    with pytest.raises(UnknownProvider, match="tape"):
        open_existing_vault(location.model_copy(update={"url": "tape://drive/1"}), None)
