"""Where an S3 store is and who asks: its URL, endpoint, region, credentials, and the client made of them."""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from providers.object_stores.s3_errors import FOREIGN, no_credentials, translate
from refloat.errors import ConfigError

BUCKET = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]$")
"""AWS's rule, and the capitals and underscores that older buckets and other servers have."""
PREFIX = re.compile(r"^(?!.*(?:^|/)\.{1,2}(?:/|$))[A-Za-z0-9!_.*'()=@-]+(?:/[A-Za-z0-9!_.*'()=@-]+)*$")
"""Safe characters of the AWS user guide, "Object key naming guidelines", and = and @."""
LONGEST_PREFIX = 500
"""A whole key has at most 1024 bytes, a relative one ``MAX_KEY``."""
CONNECTIONS = 32


@dataclass(frozen=True)
class Address:
    """A bucket and a prefix, perhaps empty, at an endpoint; None is AWS's own."""

    bucket: str
    prefix: str
    endpoint: str | None

    @property
    def url(self) -> str:
        """As ``open_store`` takes it."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def key(self, relative: str) -> str:
        """The whole key, or the beginning of keys, for a relative one."""
        return f"{self.prefix}/{relative}" if self.prefix else relative


def parse(url: str, environment: Mapping[str, str]) -> Address:
    """The address in a URL and an environment.

    Raises:
        ConfigError: One of them is wrong; a URL with a user part is not repeated in the message.
    """
    guidance = "Write s3://bucket/prefix; credentials and endpoint go into AWS_* variables."
    # a secret may hold a slash, and then what stands before the first one has no @
    if not re.fullmatch(r"[A-Za-z0-9._-]*", url.partition("://")[2].partition("/")[0]):
        raise ConfigError("an s3:// address holds no credentials, only a bucket's name", guidance=guidance)
    try:
        parts = urlsplit(url)
    except ValueError as wrong:
        raise ConfigError(f"{url} is no s3:// address: {wrong}", guidance=guidance) from wrong
    prefix = parts.path.removeprefix("/").removesuffix("/")
    if parts.scheme != "s3" or parts.query or parts.fragment:
        raise ConfigError(f"{url} is no s3:// address", guidance=guidance)
    if not BUCKET.match(parts.netloc):
        raise ConfigError(f"{url} names no bucket: {parts.netloc!r} is no bucket's name", guidance=guidance)
    if prefix and (len(prefix) > LONGEST_PREFIX or not PREFIX.match(prefix)):
        raise ConfigError(f"{url} has no usable prefix: {prefix[:80]!r}", guidance=guidance)
    return Address(parts.netloc, prefix, _endpoint(environment))


def _endpoint(environment: Mapping[str, str]) -> str | None:
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        value = environment.get(name, "")
        if not value:
            continue
        if "@" in value:
            raise ConfigError(f"{name} holds credentials", guidance="Give them as AWS_ACCESS_KEY_ID and so on.")
        try:
            parts = urlsplit(value)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable or parts.query or parts.fragment:
            raise ConfigError(f"{name} is no address: {value}", guidance="Write http://host:port or https://host.")
        return value
    return None


class Connection:
    """A session and its client. The client is safe from several threads, the session is not."""

    def __init__(self, session: boto3.Session, client: Any, asked: object) -> None:
        self.session, self.client = session, client
        self._asked, self._process = asked, os.getpid()

    def is_inherited(self, asked: object) -> bool:
        """Whether another process, of which this one is a fork, made it for the same."""
        return self._process != os.getpid() and self._asked == asked

    def take_over(self) -> None:
        """Make it this process's own: its sockets are the other's, and closed here without a word on them."""
        self.client._endpoint.http_session.close()
        self._process = os.getpid()


_held: weakref.WeakSet[Connection] = weakref.WeakSet()
"""Those that somebody holds."""


def connect(
    address: Address, environment: Mapping[str, str], connect_time: timedelta, read_time: timedelta
) -> Connection:
    """Session and client. A fork of a process that holds them for the same takes those over: a client of its own would
    cost each worker of a mover 80 ms and 25 MB.

    Raises:
        ConfigError: The profile does not exist, or half of the credentials is missing.
        AccessDenied: The credentials' provider refuses.
    """
    words = {name: value for name, value in environment.items() if name.startswith("AWS_")}
    asked = address, words, connect_time, read_time
    made = next((each for each in _held if each.is_inherited(asked)), None)
    if made is not None:
        made.take_over()
    else:
        made = Connection(*_connect(address, environment, connect_time, read_time), asked)
        _held.add(made)
    return made


def _connect(
    address: Address, environment: Mapping[str, str], connect_time: timedelta, read_time: timedelta
) -> tuple[boto3.Session, Any]:
    key, secret = environment.get("AWS_ACCESS_KEY_ID") or None, environment.get("AWS_SECRET_ACCESS_KEY") or None
    if (key is None) != (secret is None):
        raise ConfigError("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY go together; one of them is not set")
    config = Config(
        connect_timeout=connect_time.total_seconds(),
        read_timeout=read_time.total_seconds(),
        max_pool_connections=CONNECTIONS,
        tcp_keepalive=True,
        retries={"mode": "standard", "total_max_attempts": 1},
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        user_agent_extra="refloat",
    )
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or None
    try:
        session = boto3.Session(
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            aws_session_token=(environment.get("AWS_SESSION_TOKEN") or None) if key else None,
            region_name=region,
            profile_name=environment.get("AWS_PROFILE") or None,
        )
        return session, session.client(
            "s3",
            region_name=session.region_name or "us-east-1",
            endpoint_url=address.endpoint,
            verify=environment.get("AWS_CA_BUNDLE") or None,
            config=config,
        )
    except (*FOREIGN, ValueError) as error:  # ValueError: an endpoint that the client cannot parse
        what = f"{address.url} cannot be opened"
        raise translate(error, what, bucket=address.bucket, key=None, is_bucket_gone=lambda: False) from error


def credentials(session: boto3.Session, url: str) -> dict[str, str]:
    """The variables that hand the session's credentials on; temporary ones with their token, until they expire.

    Raises:
        AccessDenied: It has none.
    """
    found = session.get_credentials()
    frozen = found.get_frozen_credentials() if found else None
    if frozen is None or not frozen.access_key or not frozen.secret_key:
        raise no_credentials(url)
    token = {"AWS_SESSION_TOKEN": frozen.token} if frozen.token else {}
    return {"AWS_ACCESS_KEY_ID": frozen.access_key, "AWS_SECRET_ACCESS_KEY": frozen.secret_key, **token}
