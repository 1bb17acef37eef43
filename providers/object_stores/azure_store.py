"""The object store in Azure Blob Storage, over Azure's own client.

A small body is one request; a larger one is blocks, which nobody sees until their list is committed. Blocks bear names
of this very put: the client's own are numbers only, so two writers of one key would commit each other's. Every request
carries the MD5 of its body, which the service compares. Passing faults are repeated here, in one way for every call.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from hashlib import md5
from typing import Any, TypeVar

from azure.core import MatchConditions
from azure.storage.blob import BlobBlock, ContentSettings, ImmutabilityPolicy, StandardBlobTier

from providers.object_stores.addresses import Address, is_loopback
from providers.object_stores.azure import Settings
from providers.object_stores.azure_client import ONE_REQUEST, connect, handed_on
from providers.object_stores.azure_errors import FOREIGN, translate
from providers.object_stores.buckets import described, honours_conditional_create, in_order, sized
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

MOST_BYTES = 50_000 * ONE_REQUEST
"""A blob has at most 50,000 blocks (learn.microsoft.com, "Scalability targets for Blob storage")."""
CONCURRENCY = 8
COLD_FROM = 2**20
"""Smaller blobs stay in the account's default tier: they are read at every run."""
PUT_ID = "refloatput"
"""Metadata that tells our own put, repeated after a lost answer, from another writer's; an identifier, as it must."""
Page = list[Any]
_T = TypeVar("_T")


