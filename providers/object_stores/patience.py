"""How long a store's passing faults are borne, and how bodies go out on a slow line; what the cloud stores share."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from refloat.clock import Deadline, pause
from refloat.errors import RefloatError, Retry

PIECE = 2**18
"""Bytes handed to the socket at once: the time limit is for one of them, so a slow line is no dead one."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Patience:
    """How long passing faults are borne. A try ends ``connect`` or ``read`` after the last sign of life."""

    connect: timedelta = timedelta(seconds=5)
    read: timedelta = timedelta(seconds=30)
    tries: int = 12
    """A store that fails every third request fails one call in 500,000 for good."""
    first_pause: timedelta = timedelta(seconds=0.1)
    """Doubles with every try up to ``longest_pause``, less up to half at random."""
    longest_pause: timedelta = timedelta(seconds=4)
    whole: timedelta = timedelta(seconds=60)
    """No new try begins after it."""

    @property
    def seconds(self) -> tuple[float, float]:
        """The limits of one try: to connect, and to the next sign of life."""
        return self.connect.total_seconds(), self.read.total_seconds()

    def bear(
        self,
        call: Callable[[], _T],
        foreign: tuple[type[Exception], ...],
        translate: Callable[[Exception], RefloatError],
    ) -> _T:
        """The call's answer, repeated while it fails in passing; foreign errors translated.

        Raises:
            RefloatError: What it failed with last.
        """
        deadline, wait = Deadline.after(self.whole), self.first_pause
        for left in reversed(range(self.tries)):
            try:
                return call()
            except RefloatError as error:
                failed = error
            except foreign as error:
                failed = translate(error)
                failed.__cause__ = error
            if failed.retry is not Retry.LATER or not left or deadline.is_over:
                raise failed
            pause(wait * random.uniform(0.5, 1.0))
            wait = min(2 * wait, self.longest_pause)
        raise AssertionError("patience has at least one try")


USUAL = Patience()


class Pieces:
    """A body whose bytes go out piece by piece; may be sent again."""

    def __init__(self, body: bytes) -> None:
        self._body = memoryview(body)

    def __len__(self) -> int:
        return len(self._body)

    def __iter__(self) -> Iterator[memoryview]:
        return (self._body[start : start + PIECE] for start in range(0, len(self._body), PIECE))
