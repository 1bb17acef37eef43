"""The object store behind the S3 protocol, AWS or any server that speaks it; ``s3://bucket/prefix``.

One put is one request, so a reader never sees a part. Create-if-absent is ``If-None-Match: *``; several servers
answer success and ignore it, so it is probed. Checksum trailers, a newer habit of the client, break some servers
and are left out; the signature covers the body's SHA-256. Passing faults are repeated here, in one way for every call,
and never by the client.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from hashlib import sha256 as hash_of
from typing import Any, TypeVar

from providers.object_stores.addresses import is_loopback
from providers.object_stores.buckets import described, honours_conditional_create, in_order, sized
from providers.object_stores.patience import USUAL, Patience
from providers.object_stores.s3_bodies import Bodies
from providers.object_stores.s3_client import Address, connect, credentials, parse
from providers.object_stores.s3_errors import FOREIGN, is_mute, translate
from refloat.errors import (
    AlreadyExists,
    NotFound,
    Permanent,
    RangeNotSatisfiable,
    RefloatError,
    Unavailable,
    Unsupported,
)
from refloat.ports.object_store import ObjectStoreCapabilities, StoredObject, validate_key

MOST_BYTES = 5 * 2**30
"""One PutObject takes 5 GiB (AWS, PutObject)."""
CONCURRENCY = 8
PUT_ID = "refloat-put"
"""Object metadata that tells our own create-if-absent, repeated after a lost answer, from another writer's."""

_T = TypeVar("_T")


def open_store(url: str, environment: Mapping[str, str]) -> S3ObjectStore:
    """The store under a bucket and prefix; asks nothing of the bucket yet.

    Endpoint and region come from ``AWS_ENDPOINT_URL_S3``, ``AWS_ENDPOINT_URL``, ``AWS_REGION`` and ``AWS_PROFILE`` of
    ``environment``, credentials from its ``AWS_ACCESS_KEY_ID``; what it does not say, from boto3's own chain.

    Raises:
        ConfigError: The URL, the endpoint or the profile is wrong.
    """
    return S3ObjectStore(parse(url, environment), environment)


