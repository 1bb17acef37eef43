"""Bits: one bit per small number, for what a dictionary would need gigabytes."""

from __future__ import annotations

from collections.abc import Iterator


class Bits:
    """A set of numbers from 0 up to a size that is known beforehand. Not thread-safe."""

    def __init__(self, size: int) -> None:
        self._bytes = bytearray(size // 8 + 1)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, number: int) -> bool:
        return bool(self._bytes[number >> 3] & 1 << (number & 7))

    def add(self, number: int) -> None:
        """Take in a number; one that is in already stays."""
        if number not in self:
            self._bytes[number >> 3] |= 1 << (number & 7)
            self._count += 1

    def __iter__(self) -> Iterator[int]:
        """Ascending."""
        for place, byte in enumerate(self._bytes):
            if byte:
                yield from (place << 3 | bit for bit in range(8) if byte & 1 << bit)
