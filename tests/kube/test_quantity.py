"""Quantities: the suffixes of Kubernetes, exactly, and nothing that is none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kube.quantity import to_bytes
from refloat.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("1", 1), ("1500m", 2), ("1k", 1000), ("1Ki", 1024), ("2Gi", 2 << 30), ("1.5Gi", 3 << 29),
        ("1e3", 1000), ("1E", 10**18), ("1Ei", 1 << 60), ("12E6", 12_000_000), (".5Mi", 1 << 19), ("100M", 10**8),
    ],
)  # fmt: skip
def test_suffixes(text: str, size: int) -> None:
    """Binary and decimal suffixes, exponents, fractions rounded up (apimachinery resource.Quantity)."""
    assert to_bytes(text) == size


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "1gi", "one", "-1", "1Gi!", "1.2.3", "1e"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    """Never guessed at."""
    with pytest.raises(ConfigError, match="no quantity"):
        to_bytes(text)


@settings(deadline=None)
@given(count=st.integers(0, 10**6), suffix=st.sampled_from(["", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"]))
def test_a_larger_number_is_never_a_smaller_size(count: int, suffix: str) -> None:
    """Monotonic, and linear in its number."""
    assert to_bytes(f"{count}{suffix}") == count * to_bytes(f"1{suffix}")
