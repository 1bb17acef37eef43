"""What every quiescer is given, read in one way: an image's name, a document's options, the shell text beside it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from shlex import quote

from refloat.errors import InvalidDocument

BESIDE = (
    "exporter",
    "insight",
    "commander",
    "operator",
    "sentinel",
    "router",
    "proxy",
    "admin",
    "backup",
    "metrics",
    "agent",
    "controller",
)
"""Images named after an engine that do not run it."""


def is_image_of(image: str, *names: str) -> bool:
    """Whether the last part of the image's name, tag and digest aside, begins with one of the names."""
    name = image.rpartition("/")[2].partition("@")[0].partition(":")[0].lower()
    return name.startswith(names) and not any(word in name for word in BESIDE)


def given_options(engine: str, options: Mapping[str, str], known: set[str]) -> dict[str, str]:
    """All known options, those not given empty, so that no variable of the container passes for one.

    Raises:
        InvalidDocument: It names the unknown ones, and those there are.
    """
    if unknown := set(options) - known:
        has = f"it has {', '.join(sorted(known))}" if known else "it has none"
        raise InvalidDocument(f"{engine} has no option {', '.join(sorted(unknown))}; {has}")
    return {name: options.get(name, "") for name in sorted(known)}


def assigned(settings: Mapping[str, str]) -> str:
    """The settings as shell variables, for commands that run without the holder."""
    return "".join(f"{key}={quote(value)}\n" for key, value in settings.items())


def text_of(name: str) -> str:
    """The text of a shell file beside the quiescers."""
    return files(__package__).joinpath(name).read_text()
