"""The verbs of the API on one kind: get, list, create, update, patch, apply, delete, and their subresources."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from practice import fieldsets, patches
from practice.access import Identity, review
from practice.admission import encode_strings, redefault
from practice.kinds import Object, Resource
from practice.refusal import Refusal, invalid, missing
from practice.selectors import Matcher, by_fields, by_labels
from practice.store import Store, stamp

APPLY = "application/apply-patch+yaml"
_WRITES_STATUS = "status"


@dataclass(frozen=True)
class Request:
    """One request, its address already taken apart."""

    method: str
    resource: Resource
    namespace: str
    name: str
    subresource: str
    query: Mapping[str, str]
    identity: Identity
    agent: str = ""
    content_type: str = "application/json"
    body: bytes = field(default=b"", repr=False)

    @property
    def manager(self) -> str:
        """The field manager: the parameter, else the client's name."""
        return self.query.get("fieldManager") or self.agent.partition("/")[0] or "unknown"

    @property
    def is_dry_run(self) -> bool:
        """Whether nothing may be stored."""
        return self.query.get("dryRun") == "All"

    def matcher(self) -> Matcher:
        """The label and field selectors together."""
        labels = by_labels(self.query.get("labelSelector", ""))
        fields = by_fields(self.query.get("fieldSelector", ""), self.resource)
        return lambda obj: labels(obj) and fields(obj)

    def document(self) -> Any:
        """The body as JSON (or YAML, for apply); 400 when it is neither."""
        try:
            return yaml.safe_load(self.body) if self.content_type == APPLY else json.loads(self.body)
        except (ValueError, yaml.YAMLError) as error:
            raise Refusal(400, f"the object provided is unrecognized: {error}") from error


