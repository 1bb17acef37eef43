"""The chunker polynomial of a vault's configuration: random, irreducible over GF(2), of degree 53 (restic's chunker).

refloat cuts at fixed places and never uses it; restic checks it at every opening and cuts by it.
"""

from __future__ import annotations

import secrets

DEGREE = 53


def random_polynomial() -> int:
    """A random irreducible polynomial, one bit per coefficient."""
    while True:
        candidate = secrets.randbits(DEGREE) | 1 << DEGREE | 1
        if is_irreducible(candidate):
            return candidate


def is_irreducible(value: int) -> bool:
    """Ben-Or's test: no common factor with x^(2^i) - x for any i up to half the degree."""
    degree = value.bit_length() - 1
    power = 2
    for _ in range(degree // 2):
        power = _remainder(_product(power, power), value)
        if _common_factor(value, power ^ 2) != 1:
            return False
    return degree > 0


def _product(left: int, right: int) -> int:
    result = 0
    while right:
        if right & 1:
            result ^= left
        left <<= 1
        right >>= 1
    return result


def _remainder(value: int, by: int) -> int:
    size = by.bit_length()
    while value.bit_length() >= size:
        value ^= by << (value.bit_length() - size)
    return value


def _common_factor(left: int, right: int) -> int:
    while right:
        left, right = right, _remainder(left, right)
    return left
