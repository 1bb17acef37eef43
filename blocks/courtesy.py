"""What a run tells a Prefect server beyond its states: one try each, and none for a while once the server was away.

Prefect's client tries again for about a minute (``PREFECT_CLIENT_MAX_RETRIES``). A run that has sealed its point does
not wait so long for somebody to listen, nor does a mover.
"""

from __future__ import annotations

from collections.abc import Callable

from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from refloat.clock import monotonic_seconds

AWAY_SECONDS = 60.0
_deaf = [-AWAY_SECONDS]


def courteously(tell: Callable[[], object]) -> object | None:
    """What the call gives; None when it failed, for whatever reason, or the server was away within the last minute."""
    if monotonic_seconds() - _deaf[0] < AWAY_SECONDS:
        return None
    try:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            return tell()
    except Exception:  # noqa: BLE001 - nothing that is told for courtesy fails a run
        _deaf[0] = monotonic_seconds()
        return None
