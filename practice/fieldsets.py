"""Who owns which field: field sets, ``managedFields`` and server-side apply.

Lists are associative, sets or atomic as in Kubernetes' structural merge types
(https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy); those of the kinds that
matter here are listed below, every other list is atomic.
"""

from __future__ import annotations

import copy
import json
from typing import Any

from practice.refusal import Refusal

Path = tuple[str, ...]
_KEYED: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "imagePullSecrets": ("name",),
    "secrets": ("name",),
    "conditions": ("type",),
    "ownerReferences": ("uid",),
}
_UNOWNED = {"apiVersion", "kind", "status"}
_UNOWNED_METADATA = (
    "name namespace uid resourceVersion generation creationTimestamp deletionTimestamp "
    "deletionGracePeriodSeconds managedFields selfLink generateName"
)


def list_keys(path: tuple[str, ...], items: list[Any]) -> tuple[str, ...]:
    """The keys that identify an element of the list at ``path``; empty when the list is atomic."""
    if not path or not all(isinstance(item, dict) for item in items):
        return ()
    if path[-1] == "ports" and items:
        return ("containerPort", "protocol") if "containerPort" in items[0] else ("port", "protocol")
    return _KEYED.get(path[-1], ())


def _element(keys: tuple[str, ...], item: dict[str, Any]) -> str:
    chosen = {key: item.get(key, "TCP" if key == "protocol" else None) for key in keys}
    return "k:" + json.dumps(chosen, sort_keys=True, separators=(",", ":"))


def leaves(obj: dict[str, Any]) -> dict[Path, Any]:
    """Every field an owner can own, with its value: leaves of maps, elements of keyed lists, atomic lists whole."""
    found: dict[Path, Any] = {}
    metadata_skipped = set(_UNOWNED_METADATA.split())
    for name, value in obj.items():
        if name == "metadata":
            owned = {key: part for key, part in value.items() if key not in metadata_skipped}
            _collect(owned, ("f:metadata",), ("metadata",), found)
        elif name not in _UNOWNED:
            _collect(value, (f"f:{name}",), (name,), found)
    return found


def _collect(value: Any, path: Path, names: tuple[str, ...], found: dict[Path, Any]) -> None:
    if isinstance(value, dict) and value:
        for name, part in value.items():
            _collect(part, (*path, f"f:{name}"), (*names, name), found)
    elif isinstance(value, list) and value and (keys := list_keys(names, value)):
        for item in value:
            at = (*path, _element(keys, item))
            for name, part in item.items():
                _collect(part, (*at, f"f:{name}"), (*names, name), found)
    elif isinstance(value, list) and names == ("metadata", "finalizers"):
        for item in value:
            found[*path, f"v:{json.dumps(item)}"] = item
    elif not (isinstance(value, dict) and names == ("metadata",)):
        found[path] = value


def to_fields(paths: set[Path]) -> dict[str, Any]:
    """FieldsV1 of a set of paths."""
    tree: dict[str, Any] = {}
    for path in sorted(paths):
        node = tree
        for part in path:
            node = node.setdefault(part, {})
    return tree


def from_fields(tree: dict[str, Any], at: Path = ()) -> set[Path]:
    """The paths of a FieldsV1."""
    found: set[Path] = set()
    for name, sub in tree.items():
        found |= from_fields(sub, (*at, name)) if sub else {(*at, name)}
    return found


def _owners(obj: dict[str, Any]) -> list[dict[str, Any]]:
    return copy.deepcopy(obj["metadata"].get("managedFields") or [])


def _entry(manager: str, operation: str, api_version: str, paths: set[Path], at: str) -> dict[str, Any]:
    entry = {"manager": manager, "operation": operation, "apiVersion": api_version, "time": at}
    return entry | {"fieldsType": "FieldsV1", "fieldsV1": to_fields(paths)}


def record_update(old: dict[str, Any] | None, new: dict[str, Any], manager: str, at: str) -> None:
    """Give ``manager`` the fields that differ between ``old`` and ``new``, and take them from everybody else."""
    before, after = (leaves(old) if old else {}), leaves(new)
    gained = {path for path, value in after.items() if path not in before or before[path] != value}
    lost = set(before) - set(after)
    owners = _owners(old or {"metadata": {}})
    mine: set[Path] = set()
    kept = []
    for entry in owners:
        paths = from_fields(entry["fieldsV1"]) - lost
        if entry["manager"] == manager and entry["operation"] == "Update":
            mine |= paths
            continue
        paths -= gained
        if paths:
            kept.append(entry | {"fieldsV1": to_fields(paths)})
    if mine | gained:
        kept.append(_entry(manager, "Update", str(new.get("apiVersion", "")), mine | gained, at))
    new["metadata"]["managedFields"] = kept


