"""The house's import rules, held by import-linter inside plain pytest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[2]


def test_every_import_contract_holds(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Layers, strangers, the single importer of the Kubernetes client, and who may know Prefect."""
    monkeypatch.chdir(ROOT)
    outcome = lint_imports(config_filename=str(ROOT / ".importlinter"), no_cache=True)
    assert outcome == 0, capsys.readouterr().out


def test_a_forbidden_import_breaks_a_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The contracts can fail: a vault that imports Prefect is caught."""
    for package in ("vault", "kube"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / "vault" / "bad.py").write_text("import kube\n")
    config = tmp_path / "contracts.ini"
    config.write_text(
        "[importlinter]\nroot_packages =\n  vault\n  kube\n"
        "[importlinter:contract:1]\nname = vault knows no cluster\ntype = forbidden\n"
        "source_modules = vault\nforbidden_modules = kube\n"
    )
    code = "import sys; from importlinter.cli import lint_imports as lint; sys.exit(lint(sys.argv[1], no_cache=True))"
    words = [sys.executable, "-c", code, str(config)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "vault.bad -> kube" in done.stdout
