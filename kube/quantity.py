"""Kubernetes quantities as bytes."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal

from refloat.errors import ConfigError

_QUANTITY = re.compile(r"^([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)(Ki|Mi|Gi|Ti|Pi|Ei|m|k|M|G|T|P|E)?$")
_FACTORS: dict[str, Decimal] = {"": Decimal(1), "m": Decimal("0.001")}
_FACTORS |= {unit: Decimal(1000**n) for n, unit in enumerate("kMGTPE", 1)}
_FACTORS |= {f"{unit}i": Decimal(1024**n) for n, unit in enumerate("KMGTPE", 1)}


def to_bytes(text: str) -> int:
    """``"2Gi"`` → 2147483648 (apimachinery resource.Quantity), rounded up.

    Raises:
        ConfigError: It is no quantity.
    """
    found = _QUANTITY.match(str(text).strip())
    if not found:
        raise ConfigError(f"{text!r} is no quantity")
    return int((Decimal(found[1]) * _FACTORS[found[2] or ""]).to_integral_value(ROUND_CEILING))
