"""The objects of the practice range: uids, resource versions, history, finalizers and deletion.

Stored objects are never changed in place: every write replaces the object, so readers may share them. Writes
of the range's own controllers are not recorded in ``managedFields``; those of clients are.
"""

from __future__ import annotations

import copy
import secrets
import threading
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from practice.admission import GENERATED, complete, drop_empty, validate
from practice.fieldsets import record_update
from practice.kinds import KindTable, Object, Resource
from practice.refusal import Refusal, missing
from refloat import clock

HISTORY = 20_000
"""Events kept for watches; a watch from further back is told 410 Expired."""
FIRST_VERSION = 1000
"""What came before is history that nobody has."""
Key = tuple[str, str, str]


@dataclass(frozen=True)
class Event:
    """One change: ``ADDED``, ``MODIFIED`` or ``DELETED``, with the object before it (None when added)."""

    version: int
    type: str
    resource: Resource
    object: Object
    before: Object | None


def stamp(at: datetime | None = None) -> str:
    """A meta/v1 Time: RFC 3339, whole seconds, UTC."""
    return (at or clock.now()).strftime("%Y-%m-%dT%H:%M:%SZ")


class Store:
    """All objects, behind one lock; listeners hear every event in order, under the lock, and must be quick."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.kinds = KindTable()
        self.version = FIRST_VERSION
        self.history: deque[Event] = deque(maxlen=HISTORY)
        self._objects: dict[str, dict[tuple[str, str], Object]] = {}
        self._by_uid: dict[str, Key] = {}
        self._listeners: list[Callable[[Event], None]] = []

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call ``listener`` for every event from now on."""
        self._listeners.append(listener)

    # --- reading -------------------------------------------------------------------------------------------------

    def peek(self, key: str, namespace: str | None, name: str) -> Object | None:
        """The stored object itself, not to be changed, or None."""
        with self.lock:
            return self._objects.get(key, {}).get((namespace or "", name))

    def read(self, key: str, namespace: str | None, name: str) -> Object:
        """The stored object itself; 404 when absent."""
        found = self.peek(key, namespace, name)
        if found is None:
            raise missing(key, name)
        return found

    def list(self, key: str, namespace: str | None = None) -> list[Object]:
        """The stored objects of a kind, by namespace and name; not to be changed."""
        with self.lock:
            rows = self._objects.get(key, {})
            return [rows[at] for at in sorted(rows) if not namespace or at[0] == namespace]

    def of_uid(self, uid: str) -> tuple[str, Object] | None:
        """The key of the kind and the object that bears ``uid``, or None."""
        with self.lock:
            at = self._by_uid.get(uid)
            return None if at is None else (at[0], self._objects[at[0]][at[1:]])

    # --- writing -------------------------------------------------------------------------------------------------

    def create(self, key: str, obj: Object, *, manager: str = "", dry_run: bool = False) -> Object:
        """Store a new object with what the API server adds; 409 when the name is taken, 403/404 by namespace."""
        with self.lock:
            resource = self.kinds.of_key(key)
            new = copy.deepcopy(obj)
            new["apiVersion"], new["kind"] = resource.api_version, resource.kind
            meta = new["metadata"]
            if not meta.get("name") and meta.get("generateName"):
                meta["name"] = meta["generateName"] + "".join(secrets.choice(GENERATED) for _ in range(5))
            for assigned in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"):
                meta.pop(assigned, None)
            meta["uid"], meta["creationTimestamp"] = str(uuid.uuid4()), stamp()
            drop_empty(meta)
            complete(self, resource, new)
            validate(resource, new, None)
            at = (meta.get("namespace", "") if resource.is_namespaced else "", meta["name"])
            if at in self._objects.get(key, {}):
                plural, _, group = key.partition(".")
                details = {"name": at[1], "kind": plural, "group": group}
                raise Refusal(409, f'{key} "{at[1]}" already exists', reason="AlreadyExists", details=details)
            self._check_namespace(resource, at)
            if "spec" in new and key not in ("persistentvolumeclaims", "persistentvolumes", "services", "namespaces"):
                meta["generation"] = 1
            if manager:
                record_update(None, new, manager, stamp())
            return new if dry_run else self._put(resource, at, new, None)

    def _check_namespace(self, resource: Resource, at: tuple[str, str]) -> None:
        if not resource.is_namespaced:
            return
        home = self.peek("namespaces", None, at[0])
        if home is None:
            raise missing("namespaces", at[0])
        if home["metadata"].get("deletionTimestamp"):
            text = f"unable to create new content in namespace {at[0]} because it is being terminated"
            cause = ("NamespaceTerminating", f"namespace {at[0]} is being terminated", "metadata.namespace")
            raise Refusal(403, f'{resource.key} "{at[1]}" is forbidden: {text}', causes=(cause,))

    def change(self, key: str, namespace: str | None, name: str, act: Callable[[Object], None]) -> Object | None:
        """Let a controller edit a copy of an object, spec and status alike; None when it is gone."""
        with self.lock:
            old = self.peek(key, namespace, name)
            if old is None:
                return None
            new = copy.deepcopy(old)
            act(new)
            return self.save(self.kinds.of_key(key), old, new)

    def save(
        self, resource: Resource, old: Object, new: Object, *, manager: str | None = None, dry_run: bool = False
    ) -> Object:
        """Replace ``old`` by ``new``, keeping what only the server assigns. Without a difference nothing happens.

        ``manager`` None: ``managedFields`` of ``new`` are taken as they are.
        """
        with self.lock:
            meta, before = new["metadata"], old["metadata"]
            for assigned in (
                "uid",
                "creationTimestamp",
                "deletionTimestamp",
                "deletionGracePeriodSeconds",
                "generation",
            ):
                meta.pop(assigned, None)
                if assigned in before:
                    meta[assigned] = before[assigned]
            meta["resourceVersion"] = before["resourceVersion"]
            drop_empty(meta)
            validate(resource, new, old)
            if _essence(new) == _essence(old) and (manager is not None or _owners(new) == _owners(old)):
                return old
            if "generation" in before and new.get("spec") != old.get("spec"):
                meta["generation"] = before["generation"] + 1
            if manager is not None:
                meta["managedFields"] = before.get("managedFields", [])
                record_update(old, new, manager, stamp())
            if dry_run:
                return new
            at = (meta.get("namespace", ""), meta["name"])
            if _is_over(resource, new):
                return self._take(resource, at, new)
            return self._put(resource, at, new, old)

    def delete(
        self, key: str, namespace: str | None, name: str, *, propagation: str = "Background", grace: int | None = None
    ) -> Object:
        """Ask for deletion: gone at once, or marked until finalizers (and, for pods, the kubelet) are done."""
        with self.lock:
            resource, old = self.kinds.of_key(key), self.read(key, namespace, name)
            new = copy.deepcopy(old)
            meta = new["metadata"]
            finalizers = list(meta.get("finalizers") or [])
            wanted = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}.get(propagation)
            if wanted and wanted not in finalizers:
                finalizers.append(wanted)
            if finalizers:
                meta["finalizers"] = finalizers
            seconds = grace if grace is not None else 0
            if key == "pods" and grace is None:
                seconds = int(old["spec"].get("terminationGracePeriodSeconds", 30))
            if key == "pods" and not old["spec"].get("nodeName"):
                seconds = 0
            if "deletionTimestamp" not in meta:
                meta["deletionTimestamp"] = stamp()
            seconds = min(seconds, meta.get("deletionGracePeriodSeconds", seconds))
            meta["deletionGracePeriodSeconds"] = seconds
            if key == "namespaces":
                new["status"] = {**(new.get("status") or {}), "phase": "Terminating"}
            at = (meta.get("namespace", ""), meta["name"])
            if _is_over(resource, new):
                return self._take(resource, at, new)
            return old if new == old else self._put(resource, at, new, old)

    # --- the two ends of every write -----------------------------------------------------------------------------

    def _put(self, resource: Resource, at: tuple[str, str], new: Object, old: Object | None) -> Object:
        self.version += 1
        new["metadata"]["resourceVersion"] = str(self.version)
        self._objects.setdefault(resource.key, {})[at] = new
        self._by_uid[new["metadata"]["uid"]] = (resource.key, *at)
        if resource.plural == "customresourcedefinitions":
            self.kinds.define(new)
        self._publish(Event(self.version, "MODIFIED" if old else "ADDED", resource, new, old))
        return new

    def _take(self, resource: Resource, at: tuple[str, str], last: Object) -> Object:
        old = self._objects[resource.key].pop(at)
        self._by_uid.pop(old["metadata"]["uid"], None)
        self.version += 1
        last["metadata"]["resourceVersion"] = str(self.version)
        self._publish(Event(self.version, "DELETED", resource, last, old))
        if resource.plural == "customresourcedefinitions":
            self._forget_kind(old)
        return last

    def _forget_kind(self, definition: Object) -> None:
        key = f"{definition['spec']['names']['plural']}.{definition['spec']['group']}"
        resource = self.kinds.of_key(key)
        for at, obj in list(self._objects.get(key, {}).items()):
            self._take(resource, at, copy.deepcopy(obj))
        self.kinds.forget(key)

    def _publish(self, event: Event) -> None:
        self.history.append(event)
        for listener in self._listeners:
            listener(event)


def _essence(obj: Object) -> dict[str, Any]:
    hidden = ("managedFields", "resourceVersion")
    return obj | {"metadata": {name: value for name, value in obj["metadata"].items() if name not in hidden}}


def _owners(obj: Object) -> list[Object]:
    return [entry | {"time": ""} for entry in obj["metadata"].get("managedFields") or []]


def _is_over(resource: Resource, obj: Object) -> bool:
    meta = obj["metadata"]
    if not meta.get("deletionTimestamp") or meta.get("finalizers"):
        return False
    if resource.key == "namespaces":
        return not obj["spec"].get("finalizers")
    return resource.key != "pods" or not meta.get("deletionGracePeriodSeconds")
