"""What recorded facts are made of: the frozen base of their values, and the consistency labels."""

from __future__ import annotations

from enum import Enum
from functools import total_ordering

from pydantic import BaseModel, ConfigDict


@total_ordering
class Consistency(Enum):
    """The label of a point, lowest first in order: labels only ever go down."""

    INCONSISTENT = "inconsistent"
    CRASH = "crash-consistent"
    GROUP_CRASH = "group-crash-consistent"
    APPLICATION = "application-consistent"

    def __lt__(self, other: Consistency) -> bool:
        order = list(Consistency)
        return order.index(self) < order.index(other)


class Value(BaseModel):
    """Base of what programs exchange: frozen; unknown fields of a later version are kept out silently."""

    model_config = ConfigDict(frozen=True, extra="ignore")
