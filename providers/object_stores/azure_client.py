"""Who asks Azure Blob Storage: credentials, the client made of them, and what is handed on to a mover."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobServiceClient, ContainerClient, ContainerSasPermissions, generate_container_sas

from providers.object_stores.azure import Settings
from providers.object_stores.patience import Patience
from providers.object_stores.sessions import session
from refloat.clock import now

ONE_REQUEST = 16 * 2**20
"""Bodies up to this size are stored, and up to this size read, in one request."""
GOOD_FOR = timedelta(hours=24)
"""How long a mover's signature of an identity lasts; Azure allows seven days."""
_EARLIER = timedelta(minutes=15)
"""It begins before now, as clocks differ (learn.microsoft.com, "best practices when using SAS")."""


def connect(settings: Settings, container: str, patience: Patience) -> ContainerClient:
    """The client of one container; no request is sent. It repeats nothing by itself.

    Raises:
        ValueError: The settings do not go together: an identity over plain HTTP, a key that is no base64.
    """
    return _service(settings, patience).get_container_client(container)


def _service(settings: Settings, patience: Patience) -> BlobServiceClient:
    connect_seconds, read_seconds = patience.seconds
    carrying = session({"REQUESTS_CA_BUNDLE": settings.ca_file or ""})
    transport: Any = RequestsTransport(
        session=carrying, connection_timeout=connect_seconds, read_timeout=read_seconds,
        connection_verify=settings.ca_file or True,
    )  # fmt: skip
    more: dict[str, Any] = {"api_version": settings.api_version} if settings.api_version else {}
    return BlobServiceClient(
        settings.endpoint, credential=credential(settings), transport=transport, retry_total=0,
        max_single_put_size=ONE_REQUEST, max_block_size=ONE_REQUEST, max_single_get_size=ONE_REQUEST,
        max_chunk_get_size=ONE_REQUEST, **more,
    )  # fmt: skip


def credential(settings: Settings) -> Any:
    """The credential named, or that of this machine: a pod's, an instance's or a user's identity."""
    if settings.key and settings.account:
        return AzureNamedKeyCredential(settings.account, settings.key)
    if settings.signature:
        return AzureSasCredential(settings.signature)
    return _identity(settings)


def _identity(settings: Settings) -> Any:
    from azure import identity

    more: dict[str, Any] = {"retry_total": 0} | ({"connection_verify": settings.ca_file} if settings.ca_file else {})
    if settings.authority:
        more |= {"authority": settings.authority}
        # an authority that is not Microsoft's is in no list of Microsoft's
        more |= {"disable_instance_discovery": not settings.authority.partition("//")[2].startswith("login.")}
    if settings.tenant and settings.client and settings.client_secret:
        return identity.ClientSecretCredential(settings.tenant, settings.client, settings.client_secret, **more)
    if settings.tenant and settings.client and settings.token_file:
        return identity.WorkloadIdentityCredential(
            tenant_id=settings.tenant, client_id=settings.client, token_file_path=settings.token_file, **more
        )
    return identity.DefaultAzureCredential(**more)


def handed_on(settings: Settings, container: str, patience: Patience) -> dict[str, str]:
    """The variables for a mover elsewhere: key, signature or client secret; for an identity a signature for a day.

    Raises:
        azure.core.exceptions.AzureError: No signature can be had.
    """
    words = settings.words()
    if settings.key:
        return {**words, "AZURE_STORAGE_KEY": settings.key}
    if settings.signature:
        return {**words, "AZURE_STORAGE_SAS_TOKEN": settings.signature}
    if settings.tenant and settings.client and settings.client_secret:
        secret = {"AZURE_TENANT_ID": settings.tenant, "AZURE_CLIENT_ID": settings.client}
        authority = {"AZURE_AUTHORITY_HOST": settings.authority} if settings.authority else {}
        return {**words, **secret, **authority, "AZURE_CLIENT_SECRET": settings.client_secret}
    service = _service(settings, patience)
    begins, ends = now() - _EARLIER, now() + GOOD_FOR
    key = service.get_user_delegation_key(key_start_time=begins, key_expiry_time=ends)
    signature = generate_container_sas(
        str(service.account_name or settings.account), container, user_delegation_key=key, start=begins, expiry=ends,
        permission=ContainerSasPermissions(read=True, add=True, create=True, write=True, delete=True, list=True),
    )  # fmt: skip
    service.close()
    return {**words, "AZURE_STORAGE_SAS_TOKEN": signature}
