"""`refloat expire`, `vault prune` and `vault unlock` as people and scripts use them: shown first, then done."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest

from refloat.errors import LeaseHeld
from refloat.recovery_point import CataloguedPoint
from refloat.registry import open_object_store
from tests.cli.command import InProcess, Program, on_terminal
from tests.vault.given import MANIFEST, PASSWORD, point_over, reopened
from vault.catalogue import points, seal
from vault.files import FileKind, stored
from vault.repository import init

DOCUMENTS = """
apiVersion: refloat/v1
kind: ProtectionPolicy
name: shop-hourly
application: shop
vault: {url: "file://VAULT"}
retention: {hourly: 2}
"""


@pytest.fixture
def sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refloat: InProcess) -> list[CataloguedPoint]:
    """A vault with four points an hour apart; its password and address are in the environment."""
    del refloat  # which empties the environment first
    place = tmp_path / "vault"
    vault = init(open_object_store(f"file://{place}", {}), PASSWORD)
    made = []
    for hours in range(4):
        made.append(seal(vault, point_over(after=timedelta(hours=hours)), {MANIFEST: b"%d" % hours}))
        at = made[-1].point.sealed_at.timestamp()
        os.utime(place / "snapshots" / made[-1].snapshot_id, (at, at))
    vault.close()
    monkeypatch.setenv("REFLOAT_PASSWORD", PASSWORD)
    monkeypatch.setenv("REFLOAT_VAULT", f"file://{place}")
    return made


def _left(tmp_path: Path) -> list[str]:
    return [each.point.id for each in points(reopened(tmp_path / "vault"))]


def test_expire_shows_reasons_and_waits_for_a_yes(
    sealed: list[CataloguedPoint], refloat: InProcess, tmp_path: Path
) -> None:
    """The table and the JSON tell the same; without a yes nothing goes."""
    ids = [each.point.id for each in sealed]
    table = refloat("expire", "shop", "--hourly", 2, "--dry-run").done().stdout
    for line, point_id, decision in zip(
        table.splitlines()[1:], ids, ["expire", "expire", "keep", "keep"], strict=False
    ):
        assert line.startswith(decision)
        assert point_id in line
    assert "no rule keeps it" in table
    assert "the last good point" in table
    plan = refloat("expire", "shop", "--hourly", 2, "--dry-run", "-o", "json").done().json
    assert [each["decision"] for each in plan["points"]] == ["expire", "expire", "keep", "keep"]
    assert plan["points"][0]["reasons"] == ["no rule keeps it"]
    refused = refloat("expire", "shop", "--hourly", 2)
    assert (refused.exit_code, refused.error_code) == (65, "APPROVAL-MISSING")
    assert ids[0] in refused.stderr
    assert _left(tmp_path) == ids
    done = refloat("expire", "shop", "--hourly", 2, "--yes", "-o", "json").done().json
    assert done["expired"] == ids[:2]
    assert _left(tmp_path) == ids[2:]
    assert "keep 2  expire 0" in refloat("expire", "shop", "--hourly", 2, "--yes").done().stdout


def test_expire_follows_the_policy(sealed: list[CataloguedPoint], refloat: InProcess, tmp_path: Path) -> None:
    """A document's retention, which a flag replaces rule by rule; without either every point stays."""
    path = tmp_path / "policy.yaml"
    path.write_text(DOCUMENTS.replace("VAULT", str(tmp_path / "vault")))
    plan = refloat("expire", "shop", "-f", path, "--dry-run", "-o", "json").done().json
    assert [each["decision"] for each in plan["points"]] == ["expire", "expire", "keep", "keep"]
    plan = refloat("expire", "shop", "-f", path, "--hourly", 3, "--dry-run", "-o", "json").done().json
    assert [each["decision"] for each in plan["points"]] == ["expire", "keep", "keep", "keep"]
    plan = refloat("expire", "shop", "--yes", "-o", "json").done().json
    assert {each["decision"] for each in plan["points"]} == {"keep"}
    assert len(_left(tmp_path)) == len(sealed)
    missing = refloat("expire", "shopp", "--hourly", 1, "--yes")
    assert (missing.exit_code, missing.error_code) == (60, "NO-RECOVERY-POINT")


