"""The object store in Google Cloud Storage, over Google's own client.

A put is one request, or a resumable upload whose object appears with its last; each says the body's CRC32C, which the
service compares. Create-if-absent is ``ifGenerationMatch=0``. Passing faults are repeated here, in one way for every
call, and never by the client: what it repeats it cannot tell from another writer's.
"""

from __future__ import annotations

import base64
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from typing import Any, TypeVar

import google_crc32c

from providers.object_stores.addresses import Address, is_loopback
from providers.object_stores.buckets import described, honours_conditional_create, in_order, sized
from providers.object_stores.gcs import Settings
from providers.object_stores.gcs_client import connect, handed_on
from providers.object_stores.gcs_errors import FOREIGN, translate
from providers.object_stores.patience import USUAL, Patience
from refloat.errors import (
    AlreadyExists,
    Immutable,
    NotFound,
    RangeNotSatisfiable,
    RefloatError,
    Unavailable,
    Unsupported,
)
from refloat.ports.immutability import Immutability
from refloat.ports.object_store import ObjectStoreCapabilities, StoredObject, validate_key

MOST_BYTES = 5 * 2**40
"""cloud.google.com/storage/quotas#objects."""
CONCURRENCY = 8
CHUNK = 16 * 2**20
"""Bytes of one request of a resumable upload; bodies of up to 8 MiB are one request (the client's rule)."""
COLD_FROM = 2**20
"""Smaller objects stay in the bucket's default class: they are read at every run."""
PUT_ID = "refloat-put"
"""Object metadata that tells our own put, repeated after a lost answer, from another writer's."""
_FIELDS = "kind,nextPageToken,items(name,size,timeCreated)"

Page = list[Any]
_T = TypeVar("_T")