class AzureObjectStore:
    """``refloat.ports.object_store.ObjectStore`` and ``ImmutableStore`` over one container and prefix."""

    def __init__(self, address: Address, settings: Settings, patience: Patience = USUAL) -> None:
        self._address, self._settings, self._patience = address, settings, patience
        self._guard, self._probing = threading.Lock(), threading.Lock()
        self._opened: Any = None
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
                    is_local=is_loopback(self._settings.endpoint),
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
        sha256: bytes | None = None,  # noqa: ARG002 - the service compares MD5
    ) -> None:
        """Store ``body`` whole; the service refuses one that is not as its MD5 says.

        Raises:
            AlreadyExists: ``if_absent`` and the key exists.
            Immutable: The key exists and is kept.
            StoreFull: No room.
        """
        validate_key(key)
        whole = body if isinstance(body, bytes) else bytes(body)
        put_id = secrets.token_hex(16)
        more: dict[str, Any] = {"metadata": {PUT_ID: put_id}}
        if self._settings.tier and len(whole) >= COLD_FROM:
            more["standard_blob_tier"] = StandardBlobTier(self._settings.tier)
        send = self._send_whole if len(whole) <= ONE_REQUEST else self._send_blocks
        try:
            self._again("cannot be stored", key, lambda: send(key, whole, put_id, if_absent, more))
        except (AlreadyExists, Immutable):
            # A request repeated after a lost answer, here or by a proxy, meets the object that the first one made.
            if self._put_id(key) != put_id:
                raise

    def _send_whole(self, key: str, body: bytes, put_id: str, if_absent: bool, more: Mapping[str, Any]) -> None:  # noqa: ARG002 - as _send_blocks
        answer = self._blob(key).upload_blob(
            body, length=len(body), overwrite=not if_absent, validate_content=True, **self._scope(), **more
        )
        self._stored(key, answer)

    def _send_blocks(self, key: str, body: bytes, put_id: str, if_absent: bool, more: Mapping[str, Any]) -> None:
        blob, names = self._blob(key), []
        for number, start in enumerate(range(0, len(body), ONE_REQUEST)):
            names.append(f"{put_id}{number:05}")  # of one length, as all names of a blob's blocks must be
            piece = body[start : start + ONE_REQUEST]
            blob.stage_block(names[-1], piece, length=len(piece), validate_content=True, **self._scope())
        conditions: dict[str, Any] = {"match_condition": MatchConditions.IfMissing} if if_absent else {}
        answer = blob.commit_block_list(
            [BlobBlock(block_id=name) for name in names],
            content_settings=ContentSettings(content_md5=bytearray(md5(body, usedforsecurity=False).digest())),
            **self._scope(), **conditions, **more,
        )  # fmt: skip
        self._stored(key, answer)

    def _stored(self, key: str, answer: Mapping[str, Any]) -> None:
        if not answer.get("etag"):  # every Blob server says it; a proxy's page does not, and stores nothing
            raise Unavailable(f"{self._place(key)} cannot be stored: what answers is no Blob server", key=key)

    def _scope(self) -> dict[str, str]:
        scope = self._settings.encryption_scope
        return {"encryption_scope": scope} if scope else {}

    def _put_id(self, key: str) -> str | None:
        try:
            return str((self._facts(key).metadata or {}).get(PUT_ID))
        except NotFound:
            return None

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """The bytes from ``start``, exactly ``length`` of them, or all to the end; the whole against its MD5.

        Raises:
            NotFound: No such key.
            RangeNotSatisfiable: Fewer bytes exist than asked for.
        """
        validate_key(key)
        wanted = sized(self, key, start, length)
        return b"" if wanted == 0 else self._again("cannot be read", key, lambda: self._read(key, start, wanted))

    def _read(self, key: str, start: int, length: int | None) -> bytes:
        where = {} if length is None else {"offset": start, "length": length}
        stream = self._blob(key).download_blob(max_concurrency=1, **where)
        body = bytes(stream.readall())
        if length is not None and len(body) != length:
            few = f"{self._place(key)} has {len(body)} bytes from {start}, not {length}"
            raise RangeNotSatisfiable(few, key=key)
        said = stream.properties.content_settings.content_md5
        if length is None and len(body) != stream.size:
            raise Unavailable(f"{self._place(key)} gave {len(body)} of {stream.size} bytes", key=key)
        if length is None and said and bytes(said) != md5(body, usedforsecurity=False).digest():
            raise Unavailable(f"{self._place(key)} cannot be read: not as its MD5 says", key=key)
        return body

    def stat(self, key: str) -> StoredObject:
        """Size and time.

        Raises:
            NotFound: No such key.
        """
        found = self._facts(key)
        return described(self, key, found.size, found.last_modified)

    def _facts(self, key: str) -> Any:
        validate_key(key)
        return self._again("cannot be read", key, lambda: self._blob(key).get_blob_properties())

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Every object whose key starts with ``prefix``, sorted by key; a page of 5000 is asked for when it is needed.

        Raises:
            Unsupported: The server does not list in the order of keys.
        """
        yield from in_order(self, self._address.key(""), self._listed(prefix))

    def _listed(self, prefix: str) -> Iterator[tuple[str, object, object]]:
        token = None
        while True:
            items, token = self._again("cannot be listed", None, partial(self._page, prefix, token))
            yield from ((str(found.name), found.size, found.last_modified) for found in items)
            if not token:
                return

    def _page(self, prefix: str, token: str | None) -> tuple[Page, str | None]:
        found = self._container().list_blobs(name_starts_with=self._address.key(prefix) or None)
        pages = found.by_page(continuation_token=token)
        try:
            items = list(next(pages))
        except (AttributeError, TypeError) as error:  # the client reads a web page as a listing of nothing it knows
            what = f"{self.url} cannot be listed: what answers is no Blob server"
            raise Unavailable(what) from error
        if not getattr(pages, "service_endpoint", None):
            raise Unavailable(f"{self.url} cannot be listed: what answers is no Blob server")
        return items, getattr(pages, "continuation_token", None) or None

    def delete(self, key: str) -> None:
        """Remove the object; succeeds when it is already gone. With versioning this hides it.

        Raises:
            Immutable: It is under a policy or held.
        """
        validate_key(key)
        try:
            self._again("cannot be removed", key, lambda: self._blob(key).delete_blob())
        except NotFound as missing:
            if "key" not in missing.context:
                raise

    def immutability(self, key: str) -> Immutability:
        """What keeps the object: its own policy and legal hold; a container's policy is not shown by the service.

        Raises:
            NotFound: No such key.
        """
        found = self._facts(key)
        policy = found.immutability_policy
        until = policy.expiry_time if policy else None
        return Immutability(
            retain_until=until.astimezone(UTC) if until else None,
            is_locked=bool(policy) and str(policy.policy_mode or "").lower() == "locked",
            legal_hold=bool(found.has_legal_hold),
        )

    def retain(self, key: str, until: datetime, *, locked: bool = True) -> None:
        """Keep the object until a date, or longer where it is kept longer already.

        Raises:
            NotFound: No such key.
            Unsupported: The container was not made for version-level immutability.
        """
        has = self.immutability(key)
        ends = until.astimezone(UTC) if has.retain_until is None else max(until.astimezone(UTC), has.retain_until)
        if has.retain_until == ends and (has.is_locked or not locked):
            return
        if locked and not has.is_locked and has.retain_until is None:
            self._set_policy(key, ends, "Unlocked")  # Azure locks only a policy that is there
        self._set_policy(key, ends, "Locked" if locked or has.is_locked else "Unlocked")
        kept = self.immutability(key)
        if kept.retain_until is None or kept.retain_until < ends.replace(microsecond=0):
            # an emulator answers success and keeps nothing
            raise Unsupported(f"{self._place(key)}: the store does not keep what it was told to keep", key=key)

    def _set_policy(self, key: str, until: datetime, mode: str) -> None:
        policy = ImmutabilityPolicy(expiry_time=until, policy_mode=mode)
        self._again("cannot be kept", key, lambda: self._blob(key).set_immutability_policy(policy))

    def hold(self, key: str, held: bool) -> None:
        """Set or lift the object's legal hold.

        Raises:
            NotFound: No such key.
            Unsupported: The container was not made for version-level immutability.
        """
        validate_key(key)
        self._again("cannot be held", key, lambda: self._blob(key).set_legal_hold(held))

    def mover_environment(self) -> Mapping[str, str]:
        """Credentials and settings for a mover; an identity hands on a signature for this container and a day.

        Raises:
            AccessDenied: There are no credentials to hand on.
        """
        give = partial(handed_on, self._settings, self._address.bucket, self._patience)
        return self._again("cannot be handed on", None, give)

    def close(self) -> None:
        """Let go of connections."""
        with self._guard:
            if self._opened is not None:
                self._opened.close()

    def _container(self) -> Any:
        with self._guard:
            if self._opened is None:
                self._opened = connect(self._settings, self._address.bucket, self._patience)
            return self._opened

    def _blob(self, key: str) -> Any:
        return self._container().get_blob_client(self._address.key(validate_key(key)))

    def _again(self, what: str, key: str | None, call: Callable[[], _T]) -> _T:
        return self._patience.bear(call, FOREIGN, lambda error: self._translate(error, what, key))

    def _translate(self, error: Exception, what: str, key: str | None) -> RefloatError:
        place = self.url if key is None else self._place(key)
        return translate(error, f"{place} {what}", container=self._address.bucket, key=key)

    def _place(self, key: str) -> str:
        return f"{self.url}/{key}"
