"""The hold on real clusters: three engines agree after a recovery, and would not have agreed without it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from refloat.certificate import Certificate
from tests.e2e.command import Refloat
from tests.e2e.given import Site, Vault, environment
from tests.e2e.ledger import Ledger, Teller, document
from tests.e2e.leftovers import leftovers
from tests.e2e.shop import remove_namespace

NAMESPACE, AGAIN = "shop-e2e-ledger", "shop-e2e-ledger-again"
TRIES = 4
"""Cuts without a hold until two servers disagree; one is nearly always enough."""


@pytest.fixture(scope="module")
def ledger(site_a: Site, refloat: Refloat) -> Iterator[Ledger]:
    """The ledger with all its servers ready."""
    assert refloat
    ledger = Ledger(site_a.cluster, NAMESPACE).start(environment("REFLOAT_E2E_POSTGRES_IMAGE"))
    before = ledger.checkpointers()
    yield ledger
    assert ledger.checkpointers() == before, "what a holder left was taken for a crashed server"
    for name in (NAMESPACE, AGAIN):
        remove_namespace(site_a.cluster, name)


def protect(refloat: Refloat, site: Site, vault: Vault, folder: Path, mode: str) -> dict[str, Any]:
    """Protect the ledger from its document; the sealed point."""
    file = folder / f"{mode}.yaml"
    file.write_text(document(NAMESPACE, mode))
    refloat.done("protect", "-f", file, *site.flags, *vault.flags, phase=f"protect the ledger, hold {mode}")
    points = refloat.done("points", "ledger", *site.flags, *vault.flags, "-o", "json").json
    return max((dict(each["point"]) for each in points), key=lambda point: str(point["sealed_at"]))


def recover(refloat: Refloat, site: Site, vault: Vault, point: str) -> Ledger:
    """Into a namespace of its own, empty before."""
    remove_namespace(site.cluster, AGAIN)
    words = ("recover", "ledger", "--point", point, "--to-namespace", AGAIN, "--yes", *site.flags, *vault.flags)
    refloat.done(*words, phase="recover the ledger beside itself")
    return Ledger(site.cluster, AGAIN).wait_ready()


def test_three_engines_agree(ledger: Ledger, site_a: Site, vault: Vault, refloat: Refloat, tmp_path: Path) -> None:
    """Application-consistent, with every cut inside the common hold; no stream's servers contradict each other."""
    beside = vault.beside("ledger")
    with Teller(ledger) as teller:
        point = protect(refloat, site_a, beside, tmp_path, "auto")
        teller.wait_written(1)
    assert leftovers(site_a.cluster) == []
    found = Certificate.model_validate(point["certificate"])
    print(json.dumps({"hold": str(found.hold), "freeze_skew": str(found.freeze_skew), "skew": point["skew"]}))
    assert (point["consistency"], found.reasons) == ("application-consistent", ())
    assert len(found.parts) == 6
    assert len(found.cuts) == 6
    begun, ended = max(part.held_at for part in found.parts), min(part.release_sent_at for part in found.parts)
    assert all(begun < cut.cut_at < ended for cut in found.cuts), "the lab's clocks are one, so this can be compared"
    assert found.hold < timedelta(seconds=10)
    recovered = recover(refloat, site_a, beside, point["id"])
    assert recovered.violations() == []
    assert all(height > 0 for stream in range(2) for height in recovered.heights(stream))


def test_without_a_hold_they_contradict(
    ledger: Ledger, site_a: Site, vault: Vault, refloat: Refloat, tmp_path: Path
) -> None:
    """The same, but for the hold: the label says less, and the servers were not so at any one instant."""
    beside = vault.beside("ledger")
    broken: list[str] = []
    for _ in range(TRIES):
        with Teller(ledger):
            point = protect(refloat, site_a, beside, tmp_path, "never")
        assert point["consistency"] == "group-crash-consistent"
        broken = recover(refloat, site_a, beside, point["id"]).violations()
        if broken:
            break
    assert broken, f"{TRIES} cuts without a hold happened to agree"