class GcsObjectStore:
    """``refloat.ports.object_store.ObjectStore`` and ``ImmutableStore`` over one bucket and prefix."""

    def __init__(self, address: Address, settings: Settings, patience: Patience = USUAL) -> None:
        self._address, self._settings, self._patience = address, settings, patience
        self._guard, self._probing = threading.Lock(), threading.Lock()
        self._opened: tuple[Any, Any] | None = None
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
                    is_local=is_loopback(self._settings.endpoint or ""),
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
        sha256: bytes | None = None,  # noqa: ARG002 - the service compares CRC32C
    ) -> None:
        """Store ``body`` whole; the service refuses one that is not as its CRC32C says.

        Raises:
            AlreadyExists: ``if_absent`` and the key exists.
            Immutable: The key exists and is kept.
            StoreFull: Over quota.
        """
        validate_key(key)
        whole = body if isinstance(body, bytes) else bytes(body)
        put_id, checksum = secrets.token_hex(16), _crc32c(whole)
        try:
            self._again("cannot be stored", key, lambda: self._upload(key, whole, put_id, checksum, if_absent))
        except (AlreadyExists, Immutable):
            # A request repeated after a lost answer, here or by a proxy, meets the object that the first one made.
            if self._put_id(key) != put_id:
                raise

    def _upload(self, key: str, body: bytes, put_id: str, checksum: str, if_absent: bool) -> None:
        blob = self._blob(key)
        blob.chunk_size = CHUNK
        blob.metadata, blob.crc32c = {PUT_ID: put_id}, checksum
        if self._settings.storage_class and len(body) >= COLD_FROM:
            blob.storage_class = self._settings.storage_class
        blob.upload_from_file(
            BytesIO(body), size=len(body), content_type="application/octet-stream", checksum=None, retry=None,
            if_generation_match=0 if if_absent else None, timeout=self._patience.seconds,
        )  # fmt: skip
        if blob.size != len(body) or blob.crc32c != checksum:
            raise Unavailable(f"{self._place(key)} cannot be stored: the store does not say what it stored", key=key)

    def _put_id(self, key: str) -> str | None:
        try:
            return str((self._facts(key).metadata or {}).get(PUT_ID))
        except NotFound:
            return None

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """The bytes from ``start``, exactly ``length`` of them, or all to the end; the whole against its CRC32C.

        Raises:
            NotFound: No such key.
            RangeNotSatisfiable: Fewer bytes exist than asked for.
            Unsupported: The server ignores ranges.
        """
        validate_key(key)
        wanted = sized(self, key, start, length)
        return b"" if wanted == 0 else self._again("cannot be read", key, lambda: self._read(key, start, wanted))

    def _read(self, key: str, start: int, length: int | None) -> bytes:
        body: bytes = self._blob(key).download_as_bytes(
            start=None if length is None else start, end=None if length is None else start + length - 1,
            raw_download=True, checksum="crc32c" if length is None else None, retry=None,
            timeout=self._patience.seconds,
        )  # fmt: skip
        if length is not None and len(body) > length:
            raise Unsupported(f"{self._place(key)}: the store ignores ranges", key=key)
        if length is not None and len(body) < length:
            few = f"{self._place(key)} has {len(body)} bytes from {start}, not {length}"
            raise RangeNotSatisfiable(few, key=key)
        return body

    def stat(self, key: str) -> StoredObject:
        """Size and time of the put.

        Raises:
            NotFound: No such key.
        """
        found = self._facts(key)
        return described(self, key, found.size, found.time_created)

    def _facts(self, key: str) -> Any:
        validate_key(key)

        def ask() -> Any:
            blob = self._blob(key)
            blob.reload(retry=None, timeout=self._patience.seconds)
            return blob

        return self._again("cannot be read", key, ask)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Every object whose key starts with ``prefix``, sorted by key; a page of 1000 is asked for when it is needed.

        Raises:
            Unsupported: The server does not list in the order of keys.
        """
        yield from in_order(self, self._address.key(""), self._listed(prefix))

    def _listed(self, prefix: str) -> Iterator[tuple[str, object, object]]:
        token = None
        while True:
            items, token = self._again("cannot be listed", None, partial(self._page, prefix, token))
            yield from ((str(found.name), found.size, found.time_created) for found in items)
            if not token:
                return

    def _page(self, prefix: str, token: str | None) -> tuple[Page, str | None]:
        pages = self._client().list_blobs(
            self._bucket(), prefix=self._address.key(prefix) or None, page_token=token, fields=_FIELDS, retry=None,
            timeout=self._patience.seconds,
        )  # fmt: skip
        page = next(pages.pages)
        if page.raw_page.get("kind") != "storage#objects":  # a proxy's page must not read as "empty"
            raise Unavailable(f"{self.url} cannot be listed: what answers is no Cloud Storage server")
        return list(page), pages.next_page_token

    def delete(self, key: str) -> None:
        """Remove the object; succeeds when it is already gone. In a versioned bucket this hides it.

        Raises:
            Immutable: It is under retention or held.
        """
        validate_key(key)
        try:
            self._again(
                "cannot be removed", key, lambda: self._blob(key).delete(retry=None, timeout=self._patience.seconds)
            )
        except NotFound as missing:
            if "key" not in missing.context:
                raise

    def immutability(self, key: str) -> Immutability:
        """What keeps the object: its own date, the bucket's, and either kind of hold.

        Raises:
            NotFound: No such key.
        """
        found = self._facts(key)
        dates = [at for at in (found.retention.retain_until_time, found.retention_expiration_time) if at is not None]
        return Immutability(
            retain_until=max(dates).astimezone(UTC) if dates else None,
            is_locked=found.retention.mode == "Locked",
            legal_hold=bool(found.temporary_hold or found.event_based_hold),
        )

    def retain(self, key: str, until: datetime, *, locked: bool = True) -> None:
        """Keep the object until a date, or longer where it is kept longer already.

        Raises:
            NotFound: No such key.
            Unsupported: The bucket was not made with object retention enabled.
        """
        self._change(key, lambda blob: _retained(blob, until.astimezone(UTC), locked))

    def hold(self, key: str, held: bool) -> None:
        """Set or lift the object's temporary hold.

        Raises:
            NotFound: No such key.
        """

        def holding(blob: Any) -> bool:
            blob.temporary_hold = held
            return True

        self._change(key, holding)

    def _change(self, key: str, change: Callable[[Any], bool]) -> None:
        """Read the object's facts and write them changed, unless somebody changed them in between: then again."""

        def turn() -> None:
            blob = self._facts(key)
            if not change(blob):
                return
            try:
                blob.patch(if_metageneration_match=blob.metageneration, retry=None, timeout=self._patience.seconds)
            except FOREIGN as error:
                failed = self._translate(error, "cannot be kept", key)
                if isinstance(failed, AlreadyExists):
                    raise Unavailable(f"{self._place(key)} changed meanwhile", key=key) from error
                raise failed from error

        self._again("cannot be kept", key, turn)

    def mover_environment(self) -> Mapping[str, str]:
        """Credentials and settings for a mover: the key's JSON, or a token that ends within the hour.

        Raises:
            AccessDenied: There are no credentials to hand on.
        """

        def words() -> dict[str, str]:
            self._client()
            assert self._opened is not None
            return handed_on(self._settings, self._opened[1])

        return self._again("cannot be handed on", None, words)

    def close(self) -> None:
        """Let go of connections."""
        with self._guard:
            if self._opened is not None:
                self._opened[0].close()

    def _client(self) -> Any:
        with self._guard:
            if self._opened is None:
                self._opened = connect(self._settings)
            return self._opened[0]

    def _bucket(self) -> Any:
        return self._client().bucket(self._address.bucket, user_project=self._settings.billed_project)

    def _blob(self, key: str) -> Any:
        whole = self._address.key(validate_key(key))
        return self._bucket().blob(whole, chunk_size=None, kms_key_name=self._settings.kms_key)

    def _again(self, what: str, key: str | None, call: Callable[[], _T]) -> _T:
        return self._patience.bear(call, FOREIGN, lambda error: self._translate(error, what, key))

    def _translate(self, error: Exception, what: str, key: str | None) -> RefloatError:
        place = self.url if key is None else self._place(key)
        return translate(error, f"{place} {what}", bucket=self._address.bucket, key=key)

    def _place(self, key: str) -> str:
        return f"{self.url}/{key}"


def _crc32c(body: bytes) -> str:
    """As the service writes it: big-endian, base64 (RFC 9260, appendix B)."""
    return base64.b64encode(google_crc32c.value(body).to_bytes(4, "big")).decode()


def _retained(blob: Any, until: datetime, locked: bool) -> bool:
    """Set the date and mode on the blob; whether anything is to be written."""
    has, mode = blob.retention.retain_until_time, blob.retention.mode
    if has is not None and has >= until and (mode == "Locked" or not locked):
        return False
    blob.retention.mode = "Locked" if locked or mode == "Locked" else "Unlocked"
    blob.retention.retain_until_time = until if has is None else max(until, has)
    return True
