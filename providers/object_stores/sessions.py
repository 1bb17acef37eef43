"""The HTTP session that the clouds' clients send through: kept connections, trusted CAs, bodies in pieces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter

from providers.object_stores.patience import PIECE, Pieces

CONNECTIONS = 32


class _InPieces(HTTPAdapter):
    """Hands a body to the socket in pieces: requests' own way gives one time limit to all of it.

    Trusts the CA file named, whatever the process's environment says: there requests' session would lose.
    """

    def __init__(self, ca_file: str | None, **words: Any) -> None:
        self._ca_file = ca_file
        super().__init__(**words)

    def send(self, request: PreparedRequest, *words: Any, **more: Any) -> Response:
        if isinstance(request.body, bytes) and len(request.body) > PIECE:
            request.body = Pieces(request.body)  # type: ignore[assignment]
        if self._ca_file:
            more["verify"] = self._ca_file
        return super().send(request, *words, **more)


def session(environment: Mapping[str, str]) -> Session:
    """A session of our own for one client: repeats nothing, proxies as the process's environment names them.

    ``REQUESTS_CA_BUNDLE`` of ``environment`` names the CA file to trust.
    """
    made = Session()
    ca_file = environment.get("REQUESTS_CA_BUNDLE") or None
    for scheme in ("https://", "http://"):
        made.mount(scheme, _InPieces(ca_file, pool_connections=4, pool_maxsize=CONNECTIONS, max_retries=0))
    return made
