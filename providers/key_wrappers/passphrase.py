"""Wraps by a passphrase: a person's words, made into a key by scrypt (``passphrase://env/NAME``, ``passphrase://file/path``).

RFC 7914; cost as OWASP's password storage cheat sheet asks of scrypt: N = 2**17, r = 8, p = 1, which takes 128 MiB.
The cost stands with what was wrapped, so that it can grow; what is read has a ceiling.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from providers.key_wrappers.gcm import KEY_BYTES, seal, unseal
from refloat.errors import ConfigError, IntegrityError, MissingKey

LOG_N, R, P = 17, 8, 1
SALT_BYTES = 16
MEMORY_LIMIT_BYTES = 512 << 20
MOST_ROUNDS = 16
_HEAD = struct.Struct(f"<BBBB{SALT_BYTES}s")
_VERSION = 1


class PassphraseKeyWrapper:
    """Reads the passphrase whenever it is used; a new salt, and so a new key, with every wrapping."""

    def __init__(self, url: str, place: str, environment: Mapping[str, str], *, log_n: int = LOG_N) -> None:
        self.url = url
        self._place, self._environment, self._log_n = place, environment, log_n

    def wrap(self, secret: bytes, context: Mapping[str, str]) -> bytes:
        head = _HEAD.pack(_VERSION, self._log_n, R, P, os.urandom(SALT_BYTES))
        return seal(self._key(head), secret, context, head)

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        if len(wrapped) < _HEAD.size:
            raise IntegrityError(f"{len(wrapped)} bytes are too few to be what {self.url} wrapped")
        return unseal(self._key(wrapped[: _HEAD.size]), wrapped, context, self.url, _HEAD.size)

    def close(self) -> None:
        """Nothing is held."""

    def _key(self, head: bytes) -> bytes:
        version, log_n, r, p, salt = _HEAD.unpack(head)
        if version != _VERSION or not (1 <= log_n < 32 and r and 1 <= p <= MOST_ROUNDS):
            raise IntegrityError(f"this is nothing that {self.url} wrapped")
        if 128 * (1 << log_n) * r > MEMORY_LIMIT_BYTES:
            raise IntegrityError(f"what {self.url} wrapped asks for more memory than is sane")
        limit = 128 * (1 << log_n) * r + 128 * r * p + (1 << 20)
        words = self._passphrase().encode()
        return hashlib.scrypt(words, salt=salt, n=1 << log_n, r=r, p=p, maxmem=limit, dklen=KEY_BYTES)

    def _passphrase(self) -> str:
        kind, _, name = self._place.partition("/")
        if kind == "env":
            text, where = self._environment.get(name, ""), f"variable {name}"
        else:
            where = f"file /{name}"
            try:
                text = Path(f"/{name}").read_text()
            except (OSError, UnicodeDecodeError) as wrong:
                said = getattr(wrong, "strerror", None) or "it is not UTF-8 text"
                raise MissingKey(f"passphrase file /{name} cannot be read: {said}") from wrong
        words = text.removesuffix("\n").removesuffix("\r")
        if not words.strip():
            raise MissingKey(f"the passphrase is missing: {where} is empty or not set")
        return words


def open_wrapper(url: str, environment: Mapping[str, str]) -> PassphraseKeyWrapper:
    """The wrapper of a URL that says where the passphrase is, never the passphrase itself.

    Raises:
        ConfigError: It names neither a variable nor a file.
    """
    parts = urlsplit(url)
    name = unquote(parts.path).removeprefix("/")
    is_variable = parts.netloc == "env" and name and "/" not in name
    if parts.scheme != "passphrase" or not (is_variable or (parts.netloc == "file" and name)) or parts.query:
        raise ConfigError("a passphrase wrapper is passphrase://env/VARIABLE or passphrase://file/ABSOLUTE/PATH")
    return PassphraseKeyWrapper(url, f"{parts.netloc}/{name}", environment)
