"""The patch formats: JSON merge patch (RFC 7386), JSON patch (RFC 6902) and a simple strategic merge patch.

Strategic merge here merges the lists of `practice.fieldsets` by their keys and knows ``$patch: delete`` and
``$patch: replace``; every other list is replaced, as a merge patch does.
"""

from __future__ import annotations

import copy
from typing import Any

from practice.fieldsets import list_keys
from practice.refusal import Refusal


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386; ``target`` is left as it is."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


def strategic(target: Any, patch: Any, path: tuple[str, ...] = ()) -> Any:
    """Merge ``patch`` into ``target``: maps recursively, keyed lists by key, other lists whole."""
    if isinstance(patch, list):
        return _strategic_list(target if isinstance(target, list) else [], patch, path)
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    if patch.get("$patch") == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if name.startswith("$"):
            continue
        if value is None:
            result.pop(name, None)
        else:
            result[name] = strategic(result.get(name), value, (*path, name))
    return result


def _strategic_list(target: list[Any], patch: list[Any], path: tuple[str, ...]) -> list[Any]:
    keys = list_keys(path, patch or target)
    if path[-2:] == ("metadata", "finalizers"):
        return target + [value for value in patch if value not in target]
    if not keys:
        return copy.deepcopy(patch)
    result = list(target)
    for item in patch:
        at = next((i for i, old in enumerate(result) if all(old.get(k) == item.get(k) for k in keys)), None)
        if item.get("$patch") == "delete":
            result = [old for i, old in enumerate(result) if i != at]
        elif at is None:
            result.append(copy.deepcopy(item))
        else:
            result[at] = strategic(result[at], item, path)
    return result


def json_patch(target: Any, operations: Any) -> Any:
    """RFC 6902; 422 where a path or a test fails, 400 for what is not a list of operations."""
    if not isinstance(operations, list):
        raise Refusal(400, "json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    result = copy.deepcopy(target)
    for step in operations:
        try:
            result = _apply(result, step)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise Refusal(422, f"the server rejected our request due to an error in our request: {error}") from error
    return result


def _parts(pointer: str) -> list[str]:
    if pointer and not pointer.startswith("/"):
        raise ValueError(f"{pointer} is no JSON pointer")
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def _read(document: Any, parts: list[str]) -> Any:
    for part in parts:
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document


def _put(document: Any, parts: list[str], value: Any, *, replace: bool) -> Any:
    if not parts:
        return value
    home, last = _read(document, parts[:-1]), parts[-1]
    if isinstance(home, list):
        if replace:
            home[int(last)] = value
        else:
            home.insert(len(home) if last == "-" else int(last), value)
    else:
        if replace and last not in home:
            raise KeyError(f"replace operation does not apply: doc is missing key: {last}")
        home[last] = value
    return document


def _remove(document: Any, parts: list[str]) -> Any:
    home, last = _read(document, parts[:-1]), parts[-1]
    del home[int(last) if isinstance(home, list) else last]
    return document


def _apply(document: Any, step: dict[str, Any]) -> Any:
    parts = _parts(step["path"])
    match step["op"]:
        case "add":
            return _put(document, parts, copy.deepcopy(step["value"]), replace=False)
        case "replace":
            return _put(document, parts, copy.deepcopy(step["value"]), replace=True)
        case "remove":
            return _remove(document, parts)
        case "test":
            if _read(document, parts) != step["value"]:
                raise ValueError(f"testing value {step['path']} failed")
            return document
        case "move" | "copy":
            source = _parts(step["from"])
            value = copy.deepcopy(_read(document, source))
            if step["op"] == "move":
                document = _remove(document, source)
            return _put(document, parts, value, replace=False)
        case other:
            raise ValueError(f"unexpected kind: {other}")