class Verbs:
    """Carries out requests on the store; returns (HTTP status, body)."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pages: dict[str, tuple[list[Object], str]] = {}

    def run(self, request: Request) -> tuple[int, Object]:
        """Carry out any verb but watch, exec and log."""
        if request.resource.key == "selfsubjectaccessreviews.authorization.k8s.io":
            return 201, review(request.identity, self._store.kinds.all, request.document())
        acts: dict[tuple[str, bool, str], Callable[[Request], tuple[int, Object]]] = {
            ("GET", True, "scale"): lambda asked: (200, _scale_of(self._read(asked))),
            ("GET", True, "status"): lambda asked: (200, self._read(asked)),
            ("GET", True, ""): lambda asked: (200, self._read(asked)),
            ("GET", False, ""): lambda asked: (200, self._list(asked)),
            ("POST", False, ""): lambda asked: (201, self._create(asked)),
            ("POST", True, "eviction"): lambda asked: (201, self._evict(asked)),
            ("DELETE", True, ""): lambda asked: (200, self._delete_one(asked)),
            ("DELETE", False, ""): lambda asked: (200, self._delete_collection(asked)),
        }
        for subresource in ("", "status", "scale", "finalize"):
            acts["PUT", True, subresource] = lambda asked: (200, self._update(asked))
            acts["PATCH", True, subresource] = self._patch
        act = acts.get((request.method, bool(request.name), request.subresource))
        if act is None:
            raise Refusal(405, "the server does not allow this method on the requested resource")
        return act(request)

    def _read(self, request: Request) -> Object:
        return self._store.read(request.resource.key, request.namespace, request.name)

    def _evict(self, request: Request) -> Object:
        self._store.delete("pods", request.namespace, request.name)
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}

    # --- reading -------------------------------------------------------------------------------------------------

    def _list(self, request: Request) -> Object:
        token, limit = request.query.get("continue", ""), int(request.query.get("limit") or 0)
        with self._store.lock:
            if token:
                if token not in self._pages:
                    raise Refusal(
                        410, "The provided continue parameter is too old to display a consistent list result."
                    )
                rows, version = self._pages[token]
            else:
                wanted = request.matcher()
                stored = self._store.list(request.resource.key, request.namespace or None)
                rows, version = [obj for obj in stored if wanted(obj)], str(self._store.version)
            meta: Object = {"resourceVersion": version}
            if limit and len(rows) > limit:
                rows, rest = rows[:limit], rows[limit:]
                last = rows[-1]["metadata"]
                start = {
                    "v": "meta.k8s.io/v1",
                    "rv": int(version),
                    "start": f"{last.get('namespace', '')}/{last['name']}",
                }
                following = base64.urlsafe_b64encode(json.dumps(start | {"left": len(rest)}).encode()).decode()
                self._remember(following, rest, version)
                meta |= {"continue": following, "remainingItemCount": len(rest)}
        if not request.resource.is_custom:
            rows = [{k: v for k, v in obj.items() if k not in ("kind", "apiVersion")} for obj in rows]
        resource = request.resource
        return {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": meta, "items": rows}

    def _remember(self, token: str, rest: list[Object], version: str) -> None:
        """Later pages are of the same instant as the first; the oldest hundred tokens stay good."""
        self._pages[token] = (rest, version)
        while len(self._pages) > 100:
            del self._pages[next(iter(self._pages))]

    # --- writing -------------------------------------------------------------------------------------------------

    def _accept(self, request: Request, obj: Any) -> Object:
        """The body as an object of this address; 400 when it says otherwise."""
        resource = request.resource
        if not isinstance(obj, dict) or not isinstance(obj.get("metadata", {}), dict):
            raise Refusal(400, "the object provided is unrecognized (must be of type object)")
        for said, meant in (("kind", resource.kind), ("apiVersion", resource.api_version)):
            if obj.get(said, meant) != meant:
                text = f"{said} in body ({obj[said]}) does not match the expected {said} ({meant})"
                raise Refusal(400, text)
        meta = obj.setdefault("metadata", {})
        if resource.is_namespaced:
            if meta.setdefault("namespace", request.namespace) != request.namespace:
                raise Refusal(
                    400, "the namespace of the provided object does not match the namespace sent on the request"
                )
        else:
            meta.pop("namespace", None)
        if request.name and meta.setdefault("name", request.name) != request.name:
            raise Refusal(
                400, f"the name of the object ({meta['name']}) does not match the name on the URL ({request.name})"
            )
        return obj

    def _create(self, request: Request) -> Object:
        obj = self._accept(request, request.document())
        if obj["metadata"].get("resourceVersion"):
            raise Refusal(400, "resourceVersion should not be set on objects to be created")
        return self._store.create(request.resource.key, obj, manager=request.manager, dry_run=request.is_dry_run)

    def _update(self, request: Request) -> Object:
        with self._store.lock:
            old = self._store.read(request.resource.key, request.namespace, request.name)
            obj = request.document()
            if request.subresource == "scale":
                return self._scale(request, old, obj["spec"]["replicas"])
            return self._save(request, old, self._accept(request, obj))

    def _save(self, request: Request, old: Object, new: Object) -> Object:
        before = old["metadata"]
        self._check_identity(request, new["metadata"], before)
        resource = request.resource
        new["kind"], new["apiVersion"] = resource.kind, resource.api_version
        if request.subresource == _WRITES_STATUS:
            new = old | {"status": new.get("status", {}), "metadata": dict(before)}
        elif request.subresource == "finalize":
            new = copy.deepcopy(old) | {"spec": new.get("spec", {})}
        elif resource.has_status:
            new = {name: value for name, value in new.items() if name != "status"}
            new |= {"status": old["status"]} if "status" in old else {}
        new = copy.deepcopy(new)
        if not request.subresource:
            redefault(self._store, resource, new, old)
        manager = None if request.subresource else request.manager
        return self._store.save(resource, old, new, manager=manager, dry_run=request.is_dry_run)

    def _check_identity(self, request: Request, meta: Object, before: Object) -> None:
        """409 when the writer had another object, or an older version of it, in mind."""
        if meta.get("uid", before["uid"]) != before["uid"]:
            text = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {before['uid']}"
            raise self._conflict(request, text)
        if meta.get("resourceVersion") not in (None, "", before["resourceVersion"]):
            text = "the object has been modified; please apply your changes to the latest version and try again"
            raise self._conflict(request, text)

    def _conflict(self, request: Request, text: str) -> Refusal:
        key, name = request.resource.key, request.name
        details = {"name": name, "group": request.resource.group, "kind": request.resource.plural}
        return Refusal(409, f'Operation cannot be fulfilled on {key} "{name}": {text}', details=details)

    def _patch(self, request: Request) -> tuple[int, Object]:
        patch = request.document()
        with self._store.lock:
            old = self._store.peek(request.resource.key, request.namespace, request.name)
            if request.content_type == APPLY:
                return self._apply(request, old, patch)
            if old is None:
                raise missing(request.resource.key, request.name)
            target = _scale_of(old) if request.subresource == "scale" else old
            match request.content_type:
                case "application/merge-patch+json":
                    new = patches.merge(target, patch)
                case "application/json-patch+json":
                    new = patches.json_patch(target, patch)
                case "application/strategic-merge-patch+json" if not request.resource.is_custom:
                    new = patches.strategic(target, patch)
                case other:
                    raise Refusal(415, f"the body of the request was in an unknown format - {other}")
            if request.subresource == "scale":
                return 200, self._scale(request, old, new["spec"]["replicas"])
            return 200, self._save(request, old, self._accept(request, copy.deepcopy(new)))

    def _apply(self, request: Request, old: Object | None, wanted: Any) -> tuple[int, Object]:
        if not request.query.get("fieldManager"):
            raise Refusal(
                422, "PatchOptions.meta.k8s.io is invalid: fieldManager: Required value: is required for apply patch"
            )
        wanted = self._accept(request, wanted)
        if wanted["metadata"].get("managedFields"):
            raise Refusal(400, "metadata.managedFields must be nil")
        force = request.query.get("force") == "true"
        if request.resource.key == "secrets":
            encode_strings(wanted)
        new = fieldsets.apply(old, wanted, request.query["fieldManager"], force=force, at=stamp())
        if old is not None:
            if request.resource.has_status and request.subresource != _WRITES_STATUS:
                new["status"] = old.get("status", {})
            meta, resource = wanted["metadata"], request.resource
            if meta.get("uid", old["metadata"]["uid"]) != old["metadata"]["uid"]:
                text = f'Invalid value: "{meta["uid"]}": field is immutable'
                raise invalid(resource.kind, resource.group, meta["name"], "metadata.uid", text)
            self._check_identity(request, meta, old["metadata"])
            redefault(self._store, request.resource, new, old)
            return 200, self._store.save(request.resource, old, new, dry_run=request.is_dry_run)
        made = self._store.create(request.resource.key, new, dry_run=request.is_dry_run)
        return 201, made

    def _scale(self, request: Request, old: Object, replicas: int) -> Object:
        new = copy.deepcopy(old)
        new["spec"]["replicas"] = int(replicas)
        saved = self._store.save(request.resource, old, new, manager=request.manager, dry_run=request.is_dry_run)
        return _scale_of(saved)

    # --- deleting ------------------------------------------------------------------------------------------------

    def _options(self, request: Request) -> Object:
        options: Object = json.loads(request.body) if request.body.strip() else {}
        for name in ("propagationPolicy", "gracePeriodSeconds"):
            if name in request.query:
                options.setdefault(name, request.query[name])
        if options.get("dryRun"):
            options["dryRun"] = True
        return options

    def _delete_one(self, request: Request) -> Object:
        return self._delete(request, request.namespace, request.name, self._options(request))

    def _delete(self, request: Request, namespace: str, name: str, options: Object) -> Object:
        with self._store.lock:
            old = self._store.read(request.resource.key, namespace, name)
            for field_name, asked in (options.get("preconditions") or {}).items():
                real = old["metadata"].get(field_name)
                if asked and asked != real:
                    label = "UID" if field_name == "uid" else "ResourceVersion"
                    text = f"Precondition failed: {label} in precondition: {asked}, {label} in object meta: {real}"
                    raise self._conflict(request, text)
            if request.is_dry_run or options.get("dryRun"):
                return old
            grace = options.get("gracePeriodSeconds")
            last = self._store.delete(
                request.resource.key,
                namespace,
                name,
                propagation=options.get("propagationPolicy") or "Background",
                grace=None if grace is None else int(grace),
            )
            if self._store.peek(request.resource.key, namespace, name) is not None:
                return last
        details = {"name": name, "group": request.resource.group, "kind": request.resource.plural}
        details["uid"] = last["metadata"]["uid"]
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}

    def _delete_collection(self, request: Request) -> Object:
        wanted, options = request.matcher(), self._options(request)
        with self._store.lock:
            rows = [one for one in self._store.list(request.resource.key, request.namespace or None) if wanted(one)]
            for obj in rows:
                self._delete(request, obj["metadata"].get("namespace", ""), obj["metadata"]["name"], options)
        kind = f"{request.resource.kind}List"
        return {"kind": kind, "apiVersion": request.resource.api_version, "metadata": {}, "items": rows}


def _scale_of(obj: Object) -> Object:
    meta = {
        name: obj["metadata"].get(name) for name in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    }
    labels = (obj["spec"].get("selector") or {}).get("matchLabels") or {}
    status = {"replicas": (obj.get("status") or {}).get("replicas", 0)}
    status["selector"] = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    spec = {"replicas": obj["spec"].get("replicas", 0)}
    return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta, "spec": spec, "status": status}
