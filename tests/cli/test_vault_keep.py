"""`refloat vault key`, `copy` and `adopt` as people and scripts use them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from refloat.registry import open_object_store
from tests.cli.command import InProcess
from tests.tools.restic import needed, restic
from tests.vault.given import PASSWORD, facts, protect, put_oddities, reopened
from vault.catalogue import points
from vault.repository import init

OTHER = "battery staple"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refloat: InProcess) -> Path:
    """A vault with one point; its password and address are in the environment."""
    del refloat  # which empties the environment first
    folder, source = tmp_path / "vault", tmp_path / "source"
    source.mkdir()
    put_oddities(source)
    vault = init(open_object_store(f"file://{folder}", {}), PASSWORD)
    protect(vault, source)
    vault.close()
    monkeypatch.setenv("REFLOAT_PASSWORD", PASSWORD)
    monkeypatch.setenv("REFLOAT_VAULT", f"file://{folder}")
    return folder


@pytest.fixture
def new_password(tmp_path: Path) -> Path:
    """A file with another password."""
    path = tmp_path / "new"
    path.write_text(OTHER + "\n")
    return path


def key_file(path: Path) -> str:
    """The address of a key file made now."""
    path.write_bytes(os.urandom(32))
    path.chmod(0o600)
    return f"file://{path}"


def test_key_slots_come_and_go(refloat: InProcess, place: Path, new_password: Path) -> None:
    """Added, listed, used, removed; the one in use and the last one stay."""
    added = refloat("vault", "key", "add", "--new-password-file", new_password, "-o", "json").done().json
    listed = refloat("vault", "key", "list", "-o", "json").done().json
    assert [slot["is_current"] for slot in listed] == [True, False]
    assert listed[1] == added
    table = refloat("vault", "key", "list", "--password-file", new_password).done().stdout
    assert f"*{added['id'][:8]}" in table
    assert "refloat@" in table
    current = listed[0]["id"][:8]
    assert refloat("vault", "key", "remove", current, "--yes").error_code == "CONFIG"
    assert refloat("vault", "key", "remove", added["id"][:8]).error_code == "APPROVAL-MISSING"
    assert "would be removed" in refloat("vault", "key", "remove", current, "--dry-run").done().stdout
    refloat("vault", "key", "remove", current, "--force", "--yes").done()
    assert refloat("vault", "key", "list").error_code == "WRONG-KEY"
    last = refloat("vault", "key", "remove", added["id"], "--force", "--yes", "--password-file", new_password)
    assert last.error_code == "CONFIG"
    assert "last key slot" in last.stderr


def test_a_password_is_rotated(refloat: InProcess, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new one comes from a variable; neither is ever shown."""
    monkeypatch.setenv("REFLOAT_NEW_PASSWORD", OTHER)
    done = refloat("vault", "key", "rotate").done()
    assert OTHER not in str(done)
    assert refloat("vault", "key", "list").error_code == "WRONG-KEY"
    reopened(place, OTHER).close()


def test_without_a_new_password_nothing_happens(refloat: InProcess, place: Path, tmp_path: Path) -> None:
    """No terminal to ask on, an empty file, two sources: each is told by name."""
    assert refloat("vault", "key", "add").error_code == "MISSING-KEY"
    (tmp_path / "empty").touch()
    assert refloat("vault", "key", "add", "--new-password-file", tmp_path / "empty").error_code == "MISSING-KEY"
    both = refloat("vault", "key", "add", "--new-password-file", tmp_path / "empty", "--new-wrapper", "file:///x")
    assert both.error_code == "CONFIG"
    assert refloat("vault", "key", "add", "--new-wrapper", f"file://{tmp_path}/none").error_code == "NOT-FOUND"
    assert len(refloat("vault", "key", "list", "-o", "json").done().json) == 1


