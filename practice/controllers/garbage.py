"""Garbage collection by owner references: background, foreground and orphan deletion."""

from __future__ import annotations

from collections.abc import Iterable

from practice.controllers.loop import Key
from practice.kinds import Object
from practice.store import Event, Store


class Garbage:
    """Keys: (kind key, namespace, name) of an object whose owners, or own deletion, need a look."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def keys(self, event: Event) -> Iterable[Key]:
        """The object, when it is owned or being deleted; its dependents and owners, when it is gone."""
        meta = event.object["metadata"]
        if event.type == "DELETED":
            yield from (self._key(kind, obj) for kind, obj in self._dependents(meta["uid"]))
            for owner in meta.get("ownerReferences") or []:
                found = self._store.of_uid(owner["uid"])
                if found is not None and found[1]["metadata"].get("deletionTimestamp"):
                    yield self._key(*found)
        elif meta.get("finalizers") or (meta.get("ownerReferences") and _owners_changed(event)):
            yield self._key(event.resource.key, event.object)

    def reconcile(self, key: Key) -> float | None:
        """Delete what nobody owns any more; carry out foreground and orphan deletion."""
        kind, namespace, name = key
        obj = self._store.peek(kind, namespace, name)
        if obj is None:
            return None
        meta = obj["metadata"]
        if meta.get("deletionTimestamp"):
            finalizers = meta.get("finalizers") or []
            if "orphan" in finalizers:
                self._orphan(meta["uid"])
                self._unfinalize(key, "orphan")
            elif "foregroundDeletion" in finalizers:
                self._delete_dependents(key, meta["uid"])
            return None
        owners = meta.get("ownerReferences") or []
        living = [owner for owner in owners if self._store.of_uid(owner["uid"]) is not None]
        if owners and not living:
            self._store.delete(kind, namespace, name)
        elif len(living) < len(owners):
            self._store.change(kind, namespace, name, lambda new: new["metadata"].update(ownerReferences=living))
        return None

    def _delete_dependents(self, key: Key, uid: str) -> None:
        rows = self._dependents(uid)
        for kind, obj in rows:
            if not obj["metadata"].get("deletionTimestamp"):
                meta = obj["metadata"]
                self._store.delete(kind, meta.get("namespace"), meta["name"], propagation="Foreground")
        if not self._dependents(uid):
            self._unfinalize(key, "foregroundDeletion")

    def _orphan(self, uid: str) -> None:
        for kind, obj in self._dependents(uid):

            def disown(new: Object) -> None:
                owners = new["metadata"].get("ownerReferences") or []
                new["metadata"]["ownerReferences"] = [owner for owner in owners if owner["uid"] != uid]

            self._store.change(kind, obj["metadata"].get("namespace"), obj["metadata"]["name"], disown)

    def _unfinalize(self, key: Key, finalizer: str) -> None:
        def drop(new: Object) -> None:
            new["metadata"]["finalizers"] = [one for one in new["metadata"]["finalizers"] if one != finalizer]

        self._store.change(key[0], key[1], key[2], drop)

    def _dependents(self, uid: str) -> list[tuple[str, Object]]:
        found = []
        for resource in self._store.kinds.all:
            for obj in self._store.list(resource.key):
                if any(owner["uid"] == uid for owner in obj["metadata"].get("ownerReferences") or []):
                    found.append((resource.key, obj))
        return found

    @staticmethod
    def _key(kind: str, obj: Object) -> Key:
        return (kind, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])


def _owners_changed(event: Event) -> bool:
    if event.before is None:
        return True
    before = event.before["metadata"].get("ownerReferences")
    return bool(before != event.object["metadata"].get("ownerReferences"))
