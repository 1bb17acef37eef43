"""Namespaces: what each is born with, and the cascade when one is deleted."""

from __future__ import annotations

from collections.abc import Iterable

from practice.controllers.loop import Key
from practice.kinds import Object
from practice.refusal import Refusal
from practice.store import Event, Store

_BORN_WITH: tuple[tuple[str, Object], ...] = (
    ("serviceaccounts", {"metadata": {"name": "default"}}),
    (
        "configmaps",
        {"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": "the practice range speaks plain HTTP\n"}},
    ),
)


class Namespaces:
    """Keys: (namespace,)."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def keys(self, event: Event) -> Iterable[Key]:
        """The namespace itself, or that of anything deleted in it."""
        meta = event.object["metadata"]
        if event.resource.key == "namespaces":
            yield (meta["name"],)
        elif event.type == "DELETED" and meta.get("namespace"):
            yield (meta["namespace"],)

    def reconcile(self, key: Key) -> float | None:
        """Give a living namespace its account and bundle; empty a dying one, then let it go."""
        name = key[0]
        home = self._store.peek("namespaces", None, name)
        if home is None:
            return None
        if not home["metadata"].get("deletionTimestamp"):
            for kind, template in _BORN_WITH:
                if self._store.peek(kind, name, str(template["metadata"]["name"])) is None:
                    obj: Object = template | {"metadata": template["metadata"] | {"namespace": name}}
                    self._store.create(kind, obj)
            return None
        left = 0
        for resource in self._store.kinds.all:
            if resource.is_namespaced and "delete" in resource.verbs:
                for obj in self._store.list(resource.key, name):
                    self._delete(resource.key, obj)
                left += len(self._store.list(resource.key, name))
        if left == 0:
            self._store.change("namespaces", None, name, lambda obj: obj["spec"].update(finalizers=[]))
        return None

    def _delete(self, key: str, obj: Object) -> None:
        if not obj["metadata"].get("deletionTimestamp"):
            try:
                self._store.delete(key, obj["metadata"]["namespace"], obj["metadata"]["name"])
            except Refusal as refusal:
                if refusal.code != 404:
                    raise
