"""Which kinds an API server serves: from `Kind.group` to version, plural and verbs, by API discovery."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from refloat.errors import ObjectMissing

Get = Callable[[str], Any]


@dataclass(frozen=True)
class Kind:
    """One served kind at its preferred version."""

    kind: str
    group: str
    version: str
    plural: str
    namespaced: bool
    verbs: frozenset[str]

    @property
    def name(self) -> str:
        """``Kind`` or ``Kind.group``, as it is spelt everywhere."""
        return f"{self.kind}.{self.group}" if self.group else self.kind

    @property
    def api_version(self) -> str:
        """``v1`` or ``group/version``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, *, subresource: str | None = None) -> str:
        """The URL path of the collection, an object, or its subresource."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        parts += [quote(each, safe="") for each in (name, subresource) if each]
        return "/".join(parts)


def name_of(obj: Mapping[str, Any]) -> str:
    """``Kind.group`` of an object by its apiVersion and kind."""
    group, _, version = str(obj["apiVersion"]).rpartition("/")
    return f"{obj['kind']}.{group}" if group and version else str(obj["kind"])


def served_kinds(get: Get) -> list[Kind]:
    """Every kind at the preferred version of its group; kinds only other versions serve come at the first of those.

    Groups whose API service is down are left out: asking for one of their kinds says so.
    """
    wanted: list[tuple[str, str, str]] = [("", version, f"/api/{version}") for version in get("/api")["versions"]]
    for group in get("/apis")["groups"]:
        preferred = group["preferredVersion"]["version"]
        others = [each["version"] for each in group["versions"] if each["version"] != preferred]
        wanted += [(group["name"], version, f"/apis/{group['name']}/{version}") for version in (preferred, *others)]

    def read(entry: tuple[str, str, str]) -> list[Kind]:
        group, version, path = entry
        try:
            resources = (get(path) or {}).get("resources", [])
        except ObjectMissing:  # its last kind was removed since the groups were listed
            return []
        return [
            Kind(r["kind"], group, version, r["name"], bool(r["namespaced"]), frozenset(r.get("verbs", ())))
            for r in resources
            if "/" not in r["name"]
        ]

    found: dict[str, Kind] = {}
    with ThreadPoolExecutor(8) as pool:
        for kinds in pool.map(read, wanted):
            for kind in kinds:
                found.setdefault(kind.name, kind)
    return list(found.values())
