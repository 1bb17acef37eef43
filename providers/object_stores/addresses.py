"""Where a cloud store's objects are: what the URLs of buckets and containers have in common, and their endpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from refloat.errors import ConfigError

PREFIX = re.compile(r"^(?!.*(?:^|/)\.{1,2}(?:/|$))[A-Za-z0-9!_.*'()=@-]+(?:/[A-Za-z0-9!_.*'()=@-]+)*$")
"""Signs that every store takes in a name as they are."""
LONGEST_PREFIX = 500
"""A whole key has at most 1024 bytes (Google Cloud Storage, Azure Blob), a relative one ``MAX_KEY``."""


@dataclass(frozen=True)
class Address:
    """A bucket or container and a prefix, perhaps empty."""

    scheme: str
    host: str
    """The endpoint's host where the URL names it, else empty."""
    bucket: str
    prefix: str

    @property
    def url(self) -> str:
        """As it is opened with, without a trailing slash."""
        return f"{self.scheme}://" + "/".join(part for part in (self.host, self.bucket, self.prefix) if part)

    def key(self, relative: str) -> str:
        """The whole key, or the beginning of keys, for a relative one."""
        return f"{self.prefix}/{relative}" if self.prefix else relative


def split(url: str, scheme: str, guidance: str) -> tuple[str, str]:
    """What stands before and after the first slash of a URL, the latter without slashes around it.

    Raises:
        ConfigError: It is none of this scheme; one that may hold a secret is not repeated in the message.
    """
    first = url.partition("://")[2].partition("/")[0]
    if not re.fullmatch(r"[A-Za-z0-9._-]*", first):  # a user part, even one that a slash in its secret cuts short
        raise ConfigError(f"{scheme}:// is followed by what is no name; credentials never are", guidance=guidance)
    try:
        parts = urlsplit(url)
    except ValueError as wrong:
        raise ConfigError(f"{url} is no {scheme}:// address: {wrong}", guidance=guidance) from wrong
    if parts.scheme != scheme or parts.query or parts.fragment:
        # what follows a question mark may be a shared access signature
        raise ConfigError(f"{url.partition('?')[0]} is no {scheme}:// address, or says more", guidance=guidance)
    return parts.netloc, parts.path.removeprefix("/").removesuffix("/")


def checked(address: Address, names: re.Pattern[str], guidance: str) -> Address:
    """The address itself when its names are legal.

    Raises:
        ConfigError: They are not.
    """
    if not names.match(address.bucket):
        raise ConfigError(f"{address.url}: {address.bucket!r} is no name of a bucket or container", guidance=guidance)
    if address.prefix and (len(address.prefix) > LONGEST_PREFIX or not PREFIX.match(address.prefix)):
        raise ConfigError(f"{address.url} has no usable prefix: {address.prefix[:80]!r}", guidance=guidance)
    return address


def endpoint(environment: Mapping[str, str], *names: str) -> str | None:
    """The endpoint that the first variable set of these names, without a trailing slash.

    Raises:
        ConfigError: It is no address, or holds credentials.
    """
    name = next((name for name in names if environment.get(name)), None)
    if name is None:
        return None
    value = environment[name]
    if "@" in value or "?" in value:
        raise ConfigError(f"{name} holds credentials", guidance="Give the endpoint alone: https://host.")
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.fragment:
        raise ConfigError(f"{name} is no address: {value}", guidance="Write http://host:port or https://host.")
    return value.rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether only this machine reaches the endpoint."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")