def apply(live: dict[str, Any] | None, wanted: dict[str, Any], manager: str, *, force: bool, at: str) -> dict[str, Any]:
    """The object after server-side apply of ``wanted`` by ``manager``.

    Raises:
        Refusal: 409 when another manager owns a field with another value and ``force`` is off.
    """
    config = leaves(wanted)
    owners = _owners(live or {"metadata": {}})
    values = leaves(live) if live else {}
    before: set[Path] = set()
    kept, conflicts, others = [], [], set()
    for entry in owners:
        paths = from_fields(entry["fieldsV1"])
        if entry["manager"] == manager and entry["operation"] == "Apply":
            before = paths
            continue
        clash = {path for path in paths if _clashes(path, config, values)}
        using = "" if entry["operation"] == "Apply" else f" using {entry['apiVersion']}"
        conflicts += [(f'"{entry["manager"]}"{using}', path) for path in sorted(clash)]
        paths -= clash if force else set()
        others |= paths
        if paths:
            kept.append(entry | {"fieldsV1": to_fields(paths)})
    if conflicts and not force:
        raise _conflict(conflicts)
    result: dict[str, Any] = copy.deepcopy(live) if live else {"metadata": {}}
    for path in sorted(before - set(config) - others, key=len, reverse=True):
        _remove(result, path)
    result = dict(_merged(result, wanted, ()))
    kept.append(_entry(manager, "Apply", str(wanted.get("apiVersion", "")), set(config), at))
    result["metadata"]["managedFields"] = kept
    return result


def _clashes(path: Path, config: dict[Path, Any], values: dict[Path, Any]) -> bool:
    if path in config:
        return path not in values or values[path] != config[path]
    # a map on one side, a leaf on the other; an empty map or list disturbs nobody
    filled = [known for known, value in config.items() if value not in ({}, [])]
    return any(path == known[: len(path)] or known == path[: len(known)] for known in filled) and path in values


def _conflict(conflicts: list[tuple[str, Path]]) -> Refusal:
    """409, worded as apiserver's managedfields package words it."""
    fields: dict[str, list[str]] = {}
    for owner, path in conflicts:
        fields.setdefault(owner, []).append(_dotted(path))
    texts = []
    for owner, paths in sorted(fields.items()):
        listed = "".join(f"\n- {path}" for path in paths)
        texts.append(
            f"conflict with {owner}: {paths[0]}" if len(conflicts) == 1 else f"conflicts with {owner}:{listed}"
        )
    causes = tuple(("FieldManagerConflict", f"conflict with {owner}", _dotted(path)) for owner, path in conflicts)
    count = f"{len(causes)} conflict" + ("s" if len(causes) > 1 else "")
    return Refusal(409, f"Apply failed with {count}: " + "\n".join(texts), causes=causes)


def _dotted(path: Path) -> str:
    text = ""
    for part in path:
        if part.startswith("k:"):
            text += "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in json.loads(part[2:]).items()) + "]"
        else:
            text += f"[={part[2:]}]" if part.startswith("v:") else f".{part[2:]}"
    return text


def _merged(live: Any, wanted: Any, names: tuple[str, ...]) -> Any:
    if isinstance(wanted, dict) and isinstance(live, dict):
        result = dict(live)
        for name, value in wanted.items():
            result[name] = _merged(live.get(name), value, (*names, name))
        return result
    if isinstance(wanted, list) and isinstance(live, list):
        if names == ("metadata", "finalizers"):
            return live + [item for item in wanted if item not in live]
        if keys := list_keys(names, wanted or live):
            result_list = list(live)
            for item in wanted:
                name = _element(keys, item)
                at = next((i for i, old in enumerate(result_list) if _element(keys, old) == name), None)
                if at is None:
                    result_list.append(copy.deepcopy(item))
                else:
                    result_list[at] = _merged(result_list[at], item, names)
            return result_list
    return copy.deepcopy(wanted)


def _remove(obj: Any, path: Path) -> None:
    """Remove one owned leaf, and the maps and elements it leaves empty."""
    head, rest = path[0], path[1:]
    if head.startswith("f:") and isinstance(obj, dict) and head[2:] in obj:
        if rest:
            _remove(obj[head[2:]], rest)
        if not rest or obj[head[2:]] in ({}, []):
            del obj[head[2:]]
    elif isinstance(obj, list):
        for item in list(obj):
            keys = tuple(json.loads(head[2:])) if head.startswith("k:") else ()
            if keys and _element(keys, item) == head:
                if rest and rest[0][2:] not in keys:
                    _remove(item, rest)
                if set(item) <= set(keys):
                    obj.remove(item)
            elif head.startswith("v:") and item == json.loads(head[2:]):
                obj.remove(item)
