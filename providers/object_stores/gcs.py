"""The address of a store in Google Cloud Storage, ``gs://bucket/prefix``, and what an environment says about it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from providers.object_stores.addresses import Address, checked, endpoint, split
from refloat.errors import ConfigError, UnknownProvider
from refloat.ports.object_store import ObjectStore

BUCKET = re.compile(r"^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$")
"""cloud.google.com/storage/docs/buckets#naming."""
GUIDANCE = "Write gs://bucket/prefix; credentials and endpoint go into GOOGLE_* variables (docs/providers.md)."
CLASSES = ("STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE")
ENDPOINTS = ("STORAGE_EMULATOR_HOST", "API_ENDPOINT_OVERRIDE")
"""The client's own variables, in its order; behind the first there are no accounts."""


@dataclass(frozen=True)
class Settings:
    """How a store is reached, and how objects are kept; credentials are never shown."""

    endpoint: str | None = None
    is_emulator: bool = False
    credentials: dict[str, Any] | None = field(default=None, repr=False)
    """The JSON of a service account, a user or a workload identity pool."""
    token: str | None = field(default=None, repr=False)
    """An access token of somebody else's making."""
    billed_project: str | None = None
    storage_class: str | None = None
    kms_key: str | None = None
    ca_file: str | None = None

    def words(self) -> dict[str, str]:
        """The variables that say the same, without credentials."""
        said = {
            ENDPOINTS[0] if self.is_emulator else ENDPOINTS[1]: self.endpoint,
            "GOOGLE_CLOUD_QUOTA_PROJECT": self.billed_project,
            "REFLOAT_GCS_STORAGE_CLASS": self.storage_class,
            "REFLOAT_GCS_KMS_KEY": self.kms_key,
        }
        return {name: value for name, value in said.items() if value}


def open_store(url: str, environment: Mapping[str, str]) -> ObjectStore:
    """The store under a bucket and prefix; asks nothing of anybody yet.

    Raises:
        ConfigError: The URL or a variable is wrong.
        UnknownProvider: Google's client is not installed.
    """
    address, settings = parse(url), read(environment)
    try:
        from providers.object_stores.gcs_store import GcsObjectStore
    except ImportError as missing:
        raise UnknownProvider(f"gs:// needs {missing.name}", guidance="pip install 'refloat[gcs]'") from missing
    return GcsObjectStore(address, settings)


def parse(url: str) -> Address:
    """The address in a URL.

    Raises:
        ConfigError: It is wrong.
    """
    bucket, prefix = split(url, "gs", GUIDANCE)
    return checked(Address("gs", "", bucket, prefix), BUCKET, GUIDANCE)


def read(environment: Mapping[str, str]) -> Settings:
    """What the environment says; docs/providers.md lists the variables.

    Raises:
        ConfigError: A variable is wrong, or a file it names cannot be read.
    """
    storage_class = environment.get("REFLOAT_GCS_STORAGE_CLASS") or None
    if storage_class not in (None, *CLASSES):
        raise ConfigError(f"REFLOAT_GCS_STORAGE_CLASS is {storage_class}, not one of {', '.join(CLASSES)}")
    return Settings(
        endpoint=endpoint(environment, *ENDPOINTS),
        is_emulator=bool(environment.get(ENDPOINTS[0])),
        credentials=_credentials(environment),
        token=environment.get("GOOGLE_ACCESS_TOKEN") or None,
        billed_project=environment.get("GOOGLE_CLOUD_QUOTA_PROJECT") or None,
        storage_class=storage_class,
        kms_key=environment.get("REFLOAT_GCS_KMS_KEY") or None,
        ca_file=environment.get("REQUESTS_CA_BUNDLE") or None,
    )


def _credentials(environment: Mapping[str, str]) -> dict[str, Any] | None:
    name, text = "GOOGLE_CREDENTIALS", environment.get("GOOGLE_CREDENTIALS", "")
    if not text and (path := environment.get("GOOGLE_APPLICATION_CREDENTIALS")):
        name = "GOOGLE_APPLICATION_CREDENTIALS"
        try:
            text = Path(path).read_text()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{name}: {path} cannot be read: {getattr(error, 'strerror', '')}") from error
    if not text:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        found = None  # the parser's message may quote a piece of a key
    if not isinstance(found, dict) or "type" not in found:
        raise ConfigError(f"{name} holds no credentials' JSON", guidance="Give the whole JSON of an account's key.")
    return found