class S3ObjectStore:
    """``refloat.ports.object_store.ObjectStore`` over one bucket and prefix."""

    def __init__(self, address: Address, environment: Mapping[str, str], patience: Patience = USUAL) -> None:
        self._address, self._patience = address, patience
        self._connection = connect(address, environment, patience.connect, patience.read)
        self._session, self._client = self._connection.session, self._connection.client
        self._bodies = Bodies(self._client, self._session.get_credentials(), address.bucket)
        self._probing = threading.Lock()
        self._capabilities: ObjectStoreCapabilities | None = None

    @property
    def url(self) -> str:
        """The address it was opened with, without a trailing slash."""
        return self._address.url

    def capabilities(self) -> ObjectStoreCapabilities:
        """What a probe found, once: a second conditional put of one key must be refused and change nothing.

        Where the credentials may not delete, the probe's object (16 bytes) stays under ``refloat/probe/``.
        """
        with self._probing:
            if self._capabilities is None:
                self._capabilities = ObjectStoreCapabilities(
                    conditional_create=honours_conditional_create(self),
                    is_local=is_loopback(str(self._client.meta.endpoint_url)),
                    max_object_bytes=MOST_BYTES,
                    advised_concurrency=CONCURRENCY,
                )
            return self._capabilities

    def put(
        self,
        key: str,
        body: bytes | bytearray | memoryview,
        *,
        if_absent: bool = False,
        sha256: bytes | None = None,
    ) -> None:
        """Store ``body`` in one request, signed with its SHA-256, which is computed unless it is given.

        Raises:
            AlreadyExists: ``if_absent`` and the key exists.
            StoreFull: No room, or over quota.
        """
        whole, digest = self._address.key(validate_key(key)), sha256 or hash_of(body).digest()
        put_id = secrets.token_hex(16) if if_absent else None
        asked = 0

        def send() -> None:
            nonlocal asked
            asked += 1
            self._bodies.put(whole, body, digest, put_id=put_id, name=PUT_ID, asks_first=asked > 1)

        try:
            self._again("cannot be stored", key, send)
        except AlreadyExists:
            # A request repeated after a lost answer, here or by a proxy, meets the object that the first one made.
            if put_id is None or self._put_id(key) != put_id:
                raise

    def _put_id(self, key: str) -> str | None:
        try:
            return str(self._head(key).get("Metadata", {}).get(PUT_ID))
        except NotFound:
            return None

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """The bytes from ``start``, exactly ``length`` of them, or all to the end.

        Raises:
            NotFound: No such key.
            RangeNotSatisfiable: Fewer bytes exist than asked for.
            Unsupported: The server ignores ranges.
        """
        wanted = sized(self, key, start, length)
        if wanted == 0:
            return b""
        where = None if wanted is None else f"bytes={start}-{start + wanted - 1}"
        return self._again("cannot be read", key, lambda: self._read(key, where, start, wanted))

    def _read(self, key: str, where: str | None, start: int, length: int | None) -> bytes:
        answer = self._bodies.get(self._address.key(validate_key(key)), where)
        with closing(answer.stream) as stream:
            announced = answer.announced
            if where and not answer.range.startswith(f"bytes {start}-"):
                raise Unsupported(f"{self._place(key)}: the store ignores ranges", key=key)
            if length is not None and announced is not None and announced < length:
                few = f"{self._place(key)} has {announced} bytes from {start}, not {length}"
                raise RangeNotSatisfiable(few, key=key)
            body = stream.read()
        if len(body) != (announced if length is None else length):
            raise Unavailable(f"{self._place(key)} gave {len(body)} of {announced} bytes", key=key)
        return body

    def stat(self, key: str) -> StoredObject:
        """Size and time.

        Raises:
            NotFound: No such key.
        """
        found = self._head(key)
        return described(self, key, found.get("ContentLength"), found.get("LastModified"))

    def _head(self, key: str) -> Any:
        return self._again("cannot be read", key, lambda: self._client.head_object(**self._named(key)))

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Every object whose key starts with ``prefix``, sorted by key; a page of 1000 is asked for when it is needed.

        Raises:
            Unsupported: The server does not list in the order of keys.
        """
        yield from in_order(self, self._address.key(""), self._listed(prefix))

    def _listed(self, prefix: str) -> Iterator[tuple[str, object, object]]:
        words = {"Prefix": self._address.key(prefix)}
        while True:
            page = self._again("cannot be listed", None, partial(self._page, words))
            for found in page.get("Contents", ()):
                yield str(found["Key"]), found.get("Size"), found.get("LastModified")
            if not page.get("IsTruncated"):
                return
            words = {"Prefix": words["Prefix"], "ContinuationToken": page["NextContinuationToken"]}

    def _page(self, words: Mapping[str, str]) -> Any:
        page = self._client.list_objects_v2(Bucket=self._address.bucket, **words)
        if "IsTruncated" not in page:  # every listing says it; a proxy's page does not, and must not read as "empty"
            raise Unavailable(f"{self.url} cannot be listed: what answers is no S3 server")
        if page.get("IsTruncated") and not page.get("NextContinuationToken"):
            raise Permanent(f"{self.url} cannot be listed: the store does not say where its next page begins")
        return page

    def delete(self, key: str) -> None:
        """Remove the object; succeeds when it is already gone. In a versioned bucket this hides it.

        Raises:
            Immutable: It is under retention.
        """
        try:
            self._again("cannot be removed", key, lambda: self._client.delete_object(**self._named(key)))
        except NotFound as missing:  # S3 itself answers success; Google's endpoint answers 404
            if "key" not in missing.context:
                raise

    def mover_environment(self) -> Mapping[str, str]:
        """Credentials, region and endpoint as they were resolved here, in the variables that every S3 client reads.

        Raises:
            AccessDenied: There are no credentials to hand on.
        """
        try:
            words = credentials(self._session, self.url)
        except FOREIGN as error:
            raise self._translate(error, "cannot be handed on", None) from error
        meta = self._client.meta
        return {**words, "AWS_REGION": str(meta.region_name), "AWS_ENDPOINT_URL": str(meta.endpoint_url)}

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    def _again(self, what: str, key: str | None, call: Callable[[], _T]) -> _T:
        return self._patience.bear(call, FOREIGN, lambda error: self._translate(error, what, key))

    def _translate(self, error: Exception, what: str, key: str | None) -> RefloatError:
        place = self.url if key is None else self._place(key)
        if is_mute(error):
            error = self._listing_error() or error
        gone = self._is_bucket_gone
        return translate(error, f"{place} {what}", bucket=self._address.bucket, key=key, is_bucket_gone=gone)

    def _is_bucket_gone(self) -> bool:
        return "NoSuchBucket" in str(self._listing_error() or "")

    def _listing_error(self) -> Exception | None:
        """What is wrong with a request whose answer, unlike those to HEAD, has words."""
        try:
            self._client.list_objects_v2(Bucket=self._address.bucket, MaxKeys=1)
        except FOREIGN as error:
            return error
        return None

    def _named(self, key: str) -> dict[str, str]:
        return {"Bucket": self._address.bucket, "Key": self._address.key(validate_key(key))}

    def _place(self, key: str) -> str:
        return f"{self.url}/{key}"
