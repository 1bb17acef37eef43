"""What keeps the house simple: sizes, names, one client per service, no registry addresses, no drawers."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("refloat", "kube", "vault", "providers", "blocks", "tasks", "flows", "deployments", "cli", "practice")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MOST_LINES = 500
MOST_FUNCTION_LINES = 60


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=named)
def test_file_is_small_and_says_what_it_owns(path: Path) -> None:
    """At most 500 lines (300 wanted), functions at most 60 (30 wanted), and a module docstring."""
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_LINES
    tree = ast.parse(text)
    if path.name != "__init__.py":
        assert ast.get_docstring(tree), "the module's first sentence says what it owns"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < MOST_FUNCTION_LINES, node.name


@pytest.mark.parametrize("path", FILES, ids=named)
def test_one_file_imports_the_kubernetes_client_and_one_the_clock(path: Path) -> None:
    """Only kube/cluster.py knows the client library; product code reads time through refloat.clock."""
    imported = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and node.level == 0
            else []
        )
    }
    if named(path) != "kube/cluster.py":
        assert "kubernetes" not in imported
    if named(path) != "refloat/clock.py" and path.relative_to(ROOT).parts[0] != "practice":
        assert "time" not in imported


def test_no_flow_hides_a_package_or_the_standard_library() -> None:
    """A path entry point puts flows/ first on the import path: names there must be free."""
    taken = set(sys.stdlib_module_names) | set(PACKAGES) | {"prefect", "kubernetes", "boto3", "pydantic", "pytest"}
    assert not taken & {path.stem for path in (ROOT / "flows").glob("*.py")} - {"__init__"}


def test_there_are_no_drawers() -> None:
    """Names that say nothing collect everything."""
    empty = re.compile(r"(^|_)(utils?|helpers?|common|misc|manager|handler)($|_)")
    assert not [named(path) for path in FILES if empty.search(path.stem)]


def test_no_committed_file_names_a_registry() -> None:
    """Pins carry names and versions only; where packages come from is the machine's matter."""
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[^\s/:]+", line) for line in pins if line)
    for name in ("pyproject.toml", "Makefile", ".ci/run"):
        assert not re.search(r"index-url|find-links|pypi\.org|proxy\.golang", (ROOT / name).read_text())
