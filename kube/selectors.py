"""Label selectors, evaluated here: the text form of the API and the structured form of objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from refloat.errors import ConfigError

Labels = Mapping[str, str]
_SET = re.compile(r"^\s*([\w./-]+)\s+(in|notin)\s+\(([^)]*)\)\s*$")
_EQUAL = re.compile(r"^\s*([\w./-]+)\s*(==|=|!=)\s*([\w.-]*)\s*$")
_EXISTS = re.compile(r"^\s*(!?)\s*([\w./-]+)\s*$")


def parse(text: str) -> Callable[[Labels], bool]:
    """The test a selector text stands for (Kubernetes labels concept: equality, set and existence requirements).

    Raises:
        ConfigError: It is no selector.
    """
    tests = [_requirement(part, text) for part in re.split(r",(?![^(]*\))", text) if text.strip()]
    return lambda labels: all(test(labels) for test in tests)


def _requirement(part: str, text: str) -> Callable[[Labels], bool]:
    if found := _SET.match(part):
        key, operator, values = found[1], found[2], {each.strip() for each in found[3].split(",")}
        if operator == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if found := _EQUAL.match(part):
        key, value = found[1], found[3]
        if found[2] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if found := _EXISTS.match(part):
        key, wanted = found[2], not found[1]
        return lambda labels: (key in labels) is wanted
    raise ConfigError(
        f"{text!r} is no label selector", guidance="Write for example app=pg,tier!=cache or 'app in (a, b)'."
    )


def matches(selector: Mapping[str, Any], labels: Labels) -> bool:
    """Whether a structured selector (matchLabels, matchExpressions) chooses these labels (meta/v1 LabelSelector)."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for expression in selector.get("matchExpressions") or []:
        key, operator, values = expression["key"], expression["operator"], expression.get("values") or []
        held = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not held.get(operator, False):
            return False
    return True
