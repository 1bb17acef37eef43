"""Who may do what on the practice range: bearer tokens, denied rights, and faults injected on purpose."""

from __future__ import annotations

import re
import secrets
import threading
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

from practice.kinds import Object, Resource
from practice.refusal import Refusal


@dataclass(frozen=True)
class Identity:
    """A user; ``denied`` are (verb, kind) shell patterns, a kind spelt ``Kind``, ``Kind.group`` or ``Pod/exec``."""

    name: str
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    denied: tuple[tuple[str, str], ...] = ()

    def may(self, verb: str, resource: Resource, subresource: str = "") -> bool:
        """Whether none of the denied rights covers the request."""
        kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
        full = f"{kind}/{subresource}" if subresource else kind
        return not any(fnmatchcase(verb, v) and fnmatchcase(full, k) for v, k in self.denied)


@dataclass
class Fault:
    """The ``nth`` request (from 1) that matches, and ``times`` - 1 after it, goes wrong.

    ``path`` is a regular expression searched in path and query. ``act``: ``answer`` with ``status``, ``drop`` the
    connection before the request is handled, ``drop-after`` it was (the client cannot know), or ``delay``.
    ``fired`` counts the faults that happened.
    """

    act: Literal["answer", "drop", "drop-after", "delay"]
    path: str
    method: str = "*"
    nth: int = 1
    times: int = 1
    status: int = 503
    retry_after_seconds: int | None = None
    delay_seconds: float = 0.0
    seen: int = 0
    fired: int = 0


class Access:
    """Identities and faults of one range; safe to change while it serves."""

    def __init__(self) -> None:
        self.admin = Identity("practice-admin")
        self._lock = threading.Lock()
        self._identities = {self.admin.token: self.admin}
        self._faults: list[Fault] = []

    def admit(self, identity: Identity) -> Identity:
        """Let the bearer of the identity's token in."""
        with self._lock:
            self._identities[identity.token] = identity
        return identity

    def inject(self, fault: Fault) -> Fault:
        """Arm a fault; read ``fired`` of the returned one to prove that it happened."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def heal(self) -> None:
        """Disarm every fault."""
        with self._lock:
            self._faults.clear()

    def fault_of(self, method: str, address: str) -> Fault | None:
        """The fault this request meets, counted; None almost always."""
        with self._lock:
            for fault in self._faults:
                if fault.method in ("*", method) and re.search(fault.path, address):
                    fault.seen += 1
                    if fault.nth <= fault.seen < fault.nth + fault.times:
                        fault.fired += 1
                        return fault
        return None

    def identify(self, authorization: str) -> Identity:
        """The user of an Authorization header; 401 when there is none."""
        scheme, _, token = authorization.partition(" ")
        with self._lock:
            found = self._identities.get(token) if scheme.lower() == "bearer" else None
        if found is None:
            raise Refusal(401, "Unauthorized")
        return found


def require(
    identity: Identity, verb: str, resource: Resource, namespace: str, name: str, subresource: str = ""
) -> None:
    """403 in the real server's words when the identity lacks the right."""
    if identity.may(verb, resource, subresource):
        return
    plural = f"{resource.plural}/{subresource}" if subresource else resource.plural
    where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
    text = f'User "{identity.name}" cannot {verb} resource "{plural}" in API group "{resource.group}"{where}'
    what = f'{resource.key} "{name}"' if name else resource.key
    details = {"name": name, "group": resource.group, "kind": resource.plural}
    raise Refusal(403, f"{what} is forbidden: {text}", details=details)


def review(identity: Identity, resources: list[Resource], body: Object) -> Object:
    """Answer a SelfSubjectAccessReview from the same rights `require` enforces."""
    asked = body.get("spec", {}).get("resourceAttributes") or {}
    rows = [r for r in resources if r.plural == asked.get("resource") and r.group == asked.get("group", "")]
    allowed = all(identity.may(asked.get("verb", ""), row, asked.get("subresource", "")) for row in rows)
    return body | {
        "status": {"allowed": allowed} | ({} if allowed else {"denied": False, "reason": "denied by practice"})
    }
