"""`refloat points --explain`: the timeline of one point, its certificate as stored, and points that have none."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from refloat.recovery_point import CataloguedPoint
from refloat.registry import open_object_store
from refloat.verdict import judged
from tests.cli.command import InProcess
from tests.unit.certificates import proving
from tests.vault.given import MANIFEST, PASSWORD, point_over
from vault.archive import archive
from vault.catalogue import seal
from vault.repository import init
from vault.tally import Tally

Flags = tuple[str, ...]


@pytest.fixture
def flags(tmp_path: Path) -> Flags:
    """What leads to the vault."""
    (tmp_path / "password").write_text(PASSWORD)
    return ("--vault", f"file://{tmp_path / 'vault'}", "--password-file", str(tmp_path / "password"))


@pytest.fixture
def sealed(tmp_path: Path, flags: Flags) -> list[CataloguedPoint]:
    """A point of before certificates, and one that has one."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_text("content")
    vault = init(open_object_store(f"file://{tmp_path / 'vault'}", {}), PASSWORD)
    made = []
    for hours, certificate in enumerate((None, judged(proving()))):
        done = archive(vault, tmp_path / "source", Tally(), parent=None)
        point = point_over(("data", done), after=timedelta(hours=hours))
        label = {"consistency": certificate.verdict} if certificate else {}
        point = point.model_copy(update={"certificate": certificate, **label})
        made.append(seal(vault, point, {MANIFEST: b'{"kind": "ConfigMap"}'}))
    vault.close()
    return made


def test_the_latest_or_the_one_asked_for(refloat: InProcess, flags: Flags, sealed: list[CataloguedPoint]) -> None:
    """As text for people; lines are not cut off in a pipe."""
    old, new = sealed
    shown = refloat("points", "shop", "--explain", *flags).done().stdout.splitlines()
    assert shown[0].startswith(f"point {new.point.id} of shop, cut ")
    assert shown[1] == "application-consistent"
    assert any(line.startswith("shop/a (orders)  ") and "=*=" in line for line in shown)
    assert "  a fresh write went through afterwards" in shown
    named = refloat("points", "--explain", "--point", old.point.id[:8], *flags).done().stdout.splitlines()
    assert named == [
        f"point {old.point.id} of shop, cut 2026-11-24 12:00:00Z by volume-snapshots",
        "crash-consistent: it was sealed before there were certificates, nothing is proven here",
    ]
    assert refloat("points", "--explain", "--at", "2026-11-24T12:30", *flags).done().stdout.splitlines() == named


def test_as_it_is_stored(refloat: InProcess, flags: Flags, sealed: list[CataloguedPoint]) -> None:
    """For scripts: the certificate itself, null where there is none."""
    old, new = sealed
    told = refloat("points", "shop", "--explain", *flags, "-o", "json").done().json
    assert (told["point"], told["consistency"]) == (new.point.id, "application-consistent")
    assert new.point.certificate is not None
    assert told["certificate"] == new.point.certificate.model_dump(mode="json")
    assert (
        refloat("points", "--explain", "--point", old.point.id, *flags, "-o", "json").done().json["certificate"] is None
    )


def test_only_the_point_asked_for_is_listed(refloat: InProcess, flags: Flags, sealed: list[CataloguedPoint]) -> None:
    """--point and --at choose without --explain as well; a point that is not there is an error."""
    listed = refloat("points", "--point", sealed[0].point.id, *flags, "-o", "json").done().json
    assert [each["point"]["id"] for each in listed] == [sealed[0].point.id]
    absent = refloat("points", "--explain", "--point", "ffffffffffffffff", *flags)
    assert (absent.exit_code, absent.error_code) == (60, "NO-RECOVERY-POINT")