def test_prune_shows_a_plan_and_frees(sealed: list[CataloguedPoint], refloat: InProcess, tmp_path: Path) -> None:
    """After expiry; run again, there is nothing left to do."""
    refloat("expire", "shop", "--hourly", 1, "--yes").done()
    packs = len(list((tmp_path / "vault").glob("data/*/*")))
    assert "nothing in it is used" in refloat("vault", "prune", "--dry-run").done().stdout
    plan = refloat("vault", "prune", "--dry-run", "-o", "json").done().json
    assert plan["done"] is None
    assert plan["plan"]["packs"]["remove"] > 0
    refused = refloat("vault", "prune")
    assert (refused.exit_code, refused.error_code) == (65, "APPROVAL-MISSING")
    assert "nothing in it is used" in refused.stderr
    assert len(list((tmp_path / "vault").glob("data/*/*"))) == packs
    done = refloat("vault", "prune", "--yes", "-o", "json").done().json
    assert done["done"]["packs_removed"] == plan["plan"]["packs"]["remove"] + plan["plan"]["packs"]["repack"]
    assert "freed 0 B" in refloat("vault", "prune", "--yes").done().stdout
    assert _left(tmp_path) == [sealed[-1].point.id]
    wrong = refloat("vault", "prune", "--max-unused", 100)
    assert (wrong.exit_code, wrong.error_code) == (10, "CONFIG")


def test_both_are_held_off_by_a_run(sealed: list[CataloguedPoint], refloat: InProcess, tmp_path: Path) -> None:
    """Exit code 42, and who it is."""
    with reopened(tmp_path / "vault").lock("writer"):
        for words in (("expire", "shop", "--hourly", 1, "--yes"), ("vault", "prune", "--yes")):
            held = refloat(*words)
            assert (held.exit_code, held.error_code) == (42, "LEASE-HELD")
            assert "refloat-writer" in held.stderr
    assert len(_left(tmp_path)) == len(sealed)


def test_unlock_judges_and_removes_the_dead_only(
    sealed: list[CataloguedPoint], refloat: InProcess, tmp_path: Path
) -> None:
    """A stale lock goes at once; a living one only with --all and a yes."""
    del sealed
    vault = reopened(tmp_path / "vault")
    stale = vault.files.write(
        FileKind.LOCK, b'{"time":"2026-01-01T00:00:00Z","exclusive":true,"username":"eve","hostname":"h","pid":7}'
    )
    os.utime(tmp_path / "vault" / "locks" / stale, (0, 0))
    with vault.lock("writer"):
        locks = refloat("vault", "unlock", "--dry-run", "-o", "json").done().json
        assert {each["verdict"]: each["who"].split("@")[0] for each in locks["locks"]} == {
            "stale": "eve", "live": "refloat-writer",
        }  # fmt: skip
        assert locks["removed"] == []
        table = refloat("vault", "unlock").done().stdout
        assert "not refreshed for" in table
        assert "1 lock removed" in table
        assert stale not in [name for name, _ in stored(vault.store, FileKind.LOCK)]
        refused = refloat("vault", "unlock", "--all")
        assert (refused.exit_code, refused.error_code) == (65, "APPROVAL-MISSING")
    environment = {"REFLOAT_HOME": str(tmp_path / "home"), "REFLOAT_PASSWORD": PASSWORD}
    words = ("vault", "unlock", "--all", "--vault", f"file://{tmp_path}/vault")
    with pytest.raises(LeaseHeld, match="somebody removed"), vault.lock("writer") as held:
        code, shown = on_terminal(Program(environment), *words, answer="y")
        assert (code, "1 lock removed" in shown) == (0, True), shown
        held.confirm()
