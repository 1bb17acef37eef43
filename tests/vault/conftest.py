"""A vault of the test's own, in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from refloat.registry import open_object_store
from tests.vault.given import PASSWORD
from vault.repository import OpenVault, init


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The folder a vault is in."""
    return tmp_path / "vault"


@pytest.fixture
def vault(place: Path) -> Iterator[OpenVault]:
    """An empty vault."""
    made = init(open_object_store(f"file://{place}", {}), PASSWORD)
    yield made
    made.close()
