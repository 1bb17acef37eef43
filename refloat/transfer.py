"""The only messages between orchestrator and mover: `MoverSpec` in, `Progress` and `MoverResult` out."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field

from refloat.errors import RefloatError, from_json
from refloat.folder_facts import FolderFacts
from refloat.ports.changed_blocks import ChangedList
from refloat.values import Value

TERMINATION_LIMIT_BYTES = 4096
"""Kubernetes cuts a container's termination message here (core/v1 ContainerStatus)."""


class MoverSpec(Value):
    """What one mover does. Secrets are not in it: the password and the store's credentials come by environment.

    ``archive``: the tree under the path given on the command line → vault; ``parent`` is the tree of the previous
    point's volume, for unchanged files. ``extract``: the tree ``tree`` → the path, whose own facts become ``top``.

    In mode ``device`` the path is a raw block device, or a file that stands for one. The mode is said and never
    guessed: a volume that is not there as promised must not become a copy of something else.
    """

    version: Literal[1] = 1
    action: Literal["archive", "extract"]
    run: str
    volume: str = Field(description="namespace/claim, for messages.")
    vault_url: str
    tree: str | None = None
    top: FolderFacts | None = None
    parent: str | None = None
    mode: Literal["folder", "device"] = "folder"
    chunk_bytes: int | None = Field(default=None, description="Archive: the chunk size of the volume's last copy.")
    changed: ChangedList | str | None = Field(
        default=None, description="Archive of a device: what changed since the parent, or a file that holds it as JSON."
    )
    chunks: Literal["fixed", "content-defined"] = Field(
        default="fixed", description="Archive of a folder: how files larger than a chunk are cut."
    )
    is_blank: bool = Field(default=False, description="Extract to a device: it is known to hold nothing but zeros.")
    password_env: str = "REFLOAT_PASSWORD"


class Progress(Value):
    """How far a mover is; one JSON line of its standard output, about once a second. Never the result."""

    volume: str
    bytes_done: int
    bytes_total: int | None = None
    files_done: int = 0
    bytes_per_second: float = 0.0
    is_last: bool = False


class MoverResult(Value):
    """How a mover ended: the container's termination message, at most 4096 bytes of JSON."""

    version: Literal[1] = 1
    action: Literal["archive", "extract"]
    volume: str
    tree: str | None = None
    top: FolderFacts | None = None
    files: int = 0
    data_bytes: int = 0
    added_bytes: int = 0
    chunk_bytes: int | None = Field(default=None, description="Archive: least size of the chunks; see VolumeCopy.")
    read_bytes: int | None = Field(default=None, description="Archive of a device: bytes that were read.")
    unreadable: tuple[str, ...] = Field(default=(), description="First paths that could not be read whole.")
    unreadable_count: int = 0
    seconds: float = 0.0
    error: dict[str, Any] | None = Field(default=None, description="RefloatError.as_json() when it failed.")

    def to_message(self) -> str:
        """JSON that fits a termination message: paths, then texts are shortened until it does."""
        result = self
        while len(result.model_dump_json().encode()) > TERMINATION_LIMIT_BYTES:
            if result.unreadable:
                result = result.model_copy(update={"unreadable": result.unreadable[: len(result.unreadable) // 2]})
            elif result.error:
                error = {k: v for k, v in result.error.items() if k != "context"}
                error["message"] = str(error.get("message", ""))[:500]
                error["guidance"] = str(error.get("guidance", ""))[:300]
                result = result.model_copy(update={"error": error})
            else:
                break
        return result.model_dump_json()

    def raise_if_failed(self) -> None:
        """Raise the error the mover reported, as its own class.

        Raises:
            RefloatError: The mover's error.
        """
        if self.error is not None:
            raise from_json(self.error)


def result_of_failure(spec: MoverSpec, error: RefloatError) -> MoverResult:
    """The message of a mover that ended with a named error."""
    return MoverResult(action=spec.action, volume=spec.volume, error=error.as_json())


def parse_result(message: str) -> MoverResult | None:
    """The result in a termination message; None when it holds none (the mover was killed before it wrote one)."""
    try:
        return MoverResult.model_validate(json.loads(message))
    except ValueError:
        return None
