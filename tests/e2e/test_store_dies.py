"""A store that dies half-way through an upload: a named error, nothing sealed or left, and the next run succeeds."""

from __future__ import annotations

from tests.e2e.command import Refloat
from tests.e2e.given import Protected, Site, Vault, environment
from tests.e2e.leftovers import leftovers
from tests.e2e.proxy import DyingStore
from tests.e2e.shop import BULK_BYTES, LABEL
from tests.e2e.stock_restic import restic

DIES_AFTER_BYTES = 6 << 20
UNAVAILABLE, TRANSFER_FAILED = 20, 45


def test_store_that_dies_half_way(protected: Protected, site_a: Site, vault: Vault, refloat: Refloat) -> None:
    """The mover's connection is cut after 6 MiB of a fresh vault's 24 MiB and never comes back; then it is healed."""
    seen_as, endpoint = environment("REFLOAT_E2E_PROXY_HOST"), environment("AWS_ENDPOINT_URL")
    fresh = vault.beside("dying")
    words = ("protect", "shop", "-n", protected.shop.namespace, "-l", LABEL, *site_a.flags, *fresh.flags)
    with DyingStore(endpoint, seen_as, DIES_AFTER_BYTES) as dying:
        failed = refloat.with_environment(AWS_ENDPOINT_URL=dying.endpoint)(*words, phase="protect, store dies half-way")
        assert dying.is_dead, "it never died: nothing was shown"
        assert DIES_AFTER_BYTES <= dying.uploaded_bytes < BULK_BYTES
        assert dying.dropped >= 1
    assert failed.exit_code in (UNAVAILABLE, TRANSFER_FAILED), str(failed)
    assert failed.error_code in ("UNAVAILABLE", "TIMED-OUT", "TRANSIENT", "TRANSFER-FAILED")
    assert "Traceback" not in failed.stderr
    assert refloat.done("points", *fresh.flags, "-o", "json").json == []
    assert leftovers(site_a.cluster) == []
    protected.shop.place_order()

    refloat.done(*words, phase="protect again after the store is back")
    assert len(refloat.done("points", *fresh.flags, "-o", "json").json) == 1
    restic(fresh.url, fresh.password_file, "check", "--read-data", "--no-lock")
    assert leftovers(site_a.cluster) == []
