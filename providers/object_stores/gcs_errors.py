"""What Google Cloud Storage and its client say, as errors of our tree: the one place where they are translated.

Reasons: cloud.google.com/storage/docs/json_api/v1/status-codes. Addresses are never repeated: that of a resumable
upload is itself a permission to write.
"""

from __future__ import annotations

import re
from typing import Any

import google.auth.exceptions as auth
import requests.exceptions
import urllib3.exceptions
from google.api_core.exceptions import GoogleAPICallError
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

from refloat.errors import (
    AccessDenied,
    AlreadyExists,
    ConfigError,
    Immutable,
    NotFound,
    Permanent,
    RangeNotSatisfiable,
    RefloatError,
    StoreFull,
    Throttled,
    TimedOut,
    Unavailable,
    Unsupported,
)

FOREIGN = (
    GoogleAPICallError, InvalidResponse, DataCorruption, auth.GoogleAuthError, requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError, OSError, ValueError,
)  # fmt: skip
"""What the client lets out of a call."""

_BY_REASON: dict[str, type[RefloatError]] = {
    **dict.fromkeys(("retentionPolicyNotMet", "objectUnderActiveHold"), Immutable),
    **dict.fromkeys(("rateLimitExceeded", "userRateLimitExceeded"), Throttled),
    **dict.fromkeys(("quotaExceeded", "dailyLimitExceeded"), StoreFull),
}
_BY_STATUS: dict[int, type[RefloatError]] = {
    401: AccessDenied, 403: AccessDenied, 404: NotFound, 405: Unsupported, 408: TimedOut, 410: Unavailable,
    412: AlreadyExists, 416: RangeNotSatisfiable, 429: Throttled, 501: Unsupported, 504: TimedOut, 507: StoreFull,
}  # fmt: skip
_RETAINED = re.compile(r"retention|under active .*hold", re.IGNORECASE)
_NO_LOCK = re.compile(r"retention.*not (?:been )?enabled|not enabled.*retention", re.IGNORECASE)
_NO_RIGHT = "Give the account roles/storage.objectUser on the bucket; a name that somebody else has looks the same."
_NO_KEYS = (
    "No credentials were found: set GOOGLE_APPLICATION_CREDENTIALS to a key file or GOOGLE_CREDENTIALS to its JSON, "
    "or give this machine an identity."
)
_CLOCK = "Set this machine's clock: Google refuses requests for tokens signed at another time than its own."


def translate(error: Exception, what: str, *, bucket: str, key: str | None) -> RefloatError:
    """The error of our tree for a foreign one; ``what`` did not happen, naming the address."""
    if isinstance(error, auth.GoogleAuthError):
        return _of_credentials(error, what, bucket)
    response = getattr(error, "response", None)
    if response is not None and not isinstance(error, DataCorruption) and response.status_code >= 400:
        return _of_answer(response, what, bucket, key)
    if isinstance(error, requests.exceptions.SSLError):
        cured = "The store's certificate is not trusted here: set REQUESTS_CA_BUNDLE to its CA file."
        return Unavailable(f"{what}: {_reason(error)}", guidance=cured, bucket=bucket, key=key)
    return _of_line(error, what, bucket, key, is_answered=response is not None)


def _of_line(error: Exception, what: str, bucket: str, key: str | None, *, is_answered: bool) -> RefloatError:
    slow = (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)
    if isinstance(error, slow) or "timed out" in str(error):
        return TimedOut(f"{what}: no answer in time", bucket=bucket, key=key)
    if isinstance(error, DataCorruption):
        return Unavailable(f"{what}: not as its CRC32C says", bucket=bucket, key=key)
    if isinstance(error, requests.exceptions.JSONDecodeError) or is_answered:
        return Unavailable(f"{what}: what answers is no Cloud Storage server", bucket=bucket, key=key)
    if isinstance(error, ValueError) and not isinstance(error, requests.exceptions.RequestException):
        return ConfigError(f"{what}: {error}", bucket=bucket, key=key)
    return Unavailable(f"{what}: {_reason(error)}", bucket=bucket, key=key)


def _reason(error: Exception) -> str:
    """The cause without the address that the client repeats."""
    return f"{type(error).__name__}: {re.sub(r'(upload_id=)[^ &]+', '', str(error))[:200]}"


def _of_credentials(error: auth.GoogleAuthError, what: str, bucket: str) -> RefloatError:
    text = str(error.args[0] if error.args else error)[:300]
    if isinstance(error, auth.DefaultCredentialsError):
        return AccessDenied(f"{what}: no credentials were found", guidance=_NO_KEYS, bucket=bucket)
    if isinstance(error, auth.TransportError) or error.retryable:
        return Unavailable(f"{what}: no token could be had: {text}", bucket=bucket)
    if "iat and exp" in text or "reasonable timeframe" in text:
        return AccessDenied(f"{what}: {text}", guidance=_CLOCK, bucket=bucket)
    if "necessary fields need to refresh" in text:
        text = "the access token has expired and nothing is here to renew it with"
    return AccessDenied(f"{what}: {text}", bucket=bucket)


def _of_answer(response: Any, what: str, bucket: str, key: str | None) -> RefloatError:
    reason, text = _said(response)
    status = int(response.status_code)
    ours = _BY_REASON.get(reason) or _BY_STATUS.get(status) or (Unavailable if status >= 500 else Permanent)
    guidance = None
    if _NO_LOCK.search(text):
        ours, guidance = Unsupported, "Make the bucket with --enable-per-object-retention: it must keep single objects."
    elif ours in (AccessDenied, Permanent) and _RETAINED.search(text):
        ours = Immutable
    elif ours is Permanent and re.search(r"crc32c|md5", text, re.IGNORECASE):
        ours = Unavailable  # the body was damaged on the way
    elif ours is NotFound and "bucket" in text.lower() and "no such object" not in text.lower():
        return NotFound(f"there is no bucket {bucket!r}", bucket=bucket)
    elif ours is NotFound and "upload_id" in str(response.url):
        ours = Unavailable  # the upload's session is gone: it begins again
    elif "requester pays" in text.lower():
        ours, guidance = ConfigError, "The bucket's reader pays: set GOOGLE_CLOUD_QUOTA_PROJECT to the project billed."
    elif "kms" in text.lower() and status in (400, 403):
        ours, guidance = AccessDenied, "Enable the key named above and let the bucket's service agent use it."
    elif ours is AccessDenied:
        guidance = _NO_KEYS if "anonymous" in text.lower() else _NO_RIGHT
    return ours(f"{what}: {reason or status} {text}".strip(), guidance=guidance, bucket=bucket, key=key)


def _said(response: Any) -> tuple[str, str]:
    """Reason and message of an answer in the service's JSON, or its plain text, cut."""
    try:
        error = response.json()["error"]
        first = (error.get("errors") or [{}])[0]
        return str(first.get("reason", "")), str(error.get("message", ""))[:500]
    except (ValueError, KeyError, TypeError, AttributeError):
        return "", str(response.text)[:200]
