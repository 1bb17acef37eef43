"""Opening of a mover's vault in a thread of its own: deriving the key takes 70 ms of one core, and the rest of the
mover is loaded meanwhile.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from refloat.errors import RefloatError
from refloat.registry import open_object_store
from vault.repository import OpenVault, open_vault


class Opening:
    """A vault that is being opened. Whoever asks for it closes it; a thread that nobody waits for holds up no end."""

    def __init__(self, url: str, environment: Mapping[str, str], password: str) -> None:
        """Raises:
        RefloatError: There can be no such store.
        """
        self.asked = url, password
        self._store = open_object_store(url, environment)
        self._opened: Future[OpenVault] = Future()
        self._thread = threading.Thread(target=self._open, args=(password,), name="open vault", daemon=True)
        self._thread.start()

    def _open(self, password: str) -> None:
        try:
            self._opened.set_result(open_vault(self._store, password))
        except BaseException as error:  # noqa: BLE001 (raised to whoever asks)
            self._opened.set_exception(error)

    def vault(self) -> OpenVault:
        """The open vault; the thread has ended by then, for the mover forks next.

        Raises:
            RefloatError: As ``open_vault``; the store is closed then.
        """
        try:
            opened = self._opened.result()
            self._thread.join()
            return opened
        except BaseException:
            self._store.close()
            raise


def begin_opening(spec_text: str, environment: Mapping[str, str]) -> Opening | None:
    """Begin with the vault that a mover's spec names; None where it does not say one so plainly: ``vault.mover`` then
    reads it properly, and says what is wrong.
    """
    with suppress(RefloatError, OSError, ValueError, LookupError, TypeError, AttributeError):
        if not spec_text.lstrip().startswith("{"):
            if not Path(spec_text).is_file():  # what is read from a pipe is gone
                return None
            spec_text = Path(spec_text).read_text()
        spec = json.loads(spec_text)
        password = environment.get(spec.get("password_env", "REFLOAT_PASSWORD"))
        if password:
            return Opening(spec["vault_url"], environment, password)
    return None
