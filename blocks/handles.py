"""Opens the real things from references: cluster, password, store, vault; imports each client only when it is used."""

from __future__ import annotations

import base64
import os
import threading
from contextlib import closing, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

from blocks.redaction import guard, guard_environment
from refloat import __version__
from refloat.errors import ConfigError, MissingKey, ObjectMissing, RefloatError, VaultMissing, WrongKey
from refloat.policy import PasswordSource, SecretRef, VaultLocation
from refloat.ports.key_wrapper import KeyWrapper
from refloat.ports.object_store import ObjectStore
from refloat.registry import open_key_wrapper, open_object_store
from refloat.target import ClusterRef
from refloat.transfer import MoverSpec

if TYPE_CHECKING:
    from kube.cluster import Cluster
    from vault.repository import OpenVault

MOVER_IMAGE = "REFLOAT_MOVER_IMAGE"
_clusters: dict[tuple[object, ...], Cluster] = {}
_guard = threading.Lock()


def open_cluster(ref: ClusterRef) -> Cluster:
    """The cluster a reference names; one handle per reference and process, since steps ask for it one by one.

    Raises:
        ObjectMissing: The kubeconfig has no such context.
        ConfigError: There is no usable kubeconfig, or no such block.
    """
    key = (ref, *_identity_of_file(ref.kubeconfig or os.environ.get("KUBECONFIG")))
    with _guard:
        if key not in _clusters:
            _clusters[key] = _open(ref)
        return _clusters[key]


def _identity_of_file(path: str | None) -> tuple[object, ...]:
    """What changes when a kubeconfig is written anew."""
    with suppress(OSError):
        return (path, Path(path).stat().st_mtime_ns) if path else ()
    return (path,)


def _open(ref: ClusterRef) -> Cluster:
    from kube.cluster import Cluster

    if ref.block is None:
        return Cluster.open(kubeconfig=ref.kubeconfig, context=ref.context)
    from blocks.saved import load_cluster

    saved = load_cluster(ref.block)
    text = saved.kubeconfig_text.get_secret_value() if saved.kubeconfig_text else None
    context = ref.context or saved.context
    if text is None:
        return Cluster.open(kubeconfig=saved.kubeconfig, context=context)
    with NamedTemporaryFile("w", suffix=".kubeconfig") as file:  # the client reads it once, and only from a file
        file.write(text)
        file.flush()
        return Cluster.open(kubeconfig=file.name, context=context)


def read_password(source: PasswordSource, cluster: Cluster | None) -> str:
    """The vault password, without one trailing line break.

    Raises:
        MissingKey: The file, variable or Secret is not there, or is empty.
        ConfigError: It lies in a Secret and no cluster is given, or it is not text.
    """
    if source.file is not None:
        text, place = _from_file(source.file), f"file {source.file}"
    elif source.env is not None:
        text, place = os.environ.get(source.env, ""), f"variable {source.env}"
    elif source.secret is not None:
        text, place = _from_secret(source.secret, cluster), f"Secret {source.secret.namespace}/{source.secret.name}"
    else:
        raise AssertionError("a PasswordSource has exactly one source")
    password = text.removesuffix("\n").removesuffix("\r")
    if not password.strip():
        raise MissingKey(f"the vault password is missing: {place} is empty or not set")
    return guard(password)


def _from_file(name: str) -> str:
    try:
        return Path(name).expanduser().read_text()
    except UnicodeDecodeError as wrong:
        raise ConfigError(f"password file {name} is not UTF-8 text") from wrong
    except OSError as wrong:
        raise MissingKey(f"password file {name} cannot be read: {wrong.strerror}") from wrong


def _from_secret(secret: SecretRef, cluster: Cluster | None) -> str:
    if cluster is None:
        raise ConfigError("the vault password lies in a Kubernetes Secret, and no cluster is given to read it from")
    try:
        data = cluster.get("Secret", secret.name, secret.namespace).get("data") or {}
    except ObjectMissing as missing:
        raise MissingKey(f"there is no Secret {secret.namespace}/{secret.name} on {cluster.name}") from missing
    if secret.key not in data:
        raise MissingKey(f"Secret {secret.namespace}/{secret.name} has no key {secret.key!r}")
    try:
        return base64.b64decode(data[secret.key]).decode()
    except ValueError as wrong:
        raise ConfigError(f"key {secret.key!r} of Secret {secret.namespace}/{secret.name} is not UTF-8 text") from wrong


def open_store(url: str) -> ObjectStore:
    """The object store behind a URL, with the credentials of this process's environment.

    Raises:
        UnknownProvider: Nothing is installed for the URL's scheme.
        ConfigError: The URL is wrong.
    """
    guard_environment(os.environ)
    return open_object_store(url, os.environ)


