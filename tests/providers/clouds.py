"""The two clouds as tests see them: our own servers of Cloud Storage and Azure Blob, and stores opened on them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from providers.object_stores import azure, gcs
from providers.object_stores.azure_store import AzureObjectStore
from providers.object_stores.gcs_store import GcsObjectStore
from providers.object_stores.patience import Patience
from tests.providers.fake_blob import CONTAINER, FakeBlob
from tests.providers.fake_gcs import BUCKET, FakeGcs

TRIES = 3
SHORT = Patience(read=timedelta(seconds=10), tries=TRIES, first_pause=timedelta(milliseconds=1))
BRISK = Patience(first_pause=timedelta(milliseconds=2), longest_pause=timedelta(milliseconds=20), tries=20)
"""As long a breath as the usual one, but shorter pauses: faults here are drawn by request, not by time."""

Store = GcsObjectStore | AzureObjectStore


@dataclass(frozen=True)
class Cloud:
    """One of the two, with how to open a store on it."""

    name: str
    server: Any

    @property
    def place(self) -> str:
        """Scheme and bucket."""
        return f"gs://{BUCKET}" if self.name == "gs" else f"az://{CONTAINER}"

    @property
    def environment(self) -> dict[str, str]:
        """As an operator has it."""
        if self.name == "gs":
            return {"STORAGE_EMULATOR_HOST": self.server.endpoint}
        return dict(self.server.environment)

    def open(self, prefix: str = "vault", patience: Patience = SHORT, place: str = "", **words: str) -> Store:
        """A store under a prefix of the bucket, or of another place."""
        url, environment = f"{place or self.place}/{prefix}", {**self.environment, **words}
        if self.name == "gs":
            return GcsObjectStore(gcs.parse(url), gcs.read(environment), patience)
        address = azure.parse(url)
        return AzureObjectStore(address, azure.read(address, environment), patience)

    @property
    def puts(self) -> tuple[str, ...]:
        """Methods of requests that store."""
        return ("POST", "PUT") if self.name == "gs" else ("PUT",)

    def names(self) -> Iterable[str]:
        """Whole keys of what the server holds."""
        return list(self.server.objects if self.name == "gs" else self.server.blobs)


def started(name: str, **more: Any) -> FakeGcs | FakeBlob:
    """A server of one of the two."""
    return FakeGcs(**more) if name == "gs" else FakeBlob(**more)