def test_a_wrapper_in_place_of_the_password(
    refloat: InProcess, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command opens the vault by it, by flag or by REFLOAT_WRAPPER; it is rotated like a password."""
    url = key_file(tmp_path / "key")
    refloat("vault", "key", "add", "--new-wrapper", url).done()
    monkeypatch.delenv("REFLOAT_PASSWORD")
    assert refloat("points", "shop").error_code == "MISSING-KEY"
    monkeypatch.setenv("REFLOAT_WRAPPER", url)
    assert len(refloat("points", "shop", "-o", "json").done().json) == 1
    other = key_file(tmp_path / "other")
    refloat("vault", "key", "rotate", "--new-wrapper", other).done()
    assert refloat("points", "shop").error_code == "WRONG-KEY"
    (slot,) = [
        s for s in refloat("vault", "key", "list", "--wrapper", other, "-o", "json").done().json if s["is_current"]
    ]
    assert slot["wrapped_by"] == ["file"]
    monkeypatch.delenv("REFLOAT_WRAPPER")
    by_flag = (("points", "shop"), ("verify", "shop"), ("expire", "shop", "--dry-run"), ("vault", "prune", "--dry-run"))
    for words in by_flag:
        refloat(*words, "--wrapper", other).done()
        assert refloat(*words, "--wrapper", url).error_code == "WRONG-KEY"
    monkeypatch.setenv("REFLOAT_WRAPPER", url)
    monkeypatch.setenv("REFLOAT_PASSWORD", PASSWORD)
    (tmp_path / "key").chmod(0o644)
    refused = refloat("points", "shop")
    assert refused.error_code == "CONFIG"
    assert "0644" in refused.stderr


def test_a_copy_and_what_it_says(refloat: InProcess, place: Path, tmp_path: Path) -> None:
    """A dry run first; then the copy, and nothing the second time."""
    far = f"file://{tmp_path}/far"
    words = ("vault", "copy", f"file://{place}", far)
    planned = refloat(*words, "--dry-run", "-o", "json").done().json
    assert not (tmp_path / "far" / "config").exists()
    done = refloat(*words, "-o", "json").done().json
    assert (done["dry_run"], done["is_mirror"], len(done["points"])) == (False, True, 1)
    assert done["moved_bytes"] == planned["moved_bytes"] > 0
    assert "1 there already" in refloat(*words).done().stdout
    assert points(reopened(tmp_path / "far")) == points(reopened(place))
    assert refloat("vault", "copy", far, far).error_code == "CONFIG"
    assert refloat(*words, "--application", "another").error_code == "NO-RECOVERY-POINT"


def test_a_copy_under_another_key(refloat: InProcess, place: Path, tmp_path: Path, new_password: Path) -> None:
    """The far end has a password of its own."""
    words = ("vault", "copy", f"file://{place}", f"file://{tmp_path}/far", "--to-password-file", new_password)
    assert refloat(*words[:4], "--new-key").error_code == "CONFIG"
    assert "1 point copied" in refloat(*words, "--new-key").done().stdout
    assert "1 there already" in refloat(*words).done().stdout
    assert refloat("points", "shop", "--vault", f"file://{tmp_path}/far").error_code == "WRONG-KEY"
    assert len(points(reopened(tmp_path / "far", OTHER))) == 1


def test_a_copy_of_a_damaged_vault_ends_with_its_code(refloat: InProcess, place: Path, tmp_path: Path) -> None:
    """What is damaged and what was not copied is named; a script reads one JSON value."""
    for pack in place.glob("data/*/*"):
        pack.chmod(0o600)
        pack.write_bytes(pack.read_bytes()[:-1] + b"?")
    done = refloat("vault", "copy", f"file://{place}", f"file://{tmp_path}/far", "-o", "json")
    assert done.exit_code == 49
    assert done.error_code == "INTEGRITY"
    value = json.loads(done.stdout)
    assert value["points"] == []
    assert set(value["damaged"]) == {str(pack.relative_to(place)) for pack in place.glob("data/*/*")}
    assert "not copied: " in done.stderr


@pytest.mark.lane("restic")
def test_a_restic_repository_is_adopted(refloat: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listed, looked into, and restored from; nothing that is there is lost without a yes."""
    needed()
    source, theirs = tmp_path / "source", tmp_path / "theirs"
    source.mkdir()
    put_oddities(source)
    restic(str(theirs), PASSWORD, "init")
    restic(str(theirs), PASSWORD, "backup", "--host", "pod-0", "--tag", "nightly", str(source))
    monkeypatch.setenv("REFLOAT_PASSWORD", PASSWORD)
    url = f"file://{theirs}"
    listed = refloat("vault", "adopt", url, "-o", "json").done().json
    (snapshot,) = listed["snapshots"]
    assert (snapshot["host"], snapshot["paths"], snapshot["tags"]) == ("pod-0", [str(source)], ["nightly"])
    assert snapshot["point"] is None
    assert snapshot["id"][:8] in refloat("vault", "adopt", url).done().stdout
    assert refloat("points", "--vault", url, "-o", "json").done().json == []
    restore = ("vault", "adopt", url, "--restore", snapshot["id"][:8], "--path", source)
    assert "sub" in refloat(*restore, "--list").done().stdout
    out = tmp_path / "out"
    planned = refloat(*restore, "--to", out, "--dry-run", "-o", "json").done().json
    assert not out.exists()
    refloat(*restore, "--to", out).done()
    assert facts(out) == facts(source)
    assert planned["files"] == sum(path.is_file() and not path.is_symlink() for path in source.rglob("*"))
    (out / "precious").write_text("mine")
    assert refloat(*restore, "--to", out).error_code == "APPROVAL-MISSING"
    assert (out / "precious").exists()
    refloat(*restore, "--to", out, "--yes").done()
    assert facts(out) == facts(source)
    one = ("vault", "adopt", url, "--restore", "latest", "--path", source / "text", "--to", tmp_path / "one")
    refloat(*one).done()
    assert (tmp_path / "one" / "text").read_bytes() == (source / "text").read_bytes()
    assert (
        refloat("vault", "adopt", url, "--restore", "latest", "--path", "/no/such", "--to", out).error_code == "CONFIG"
    )
    assert refloat("vault", "adopt", url, "--restore", "zz", "--to", out).error_code == "NO-RECOVERY-POINT"
    assert refloat("vault", "adopt", url, "--path", "/x").error_code == "CONFIG"


@pytest.mark.lane("restic")
def test_a_damaged_repository_is_not_restored_by_halves(
    refloat: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan already says what is gone; nothing is made."""
    needed()
    source, theirs = tmp_path / "source", tmp_path / "theirs"
    source.mkdir()
    put_oddities(source)
    restic(str(theirs), PASSWORD, "init")
    restic(str(theirs), PASSWORD, "backup", ".", cwd=source)
    monkeypatch.setenv("REFLOAT_PASSWORD", PASSWORD)
    small = min(theirs.glob("data/*/*"), key=lambda path: path.stat().st_size)
    small.unlink()
    outcome = refloat("vault", "adopt", f"file://{theirs}", "--restore", "latest", "--to", tmp_path / "out")
    assert outcome.error_code == "INTEGRITY"
    assert small.name in outcome.stderr
    assert not (tmp_path / "out").exists()
