"""Rewriting: a point's manifest under the names of its target: namespaces renamed, storage classes mapped. Pure.

Renamed are the fields in which Kubernetes' own kinds, and by convention custom ones, name a namespace: ``namespace``,
``namespaces``, ``matchNames``, selectors on ``kubernetes.io/metadata.name``, and a Service's external name. Free text
(ConfigMaps, Secrets, environment, annotations) is the application's own and stays; ``mentions`` finds it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from refloat.errors import IntegrityError
from refloat.plan import Mappings

Object = dict[str, Any]
NAME_LABEL = "kubernetes.io/metadata.name"
"""Label every namespace bears, with its own name as value (core/v1)."""
OLD_CLASS = "volume.beta.kubernetes.io/storage-class"
FREE_TEXT = ("data", "binaryData", "stringData", "labels", "annotations", "env", "args", "command")
MOST_BYTES = 3 << 20
"""An object larger than this fits into no API server (etcd and request limits)."""


def rewrite(manifest: bytes, mappings: Mappings) -> Object:
    """The manifest as an object for the target. The same bytes and mappings give the same object.

    Raises:
        IntegrityError: The bytes are no manifest.
    """
    obj = parse(manifest)
    meta = obj["metadata"]
    if obj["kind"] == "Namespace":
        meta["name"] = mappings.namespace(meta["name"])
        return obj
    if (obj["kind"], obj["apiVersion"]) == ("Service", "v1"):
        external_name(obj, mappings)
    annotations = meta.get("annotations") or {}
    if OLD_CLASS in annotations:
        annotations[OLD_CLASS] = mappings.storage_classes.get(annotations[OLD_CLASS], annotations[OLD_CLASS])
    walk(obj, mappings)
    return obj


def parse(manifest: bytes) -> Object:
    """A manifest as an object; bytes of a point are data and never trusted to be well-formed.

    Raises:
        IntegrityError: They are no JSON object with apiVersion, kind and a name, or larger than any cluster takes.
    """
    try:
        obj: Any = json.loads(manifest) if len(manifest) <= MOST_BYTES else None
    except (ValueError, RecursionError) as wrong:
        raise IntegrityError(f"a manifest of the point is not JSON: {type(wrong).__name__}") from wrong
    meta = obj.get("metadata") if isinstance(obj, dict) else None
    if not isinstance(meta, dict) or not (meta.get("name") and {"apiVersion", "kind"} <= obj.keys()):
        raise IntegrityError("a manifest of the point is no Kubernetes object of at most 3 MiB")
    return dict(obj)


def walk(part: Any, mappings: Mappings) -> None:
    """Rename in place, below ``part``, every field that names a namespace or a storage class."""
    if isinstance(part, list):
        for each in part:
            walk(each, mappings)
    if not isinstance(part, dict):
        return
    for name, value in part.items():
        rename = RENAMES.get(name)
        if rename is not None:
            part[name] = rename(value, mappings)
        elif name not in FREE_TEXT:
            walk(value, mappings)


def one(value: Any, mappings: Mappings) -> Any:
    """A field that holds one namespace."""
    if not isinstance(value, str):
        walk(value, mappings)
        return value
    return mappings.namespace(value)


def several(value: Any, mappings: Mappings) -> Any:
    """A field that lists namespaces (pod affinity, monitors' ``matchNames``)."""
    if not isinstance(value, list):
        walk(value, mappings)
        return value
    return [one(each, mappings) for each in value]


def selected(value: Any, mappings: Mappings) -> Any:
    """A namespace selector (NetworkPolicy, pod affinity): its requirements on the name label."""
    if not isinstance(value, dict):
        return value
    walk({name: each for name, each in value.items() if name not in ("matchLabels", "matchExpressions")}, mappings)
    labels, expressions = value.get("matchLabels"), value.get("matchExpressions")
    if isinstance(labels, dict) and NAME_LABEL in labels:
        labels[NAME_LABEL] = one(labels[NAME_LABEL], mappings)
    for expression in expressions if isinstance(expressions, list) else ():
        if isinstance(expression, dict) and expression.get("key") == NAME_LABEL:
            expression["values"] = several(expression.get("values"), mappings)
    return value if "matchNames" not in value else {**value, "matchNames": several(value["matchNames"], mappings)}


def storage_class(value: Any, mappings: Mappings) -> Any:
    """A field that holds a storage class (claims, claim templates of StatefulSets and of ephemeral volumes)."""
    return mappings.storage_classes.get(value, value) if isinstance(value, str) else value


RENAMES: Mapping[str, Callable[[Any, Mappings], Any]] = {
    "namespace": one,
    "namespaces": several,
    "namespaceSelector": selected,
    "storageClassName": storage_class,
}


def external_name(service: Object, mappings: Mappings) -> None:
    """The namespace inside an external name that points back into the cluster: ``db.shop.svc.cluster.local``."""
    host = (service.get("spec") or {}).get("externalName")
    found = re.match(r"^([^.]+)\.([^.]+)(\.svc(?:\.|$).*)$", host) if isinstance(host, str) else None
    if found:
        service["spec"]["externalName"] = found[1] + "." + mappings.namespace(found[2]) + found[3]


def mentions(obj: Mapping[str, Any], mappings: Mappings) -> Iterator[str]:
    """Renamed namespaces whose old host names (``.shop.svc``) still stand in the object's free text."""
    text = json.dumps(obj)
    for old, new in mappings.namespaces.items():
        if old != new and re.search(rf"\.{re.escape(old)}\.svc\b", text):
            yield old
