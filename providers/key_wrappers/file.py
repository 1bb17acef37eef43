"""Wraps by a key in a file: 32 random bytes that only their owner may read (``file:///path/to/key``)."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from providers.key_wrappers.gcm import KEY_BYTES, seal, unseal
from refloat.errors import AccessDenied, ConfigError, NotFound

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class FileKeyWrapper:
    """Reads its key whenever it is used, so that a key that is mounted later is found."""

    def __init__(self, url: str, path: Path) -> None:
        self.url = url
        self._path = path

    def wrap(self, secret: bytes, context: Mapping[str, str]) -> bytes:
        return seal(self._key(), secret, context)

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        return unseal(self._key(), wrapped, context, self.url)

    def close(self) -> None:
        """Nothing is held."""

    def _key(self) -> bytes:
        make = f"Make one: (umask 077; head -c {KEY_BYTES} /dev/urandom > {self._path})"
        try:
            found = self._path.stat()
            if not stat.S_ISREG(found.st_mode) or found.st_size != KEY_BYTES:
                raise ConfigError(f"key file {self._path} is no file of {KEY_BYTES} bytes", guidance=make)
            if found.st_mode & _OTHERS:
                raise ConfigError(
                    f"key file {self._path} has mode {stat.S_IMODE(found.st_mode):04o}: others may read or change it",
                    guidance=f"chmod 0600 {self._path}, and consider whether somebody has read it.",
                )
            key = self._path.read_bytes()
        except FileNotFoundError as missing:
            raise NotFound(f"there is no key file {self._path}", guidance=make) from missing
        except OSError as wrong:
            raise AccessDenied(f"key file {self._path} cannot be read: {wrong.strerror}") from wrong
        if len(key) != KEY_BYTES:
            raise ConfigError(f"key file {self._path} is no file of {KEY_BYTES} bytes", guidance=make)
        return key


def open_wrapper(url: str, environment: Mapping[str, str]) -> FileKeyWrapper:
    """The wrapper of a URL ``file:///path``.

    Raises:
        ConfigError: It names no absolute path.
    """
    del environment
    parts = urlsplit(url)
    if parts.scheme != "file" or parts.netloc or len(parts.path) < 2 or parts.query or parts.fragment:
        raise ConfigError(f"{url} is no file:///path of a key file")
    return FileKeyWrapper(url, Path(unquote(parts.path)))
