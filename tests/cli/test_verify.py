"""`refloat verify`: exit code, table, JSON and expected points, without Prefect and without a cluster."""

from __future__ import annotations

import json
import random
from datetime import timedelta
from pathlib import Path

import pytest

from refloat.recovery_point import CataloguedPoint
from refloat.registry import open_object_store
from tests.cli.command import InProcess
from tests.vault.given import PASSWORD, protect
from vault.repository import init

Flags = tuple[str, ...]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The folder of the vault."""
    return tmp_path / "vault"


@pytest.fixture
def flags(tmp_path: Path, place: Path) -> Flags:
    """What leads to it."""
    (tmp_path / "password").write_text(PASSWORD)
    return ("--vault", f"file://{place}", "--password-file", str(tmp_path / "password"))


@pytest.fixture
def sealed(tmp_path: Path, place: Path) -> list[CataloguedPoint]:
    """Two points of the shop, the second with a file of its own."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "shared").write_bytes(random.Random(1).randbytes(5000))
    vault = init(open_object_store(f"file://{place}", {}), PASSWORD)
    made = [protect(vault, source)]
    (source / "own").write_bytes(random.Random(2).randbytes(90_000))
    made.append(protect(vault, source, after=timedelta(hours=1)))
    vault.close()
    return made


def _largest(place: Path) -> Path:
    return max(place.glob("data/*/*"), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("level", ["structure", "sample", "full"])
def test_an_intact_vault_is_exit_0(refloat: InProcess, flags: Flags, sealed: list[CataloguedPoint], level: str) -> None:
    """With or without a name; table and JSON say the same."""
    shown = refloat("verify", *flags, "--level", level).done()
    assert [line.split()[0] for line in shown.stdout.splitlines()[1:3]] == [each.point.id for each in sealed]
    assert shown.stdout.count(" intact") == 2
    told = refloat("verify", "shop", *flags, "--level", level, "-o", "json").done().json
    assert (told["is_intact"], told["damage"], told["level"]) == (True, [], level)
    assert [each["id"] for each in told["points"]] == [each.point.id for each in sealed]
    one = refloat("verify", *flags, "--point", sealed[1].point.id[:8], "-o", "json").done().json
    assert [each["id"] for each in one["points"]] == [sealed[1].point.id]


def test_damage_is_exit_49_with_exactly_whom_it_hits(
    refloat: InProcess, flags: Flags, place: Path, sealed: list[CataloguedPoint]
) -> None:
    """One JSON value on standard output, the error in words on standard error."""
    pack = _largest(place)
    pack.unlink()
    for level in ("structure", "sample", "full"):
        outcome = refloat("verify", *flags, "--level", level, "-o", "json")
        assert (outcome.exit_code, outcome.error_code) == (49, "INTEGRITY")
        (damage,) = outcome.json["damage"]
        assert damage["object"] == f"data/{pack.name[:2]}/{pack.name}"
        assert [(each["id"], each["path"]) for each in damage["points"]] == [
            (sealed[1].point.id, "volumes/shop/data/own")
        ]
        assert [each["is_intact"] for each in outcome.json["points"]] == [True, False]
    shown = refloat("verify", *flags)
    assert f"affects point {sealed[1].point.id} of shop" in shown.stdout
    assert "the others are intact" in shown.stderr
    assert refloat("verify", *flags, "--point", sealed[0].point.id).exit_code == 0


def test_points_that_must_be_there_are_missed(
    refloat: InProcess, flags: Flags, place: Path, sealed: list[CataloguedPoint], tmp_path: Path
) -> None:
    """By what `refloat points -o json` wrote earlier."""
    known = tmp_path / "known.json"
    known.write_text(refloat("points", *flags, "-o", "json").done().stdout)
    refloat("verify", *flags, "--expect", known).done()
    (place / "snapshots" / sealed[0].snapshot_id).unlink()
    refloat("verify", *flags).done()
    outcome = refloat("verify", *flags, "--expect", known, "-o", "json")
    assert outcome.exit_code == 49
    assert outcome.json["damage"][0]["points"][0]["id"] == sealed[0].point.id
    for text in ("{}", "[7]", "no json"):
        known.write_text(text)
        assert refloat("verify", *flags, "--expect", known).exit_code == 10
    assert refloat("verify", *flags, "--expect", tmp_path / "none").exit_code == 10


def test_what_cannot_be_verified_is_no_success(
    refloat: InProcess, flags: Flags, sealed: list[CataloguedPoint], tmp_path: Path
) -> None:
    """No such application, no such point, no vault, another password."""
    assert refloat("verify", "wiki", *flags).exit_code == 60
    assert refloat("verify", *flags, "--point", "ffffffff").exit_code == 60
    assert refloat("verify", *flags[2:], "--vault", f"file://{tmp_path}/none").exit_code == 40
    (tmp_path / "password").write_text("another")
    assert refloat("verify", *flags).exit_code == 41


def test_a_record_that_does_not_read_is_told_without_its_point(
    refloat: InProcess, flags: Flags, place: Path, sealed: list[CataloguedPoint]
) -> None:
    """And how to find out which it was."""
    (place / "snapshots" / sealed[0].snapshot_id).write_bytes(b"noise")
    outcome = refloat("verify", *flags)
    assert outcome.exit_code == 49
    assert "a recovery point that cannot be named any more: give --expect FILE" in outcome.stdout
    assert json.loads(refloat("verify", *flags, "-o", "json").stdout)["damage"][0]["points"] == []
