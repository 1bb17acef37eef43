"""A vault that is opened while the mover is loaded: what is begun with, what is left to the mover, what goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from refloat.errors import VaultMissing, WrongKey
from tests.vault.given import PASSWORD
from vault.opening import Opening, begin_opening
from vault.repository import OpenVault

GIVEN = {"REFLOAT_PASSWORD": PASSWORD, "OTHER": "another password"}


def test_a_vault_that_a_spec_names_is_opened(vault: OpenVault, tmp_path: Path) -> None:
    """By the text or by a file; what it was asked for is kept, so that nobody takes it for another."""
    text = json.dumps({"vault_url": vault.url})
    (tmp_path / "spec").write_text(text)
    for spec in (text, str(tmp_path / "spec")):
        opening = begin_opening(spec, GIVEN)
        assert opening is not None and opening.asked == (vault.url, PASSWORD)
        with_it = opening.vault()
        assert with_it.id == vault.id
        with_it.close()


def test_what_cannot_be_opened_is_said_to_whoever_asks(vault: OpenVault, tmp_path: Path) -> None:
    """And not before."""
    wrong = begin_opening(json.dumps({"vault_url": vault.url, "password_env": "OTHER"}), GIVEN)
    assert wrong is not None
    with pytest.raises(WrongKey):
        wrong.vault()
    with pytest.raises(VaultMissing):
        Opening(f"file://{tmp_path}/nowhere", {}, PASSWORD).vault()


@pytest.mark.parametrize(
    "spec",
    ["{", "[]", "{}", '{"vault_url": 7}', '{"vault_url": "gopher://hole"}', "/nowhere", "", '{"password_env": []}'],
)
def test_what_is_no_plain_spec_is_left_to_the_mover(spec: str) -> None:
    """It says what is wrong."""
    assert begin_opening(spec, GIVEN) is None


def test_no_password_no_opening(vault: OpenVault) -> None:
    """The mover says which variable is not set."""
    assert begin_opening(json.dumps({"vault_url": vault.url}), {}) is None


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    """What is read from it would be gone when the mover reads its spec."""
    os.mkfifo(tmp_path / "spec")
    assert begin_opening(str(tmp_path / "spec"), GIVEN) is None


def test_nothing_is_loaded_first_that_takes_long() -> None:
    """Else the key would wait for it, and nothing would be done at the same time."""
    words = (
        "import sys, vault.opening, providers.object_stores.folder; print(*{n.partition('.')[0] for n in sys.modules})"
    )
    said = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True).stdout
    assert {"vault", "providers"} <= set(said.split())
    assert not {"pydantic", "boto3", "multiprocessing"} & set(said.split())
