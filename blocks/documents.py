"""Reads Application and ProtectionPolicy documents: from YAML files, and from blocks by name."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from refloat.application import Application, Document
from refloat.errors import ConfigError, InvalidDocument
from refloat.policy import ProtectionPolicy

KINDS: dict[str, type[Application | ProtectionPolicy]] = {
    "Application": Application,
    "ProtectionPolicy": ProtectionPolicy,
}
API_VERSION = "refloat/v1"


@dataclass(frozen=True)
class Documents:
    """What one file holds."""

    source: str
    applications: tuple[Application, ...] = ()
    policies: tuple[ProtectionPolicy, ...] = ()

    def application(self, name: str | None = None) -> Application:
        """The application of that name, or the only one.

        Raises:
            ConfigError: There is none, or no name was given and there are several.
        """
        found = [each for each in self.applications if name in (None, each.name)]
        if len(found) == 1:
            return found[0]
        names = ", ".join(each.name for each in self.applications) or "none"
        wanted = f"application {name}" if name else "exactly one application"
        raise ConfigError(f"{self.source} does not hold {wanted}; it holds: {names}")

    def policy(self, application: str) -> ProtectionPolicy | None:
        """The policy for an application: the one that names it, else the one for any; None when there is none.

        Raises:
            ConfigError: Several are for it.
        """
        for meant in (application, None):
            found = [each for each in self.policies if each.application == meant]
            if len(found) > 1:
                raise ConfigError(f"{self.source} holds {len(found)} policies for application {application}")
            if found:
                return found[0]
        return None


class _Strict(yaml.SafeLoader):
    """YAML's safe loader, to which a key written twice is an error (YAML 1.2 §3.2.1.3: keys are unique)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                line = key_node.start_mark.line + 1
                raise yaml.MarkedYAMLError(problem=f"{key!r} is written twice, again in line {line}")
            seen.add(key) if isinstance(key, Hashable) else None
        return super().construct_mapping(node, deep=deep)


def load_documents(path: str | Path) -> Documents:
    """Everything a YAML file holds; ``-`` is standard input.

    Raises:
        ConfigError: The file cannot be read.
        InvalidDocument: It is no YAML, or a document is wrong; the message names document, field and the closest
            field that exists.
    """
    source = "standard input" if str(path) == "-" else str(path)
    try:
        text = sys.stdin.read() if str(path) == "-" else Path(path).expanduser().read_text()
    except (OSError, UnicodeDecodeError) as wrong:
        raise ConfigError(f"{source} cannot be read: {getattr(wrong, 'strerror', None) or wrong}") from wrong
    return parse_documents(text, source)


def parse_documents(text: str, source: str) -> Documents:
    """The documents of a YAML text; see ``load_documents``."""
    try:
        values = [value for value in yaml.load_all(text, _Strict) if value is not None]
    except yaml.YAMLError as wrong:
        said = " ".join(str(wrong).split())
        raise InvalidDocument(f"{source} is no valid YAML: {said}") from wrong
    if not values:
        raise InvalidDocument(f"{source} holds no document", guidance="Write an Application and a ProtectionPolicy.")
    made = [document_of(value, f"{source}, document {number}") for number, value in enumerate(values, 1)]
    applications = tuple(each for each in made if isinstance(each, Application))
    for name in {each.name for each in applications}:
        if sum(each.name == name for each in applications) > 1:
            raise InvalidDocument(f"{source} holds application {name} twice")
    return Documents(source, applications, tuple(each for each in made if isinstance(each, ProtectionPolicy)))


def document_of(value: Any, place: str) -> Application | ProtectionPolicy:
    """One document as its type; ``place`` is how messages name it.

    Raises:
        InvalidDocument: It is none, or something in it is wrong.
    """
    if not isinstance(value, Mapping):
        raise InvalidDocument(f"{place} is a {type(value).__name__}, not a mapping with apiVersion and kind")
    kind = str(value.get("kind", ""))
    if kind not in KINDS:
        said = f"kind {kind!r} is unknown" if kind else "kind is missing"
        raise InvalidDocument(f"{place}: {said}{closest(kind, KINDS)}")
    version = value.get("apiVersion", value.get("api_version"))
    if version != API_VERSION:
        raise InvalidDocument(f"{place} ({kind}): apiVersion is {version!r}, not {API_VERSION}")
    try:
        return KINDS[kind].model_validate(dict(value))
    except ValidationError as wrong:
        where = f"{place} ({kind} {value.get('name', 'without a name')})"
        raise InvalidDocument(f"{where}: {explain(wrong, KINDS[kind])}") from wrong


def explain(wrong: ValidationError, model: type[Document]) -> str:
    """Every error of a document in one line: field path, what is wrong, and the closest field that exists."""
    schema, parts = model.model_json_schema(), []
    errors = wrong.errors(include_url=False, include_context=False, include_input=False)
    for error in errors:
        location = error["loc"]
        if error["type"] == "too_short" and any(each["loc"][:-1][: len(location)] == location for each in errors):
            continue  # a list is short only because what is in it was refused
        path = ".".join(str(part) for part in location) or "the document"
        if error["type"] == "extra_forbidden":
            near = closest(str(location[-1]), _fields(schema, location[:-1]))
            parts.append(f"{path} is no field{near}")
        else:
            said = error["msg"].removeprefix("Value error, ")
            parts.append(f"{path}: {said[:1].lower()}{said[1:]}")
    return "; ".join(parts)


def closest(word: str, known: Mapping[str, Any]) -> str:
    """``; did you mean X?``, or what there is when nothing is close."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(known)}" if known else ""


def _fields(schema: Mapping[str, Any], location: tuple[int | str, ...]) -> Mapping[str, Any]:
    """The fields a schema has at a place."""
    node: Mapping[str, Any] = schema

    def settled(node: Mapping[str, Any]) -> Mapping[str, Any]:
        for option in node.get("anyOf", ()):
            if "$ref" in option:
                node = option
        return schema["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node

    for part in location:
        node = settled(node)
        node = node.get("items", {}) if isinstance(part, int) else node.get("properties", {}).get(part, {})
    return dict(settled(node).get("properties", {}))


def application_of(value: Application | str) -> Application:
    """The document itself, or the one a block of this name holds.

    Raises:
        ConfigError: There is no such block.
        InvalidDocument: What it holds is not an Application.
    """
    if isinstance(value, Application):
        return value
    from blocks.saved import load_application

    return load_application(value)


def policy_of(value: ProtectionPolicy | str) -> ProtectionPolicy:
    """The document itself, or the one a block of this name holds.

    Raises:
        ConfigError: There is no such block.
        InvalidDocument: What it holds is not a ProtectionPolicy.
    """
    if isinstance(value, ProtectionPolicy):
        return value
    from blocks.saved import load_policy

    return load_policy(value)
