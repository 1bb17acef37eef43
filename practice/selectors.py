"""Label and field selectors, as the API server reads them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from practice.kinds import Resource
from practice.refusal import Refusal

Matcher = Callable[[dict[str, Any]], bool]

_SET = re.compile(r"^(!?)\s*([\w./-]+)\s*(?:\s(in|notin)\s*\(([^)]*)\)|(==|=|!=|>|<)\s*([\w.-]*))?$")
_FIELDS = {
    "pods": (
        "spec.nodeName spec.restartPolicy spec.schedulerName spec.serviceAccountName spec.hostNetwork status.phase "
        "status.podIP status.nominatedNodeName"
    ),
    "events": (
        "involvedObject.kind involvedObject.namespace involvedObject.name involvedObject.uid involvedObject.apiVersion "
        "involvedObject.resourceVersion involvedObject.fieldPath reason reportingComponent source type"
    ),
    "secrets": "type",
    "namespaces": "status.phase",
    "nodes": "spec.unschedulable",
    "services": "spec.clusterIP spec.type",
    "jobs.batch": "status.successful",
    "replicasets.apps": "status.replicas",
}


def _requirement(text: str) -> Callable[[dict[str, str]], bool]:
    found = _SET.match(text.strip())
    if not found:
        raise Refusal(400, f"unable to parse requirement: {text}")
    negated, key, word, values, sign, value = found.groups()
    among = {part.strip() for part in (values or "").split(",")}
    tests: dict[str, Callable[[dict[str, str]], bool]] = {
        "in": lambda labels: labels.get(key) in among,
        "notin": lambda labels: labels.get(key) not in among,
        "=": lambda labels: labels.get(key) == value,
        "==": lambda labels: labels.get(key) == value,
        "!=": lambda labels: labels.get(key) != value,
        ">": lambda labels: key in labels and int(labels[key]) > int(value),
        "<": lambda labels: key in labels and int(labels[key]) < int(value),
        "!": lambda labels: key not in labels,
        "": lambda labels: key in labels,
    }
    return tests[negated or word or sign or ""]


def by_labels(text: str) -> Matcher:
    """A matcher of a label selector such as ``app=pg,tier in (a,b),!old``; 400 when it cannot be read."""
    parts = [part for part in re.split(r",(?![^(]*\))", text) if part.strip()]
    required = [_requirement(part) for part in parts]
    return lambda obj: all(one(obj["metadata"].get("labels") or {}) for one in required)


def by_label_selector(selector: dict[str, Any] | None) -> Matcher:
    """A matcher of a LabelSelector object (matchLabels, matchExpressions); None matches nothing."""
    if selector is None:
        return lambda _obj: False
    parts = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for rule in selector.get("matchExpressions") or []:
        match rule["operator"]:
            case "In" | "NotIn":
                parts.append(f"{rule['key']} {rule['operator'].lower()} ({','.join(rule['values'])})")
            case "Exists":
                parts.append(rule["key"])
            case _:
                parts.append(f"!{rule['key']}")
    return by_labels(",".join(parts))


def _field(obj: dict[str, Any], path: str) -> str:
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if path == "source" and isinstance(value, dict):
        value = value.get("component")
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def by_fields(text: str, resource: Resource) -> Matcher:
    """A matcher of a field selector; 400 for a field this kind is not indexed by, as on the real server."""
    tests: list[tuple[str, bool, str]] = []
    for part in filter(None, text.split(",")):
        found = re.match(r"^([\w.]+)(==|=|!=)(.*)$", part)
        if not found:
            raise Refusal(400, f"invalid selector: '{part}'; can't understand '{part}'")
        path, sign, value = found.groups()
        if path not in {"metadata.name", "metadata.namespace"} | set(_FIELDS.get(resource.key, "").split()):
            if resource.key in _FIELDS:
                raise Refusal(400, f"field label not supported: {path}")
            known = 'only "metadata.name", "metadata.namespace"'
            raise Refusal(400, f'"{path}" is not a known field selector: {known}')
        tests.append((path, sign != "!=", value))
    return lambda obj: all((_field(obj, path) == value) is wanted for path, wanted, value in tests)
