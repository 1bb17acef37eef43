"""The address of a store in Azure Blob Storage, ``az://container/prefix``, and what an environment says about it.

A container's name is unique within its account only, so the account is part of the address: the environment names it
(``AZURE_STORAGE_ACCOUNT``), or the URL does, ``az://account.blob.core.windows.net/container/prefix``, where one run
works with two accounts. No container has a dot in its name: the two cannot be mistaken for each other.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from providers.object_stores.addresses import Address, checked, endpoint, split
from refloat.errors import ConfigError, UnknownProvider
from refloat.ports.object_store import ObjectStore

CONTAINER = re.compile(r"^(?!.*--)[a-z0-9](?:[a-z0-9-]{1,61})[a-z0-9]$")
"""learn.microsoft.com, "Naming and referencing containers, blobs, and metadata"."""
ACCOUNT = re.compile(r"^[a-z0-9]{3,24}\Z")
GUIDANCE = "Write az://container/prefix; account and credentials go into AZURE_* variables (docs/providers.md)."
TIERS = ("Hot", "Cool", "Cold")
"""Archive is left out: what lies there cannot be read for hours."""
SUFFIX = "blob.core.windows.net"


@dataclass(frozen=True)
class Settings:
    """How a store is reached, and how blobs are kept; credentials are never shown."""

    endpoint: str
    account: str | None = None
    key: str | None = field(default=None, repr=False)
    signature: str | None = field(default=None, repr=False)
    """A shared access signature, without its question mark."""
    tenant: str | None = None
    client: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    token_file: str | None = None
    """Where a pod finds the token of its workload identity."""
    authority: str | None = None
    tier: str | None = None
    encryption_scope: str | None = None
    api_version: str | None = None
    ca_file: str | None = None

    def words(self) -> dict[str, str]:
        """The variables that say the same, without credentials."""
        said = {
            "AZURE_STORAGE_SERVICE_ENDPOINT": self.endpoint,
            "AZURE_STORAGE_ACCOUNT": self.account,
            "AZURE_STORAGE_API_VERSION": self.api_version,
            "REFLOAT_AZURE_ACCESS_TIER": self.tier,
            "REFLOAT_AZURE_ENCRYPTION_SCOPE": self.encryption_scope,
        }
        return {name: value for name, value in said.items() if value}


def open_store(url: str, environment: Mapping[str, str]) -> ObjectStore:
    """The store under a container and prefix; asks nothing of anybody yet.

    Raises:
        ConfigError: The URL or a variable is wrong, or no account is named.
        UnknownProvider: Azure's client is not installed.
    """
    address = parse(url)
    settings = read(address, environment)
    try:
        from providers.object_stores.azure_store import AzureObjectStore
    except ImportError as missing:
        raise UnknownProvider(f"az:// needs {missing.name}", guidance="pip install 'refloat[azure]'") from missing
    return AzureObjectStore(address, settings)


def parse(url: str) -> Address:
    """The address in a URL.

    Raises:
        ConfigError: It is wrong.
    """
    host, path = split(url, "az", GUIDANCE)
    if "." in host:
        container, _, prefix = path.partition("/")
        return checked(Address("az", host, container, prefix), CONTAINER, GUIDANCE)
    return checked(Address("az", "", host, path), CONTAINER, GUIDANCE)


def read(address: Address, environment: Mapping[str, str]) -> Settings:
    """What the environment says about the account; docs/providers.md lists the variables.

    Raises:
        ConfigError: A variable is wrong, or no account is named.
    """
    words = {**environment, **_of_connection_string(environment)}
    account = words.get("AZURE_STORAGE_ACCOUNT") or None
    if address.host:
        account = address.host.partition(".")[0]
    if account is not None and not ACCOUNT.match(account):
        raise ConfigError(f"{account[:40]!r} is no name of a storage account", guidance=GUIDANCE)
    where = f"https://{address.host}" if address.host else endpoint(words, "AZURE_STORAGE_SERVICE_ENDPOINT")
    if where is None and account is None:
        raise ConfigError(f"{address.url}: no storage account is named", guidance="Set AZURE_STORAGE_ACCOUNT.")
    _must_be_base64(words.get("AZURE_STORAGE_KEY", ""))
    tier = words.get("REFLOAT_AZURE_ACCESS_TIER") or None
    if tier not in (None, *TIERS):
        raise ConfigError(
            f"REFLOAT_AZURE_ACCESS_TIER is {tier}, not one of {', '.join(TIERS)}",
            guidance="A vault must be readable at once: Archive is no tier for it.",
        )
    return Settings(
        endpoint=where or f"https://{account}.{SUFFIX}",
        account=account,
        key=words.get("AZURE_STORAGE_KEY") or None,
        signature=(words.get("AZURE_STORAGE_SAS_TOKEN") or "").lstrip("?") or None,
        tenant=words.get("AZURE_TENANT_ID") or None,
        client=words.get("AZURE_CLIENT_ID") or None,
        client_secret=words.get("AZURE_CLIENT_SECRET") or None,
        token_file=words.get("AZURE_FEDERATED_TOKEN_FILE") or None,
        authority=words.get("AZURE_AUTHORITY_HOST") or None,
        tier=tier,
        encryption_scope=words.get("REFLOAT_AZURE_ENCRYPTION_SCOPE") or None,
        api_version=words.get("AZURE_STORAGE_API_VERSION") or None,
        ca_file=words.get("REQUESTS_CA_BUNDLE") or None,
    )


def _must_be_base64(key: str) -> None:
    try:
        base64.b64decode(key, validate=True)
    except ValueError as wrong:
        raise ConfigError("the account's key (AZURE_STORAGE_KEY) is no base64") from wrong


def _of_connection_string(environment: Mapping[str, str]) -> dict[str, str]:
    """What ``AZURE_STORAGE_CONNECTION_STRING`` says, as the variables that say the same one by one."""
    text = environment.get("AZURE_STORAGE_CONNECTION_STRING", "")
    if not text:
        return {}
    said = {name: value for name, _, value in (part.partition("=") for part in text.strip("; \n").split(";"))}
    if "AccountName" not in said and "BlobEndpoint" not in said:
        raise ConfigError("AZURE_STORAGE_CONNECTION_STRING names neither AccountName nor BlobEndpoint")
    words = {
        "AZURE_STORAGE_ACCOUNT": said.get("AccountName", ""),
        "AZURE_STORAGE_KEY": said.get("AccountKey", ""),
        "AZURE_STORAGE_SAS_TOKEN": said.get("SharedAccessSignature", ""),
        "AZURE_STORAGE_SERVICE_ENDPOINT": said.get("BlobEndpoint", ""),
    }
    if "EndpointSuffix" in said and not words["AZURE_STORAGE_SERVICE_ENDPOINT"]:
        words["AZURE_STORAGE_SERVICE_ENDPOINT"] = f"https://{said['AccountName']}.blob.{said['EndpointSuffix']}"
    return {name: value for name, value in words.items() if value}
