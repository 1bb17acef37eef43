"""The vault lock of a recovery: held where it can be, and never in the way of a bad day."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from practice.range import PracticeRange
from refloat.policy import VaultLocation
from refloat.progress import Event, listening
from refloat.registry import open_object_store
from refloat.target import ClusterRef
from tasks.lock import shielded
from tests.vault.given import PASSWORD
from vault.repository import OpenVault, init


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The folder a vault is in."""
    return tmp_path / "vault"


@pytest.fixture
def vault(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenVault]:
    """An empty vault, whose password is in the environment."""
    monkeypatch.setenv("REFLOAT_PASSWORD", PASSWORD)
    made = init(open_object_store(f"file://{place}", {}), PASSWORD)
    yield made
    made.close()


def test_a_recovery_keeps_pruning_away(vault: OpenVault, place: Path, practice: PracticeRange) -> None:
    """While it reads, and not longer."""
    cluster = ClusterRef(kubeconfig=str(practice.kubeconfig))
    with shielded(VaultLocation(url=vault.url), cluster, run="abc"):
        assert len(list((place / "locks").iterdir())) == 1
    assert not list((place / "locks").iterdir())


def test_a_prune_under_way_does_not_stop_a_recovery(vault: OpenVault, practice: PracticeRange) -> None:
    """It is told, and goes on without a lock of its own."""
    cluster = ClusterRef(kubeconfig=str(practice.kubeconfig))
    said: list[Event] = []
    is_inside = False
    with (
        listening(said.append),
        vault.lock("pruner", is_exclusive=True),
        shielded(VaultLocation(url=vault.url), cluster, run="abc"),
    ):
        is_inside = True
    assert is_inside
    assert [event.kind for event in said] == ["warning"]
    assert "recovering without a vault lock" in said[0].text
