"""From a provider's name to its factory, through entry points: built-ins and plug-ins alike, loaded only when used."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from refloat.errors import ConfigError, UnknownProvider
from refloat.ports.key_wrapper import KeyWrapper, KeyWrapperFactory
from refloat.ports.object_store import ObjectStore, ObjectStoreFactory
from refloat.ports.quiescer import Quiescer

OBJECT_STORES = "refloat.object_stores"
VOLUME_SNAPSHOTTERS = "refloat.volume_snapshotters"
KEY_WRAPPERS = "refloat.key_wrappers"
QUIESCERS = "refloat.quiescers"


def installed(group: str) -> dict[str, EntryPoint]:
    """Every provider of a group by name; nothing is imported.

    Raises:
        ConfigError: Two distributions bring a provider of the same name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=group):
        other = found.get(entry.name)
        if other is not None and other.value != entry.value:
            raise ConfigError(
                f"two installed packages bring a provider named {entry.name!r}: {other.value} and {entry.value}",
                guidance="Uninstall one of the two packages.",
            )
        found[entry.name] = entry
    return found


def factory(group: str, name: str) -> Any:
    """The factory a provider's entry point names.

    Raises:
        UnknownProvider: No such provider, or its package does not import.
    """
    known = installed(group)
    if name not in known:
        raise UnknownProvider(f"no provider {name!r} in {group}; installed: {', '.join(sorted(known)) or 'none'}")
    try:
        return known[name].load()
    except Exception as broken:
        raise UnknownProvider(f"provider {name!r} ({known[name].value}) does not import: {broken}") from broken


def open_object_store(url: str, environment: Mapping[str, str]) -> ObjectStore:
    """The store behind a URL, by its scheme.

    Raises:
        UnknownProvider: Nothing is installed for the scheme.
        ConfigError: The URL or the environment is wrong for that provider.
    """
    make = cast("ObjectStoreFactory", factory(OBJECT_STORES, url.partition("://")[0]))
    return make(url, environment)


def open_key_wrapper(url: str, environment: Mapping[str, str]) -> KeyWrapper:
    """The key wrapper behind a URL, by its scheme.

    Raises:
        UnknownProvider: Nothing is installed for the scheme.
        ConfigError: The URL or the environment is wrong for that provider.
    """
    make = cast("KeyWrapperFactory", factory(KEY_WRAPPERS, url.partition("://")[0]))
    return make(url, environment)


def open_quiescers() -> dict[str, Quiescer]:
    """Every installed quiescer by its engine's name.

    Raises:
        UnknownProvider: The package of one does not import.
    """
    return {name: cast("Quiescer", factory(QUIESCERS, name)()) for name in sorted(installed(QUIESCERS))}
