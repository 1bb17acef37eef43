"""`Refusal`: how the practice range says no, in the Status bodies of the real API server."""

from __future__ import annotations

from typing import Any

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}


class Refusal(Exception):
    """An answer other than success; ``causes`` are (reason, message, field) triples (meta/v1 Status)."""

    def __init__(
        self,
        code: int,
        message: str,
        *,
        reason: str = "",
        details: dict[str, Any] | None = None,
        causes: tuple[tuple[str, str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason or REASONS.get(code, "")
        self.details = dict(details or {})
        if causes:
            self.details["causes"] = [{"reason": r, "message": m, "field": f} for r, m, f in causes]

    def as_status(self) -> dict[str, Any]:
        """The body of the answer."""
        body: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        body |= {"message": self.message, "reason": self.reason, "code": self.code}
        if self.details:
            body["details"] = self.details
        return body


def missing(key: str, name: str) -> Refusal:
    """404 for an object; ``key`` is ``plural`` or ``plural.group``."""
    plural, _, group = key.partition(".")
    details = {"name": name, "kind": plural} | ({"group": group} if group else {})
    return Refusal(404, f'{key} "{name}" not found', details=details)


def invalid(kind: str, group: str, name: str, field: str, message: str, reason: str = "FieldValueInvalid") -> Refusal:
    """422 for one field."""
    full = f"{kind}.{group}" if group else kind
    details = {"name": name, "kind": kind} | ({"group": group} if group else {})
    text = f'{full} "{name}" is invalid: {field}: {message}'
    return Refusal(422, text, details=details, causes=((reason, message, field),))