def vault_password(location: VaultLocation, store: ObjectStore, cluster: Cluster | None) -> tuple[str, str | None]:
    """The password of the vault at a location, and the key slot it opens where that is known.

    Raises:
        MissingKey: There is no password, or no wrapped one beside the vault.
        WrongKey: The wrapper unwraps no password of this vault.
        VaultMissing: There is a wrapper, but nothing to unwrap and no vault.
    """
    if location.wrapper is None:
        return read_password(location.password, cluster), None
    from vault.repository import exists
    from vault.wrapped import unwrap_password

    with closing(open_wrapper(location.wrapper)) as wrapper:
        found = unwrap_password(store, wrapper)
    if found is None and not exists(store):
        raise VaultMissing(f"there is no vault at {location.url}")
    if found is None:
        raise MissingKey(
            f"no password that {location.wrapper} could unwrap is kept beside {location.url}",
            guidance="Open the vault by its password, and give it to the wrapper with refloat vault key add.",
        )
    return guard(found[0]), found[1]


def open_wrapper(url: str) -> KeyWrapper:
    """The key wrapper behind a URL, with this process's environment.

    Raises:
        UnknownProvider: Nothing is installed for the URL's scheme.
        ConfigError: The URL is wrong.
    """
    guard_environment(os.environ)
    return open_key_wrapper(url, os.environ)


def check_password(location: VaultLocation, cluster: Cluster | None) -> None:
    """See that the place a password comes from is there, before anything is begun.

    Raises:
        MissingKey: The file, variable or Secret is not there.
        ConfigError: The source is wrong.
    """
    if location.wrapper is None:
        read_password(location.password, cluster)
    else:
        open_wrapper(location.wrapper).close()


def open_existing_vault(location: VaultLocation, cluster: Cluster | None, *, for_reading: bool = False) -> OpenVault:
    """The vault at a location; its owner closes it. ``cluster`` is needed for a password in a Secret only.

    ``for_reading`` also opens repositories of restic's format version 1.

    Raises:
        VaultMissing: There is none.
        WrongKey: The password does not open it.
        NotAVault: Something else lives there.
    """
    from vault.repository import READABLE, VERSION, open_vault

    store = open_store(location.url)
    try:
        password, slot = vault_password(location, store, cluster)
        return open_vault(store, password, slot=slot, versions=READABLE if for_reading else (VERSION,))
    except BaseException:
        store.close()
        raise


def open_or_init_vault(location: VaultLocation, cluster: Cluster | None) -> tuple[OpenVault, bool]:
    """The vault at a location, made where there is none yet; and whether it was made.

    Raises:
        WrongKey: The password does not open the vault that is there.
        NotAVault: Something else lives there.
    """
    from vault.repository import init, open_vault

    store = open_store(location.url)
    try:
        try:
            password, slot = vault_password(location, store, cluster)
            return open_vault(store, password, slot=slot), False
        except VaultMissing:
            if location.wrapper is not None:
                return _init_wrapped(location.wrapper, store), True
            return init(store, password), True
    except BaseException:
        store.close()
        raise


def _init_wrapped(url: str, store: ObjectStore) -> OpenVault:
    """A new vault whose password nobody knows; or the half-made one whose password is wrapped already."""
    from vault.repository import init, open_vault
    from vault.wrapped import keep_wrapped, random_password, unwrap_password

    with closing(open_wrapper(url)) as wrapper:
        begun = unwrap_password(store, wrapper)
        password = guard(begun[0] if begun else random_password())
        try:
            return init(store, password, announce=lambda slot: keep_wrapped(store, wrapper, password, slot))
        except WrongKey:  # another made the vault at the same moment, with a password of its own
            found = unwrap_password(store, wrapper)
            if found is None:
                raise
            return open_vault(store, guard(found[0]), slot=found[1])


def mover_image() -> str:
    """The image movers run: ``REFLOAT_MOVER_IMAGE``, else the one of this version."""
    return os.environ.get(MOVER_IMAGE) or f"refloat/mover:{__version__}"


def mover_secrets(location: VaultLocation, cluster: Cluster | None) -> dict[str, str]:
    """The environment of one run's movers: vault password and store credentials. All of it is secret.

    Raises:
        MissingKey: There is no password.
        RefloatError: The store cannot tell its credentials.
    """
    store = open_store(location.url)
    try:
        environment = dict(store.mover_environment())
        password, _ = vault_password(location, store, cluster)
    finally:
        with suppress(RefloatError):
            store.close()
    guard_environment(environment)
    variable = str(MoverSpec.model_fields["password_env"].default)
    return {**environment, variable: password}
