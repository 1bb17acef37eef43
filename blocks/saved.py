"""The documents and clusters that Prefect keeps as blocks: thin, opened by name, never passed through a flow."""

from __future__ import annotations

from typing import Any, TypeVar

from prefect.blocks.core import Block
from pydantic import Field, SecretStr, model_validator

from blocks.documents import document_of
from refloat.application import Application
from refloat.errors import ConfigError, InvalidDocument
from refloat.policy import ProtectionPolicy

B = TypeVar("B", bound=Block)
DOCS = "https://github.com/refloat/refloat/blob/main/docs/users.md"


class ApplicationBlock(Block):
    """An application: what is protected and recovered as one.

    Example:
        Load a saved application:

        ```python
        from blocks.saved import ApplicationBlock

        application = ApplicationBlock.load("BLOCK_NAME").read()
        ```
    """

    _block_type_name = "refloat Application"
    _block_type_slug = "refloat-application"
    _documentation_url = DOCS  # type: ignore[assignment]

    document: dict[str, Any] = Field(title="Document", description="The Application document, as JSON.")

    def read(self) -> Application:
        """The document; ``InvalidDocument`` when it is none."""
        found = document_of(self.document, f"block {self._block_document_name or self._block_type_slug}")
        if not isinstance(found, Application):
            raise InvalidDocument(f"block {self._block_document_name} holds a {found.kind}, not an Application")
        return found


class ProtectionPolicyBlock(Block):
    """A protection policy: where recovery points go, how often, and for how long.

    Example:
        Load a saved policy:

        ```python
        from blocks.saved import ProtectionPolicyBlock

        policy = ProtectionPolicyBlock.load("BLOCK_NAME").read()
        ```
    """

    _block_type_name = "refloat Protection Policy"
    _block_type_slug = "refloat-protection-policy"
    _documentation_url = DOCS  # type: ignore[assignment]

    document: dict[str, Any] = Field(title="Document", description="The ProtectionPolicy document, as JSON.")

    def read(self) -> ProtectionPolicy:
        """The document; ``InvalidDocument`` when it is none."""
        found = document_of(self.document, f"block {self._block_document_name or self._block_type_slug}")
        if not isinstance(found, ProtectionPolicy):
            raise InvalidDocument(f"block {self._block_document_name} holds a {found.kind}, not a ProtectionPolicy")
        return found


class ClusterBlock(Block):
    """A Kubernetes cluster: a kubeconfig, by path or as text, and a context in it.

    Example:
        Name a saved cluster:

        ```python
        from blocks.saved import ClusterBlock
        from refloat.target import ClusterRef

        ClusterBlock.load("BLOCK_NAME")
        cluster = ClusterRef(block="BLOCK_NAME")
        ```
    """

    _block_type_name = "refloat Cluster"
    _block_type_slug = "refloat-cluster"
    _documentation_url = DOCS  # type: ignore[assignment]

    kubeconfig: str | None = Field(default=None, title="Kubeconfig path", description="Path on the worker's machine.")
    kubeconfig_text: SecretStr | None = Field(
        default=None, title="Kubeconfig text", description="The kubeconfig itself, instead of a path."
    )
    context: str | None = Field(default=None, title="Context", description="A context of it; default: its current one.")

    @model_validator(mode="after")
    def _one_kubeconfig(self) -> ClusterBlock:
        if self.kubeconfig and self.kubeconfig_text:
            raise ValueError("give the kubeconfig as path or as text, not both")
        return self


def load_application(name: str) -> Application:
    """The document of a saved application; ``ConfigError`` when there is no such block."""
    return _load(ApplicationBlock, name).read()


def load_policy(name: str) -> ProtectionPolicy:
    """The document of a saved policy; ``ConfigError`` when there is no such block."""
    return _load(ProtectionPolicyBlock, name).read()


def load_cluster(name: str) -> ClusterBlock:
    """A saved cluster; ``ConfigError`` when there is no such block."""
    return _load(ClusterBlock, name)


def _load(block: type[B], name: str) -> B:
    """One block by name, whichever thread asks."""
    try:
        found = block.load(name, _sync=True)  # type: ignore[call-arg]
    except ValueError as missing:
        slug = block.get_block_type_slug()
        raise ConfigError(
            f"there is no block {slug}/{name} on this Prefect server",
            guidance="Save it (refloat deploy saves the documents it is given), or give the document as a file.",
        ) from missing
    if not isinstance(found, block):
        raise AssertionError(f"Prefect loaded a {type(found).__name__}")
    return found
