"""Addresses: from method, path and query to the request they mean, as the API server's URL scheme has it.

https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-uris. A query parameter the range does not
know is refused: a client that relies on it must not be told that all went well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from practice.kinds import KindTable, Resource
from practice.refusal import Refusal

_OF_ALL = {"pretty", "timeout"}
_OF_WRITES = {"fieldManager", "fieldValidation", "dryRun", "force"}
_OF_LISTS = {"labelSelector", "fieldSelector", "limit", "continue", "resourceVersion", "resourceVersionMatch"}
_OF_WATCHES = {"watch", "timeoutSeconds", "allowWatchBookmarks"}
_OF_DELETES = {"propagationPolicy", "gracePeriodSeconds", "dryRun"}
_OF_LOGS = {"container", "follow", "tailLines", "previous", "limitBytes"}
_OF_EXEC = {"container", "command", "stdin", "stdout", "stderr", "tty"}
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True)
class Address:
    """What a path names: a kind, and perhaps a namespace, an object, and its subresource."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def read_path(kinds: KindTable, path: str) -> Address:
    """The address of a percent-encoded path; 404 when nothing is served there."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    group, version, rest = "", "", list[str]()
    match parts:
        case ["api", version, *rest]:
            pass
        case ["apis", group, version, *rest]:
            pass
    namespace = ""
    if len(rest) >= 3 and rest[0] == "namespaces" and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    resource = kinds.find(group, version, rest[0]) if rest else None
    if resource is None or len(rest) > 3:
        raise _nowhere()
    name, subresource = (rest[1] if len(rest) > 1 else ""), (rest[2] if len(rest) > 2 else "")
    if bool(namespace) != resource.is_namespaced and (namespace or name):
        raise _nowhere()
    if subresource and subresource not in resource.subresources:
        raise _nowhere()
    return Address(resource, namespace, name, subresource)


def _nowhere() -> Refusal:
    return Refusal(404, "the server could not find the requested resource")


def verb_of(method: str, address: Address, query: Mapping[str, str]) -> str:
    """The verb that rights speak of; 405 for a method no address takes."""
    if method == "GET":
        if is_watch(query):
            return "watch"
        # since 1.35 a WebSocket exec needs create, as a POST does (KEP-2331)
        return "create" if address.subresource == "exec" else "get" if address.name else "list"
    if method not in _VERBS:
        raise Refusal(405, "the server does not allow this method on the requested resource")
    return "deletecollection" if method == "DELETE" and not address.name else _VERBS[method]


def is_watch(query: Mapping[str, str]) -> bool:
    """Whether the query asks for a watch."""
    return query.get("watch") in ("true", "1")


def check_query(verb: str, address: Address, query: Mapping[str, str]) -> None:
    """400 for a parameter that the range does not honour."""
    match verb, address.subresource:
        case _, "exec":
            known = _OF_EXEC
        case _, "log":
            known = _OF_LOGS
        case (("get" | "list" | "watch" | "deletecollection"), _):
            known = _OF_LISTS | _OF_WATCHES | (_OF_DELETES if verb == "deletecollection" else set())
        case "delete", _:
            known = _OF_DELETES
        case _:
            known = _OF_WRITES
    if unknown := sorted(set(query) - known - _OF_ALL):
        raise Refusal(400, f"the practice range does not know these parameters of {verb}: {', '.join(unknown)}")
    if query.get("dryRun", "All") != "All":
        raise Refusal(400, f'dryRun: Unsupported value: "{query["dryRun"]}": supported values: "All"')
