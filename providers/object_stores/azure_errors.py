"""What Azure Blob Storage and its client say, as errors of our tree: the one place where they are translated.

Codes: learn.microsoft.com, "Blob service error codes" and "Common REST API error codes". Addresses are never repeated:
they may hold a shared access signature.
"""

from __future__ import annotations

import re

import azure.core.exceptions as azure
import requests.exceptions

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

FOREIGN = (azure.AzureError, requests.exceptions.RequestException, OSError, ValueError)
"""What the client lets out of a call."""

_BY_CODE: dict[str, type[RefloatError]] = {
    **dict.fromkeys(("BlobNotFound", "ResourceNotFound", "ContainerNotFound"), NotFound),
    **dict.fromkeys(("BlobAlreadyExists", "ConditionNotMet", "UnauthorizedBlobOverwrite"), AlreadyExists),
    **dict.fromkeys(("InvalidRange",), RangeNotSatisfiable),
    **dict.fromkeys(("BlobImmutableDueToPolicy", "BlobImmutableDueToLegalHold"), Immutable),
    **dict.fromkeys(("ServerBusy", "TooManyRequests"), Throttled),
    **dict.fromkeys(("OperationTimedOut",), TimedOut),
    # the body arrived damaged, or a block was lost: all of it is sent again
    **dict.fromkeys(("Md5Mismatch", "Crc64Mismatch", "InvalidBlockList", "InvalidBlobOrBlock"), Unavailable),
    **dict.fromkeys(("ContainerBeingDeleted", "SystemInUse"), Unavailable),
    **dict.fromkeys(("BlobArchived", "BlobBeingRehydrated", "FeatureVersionMismatch"), Unsupported),
    **dict.fromkeys(("LeaseIdMissing", "SnapshotsPresent"), Permanent),
    **dict.fromkeys(("AccountIsDisabled", "InsufficientAccountPermissions"), AccessDenied),
    **dict.fromkeys(("InvalidResourceName", "InvalidUri", "OutOfRangeInput"), ConfigError),
}
_BY_STATUS: dict[int, type[RefloatError]] = {
    401: AccessDenied, 403: AccessDenied, 404: NotFound, 405: Unsupported, 408: TimedOut, 409: Permanent,
    412: Permanent, 416: RangeNotSatisfiable, 429: Throttled, 501: Unsupported, 504: TimedOut, 507: StoreFull,
}  # fmt: skip
_NO_KEYS = (
    "No usable credentials: set AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, AZURE_CLIENT_ID with a secret or a "
    "federated token, or give this machine an identity."
)
_GUIDANCE = {
    "AuthenticationFailed": "Check AZURE_STORAGE_ACCOUNT and the key or signature, and that it has not expired.",
    "AuthorizationPermissionMismatch": "Give the identity the role Storage Blob Data Contributor on the container.",
    "AuthorizationFailure": "The account's firewall refuses, or the key or signature does: check these three.",
    "KeyBasedAuthenticationNotPermitted": "The account refuses keys: unset AZURE_STORAGE_KEY and use an identity.",
    "BlobArchived": "Rehydrate the blob (az storage blob set-tier --tier Hot) and wait until it can be read.",
    "SnapshotsPresent": "The blob has snapshots that refloat did not make: remove them first.",
    "LeaseIdMissing": "Somebody holds a lease on the blob: break it (az storage blob lease break), then run again.",
    "InvalidHeaderValue": "The server may not know so new an API: set AZURE_STORAGE_API_VERSION to one it knows.",
}
_SLOW = (
    azure.ServiceRequestTimeoutError, azure.ServiceResponseTimeoutError, requests.exceptions.Timeout, TimeoutError,
)  # fmt: skip
_CLOCK = re.compile(r"request date header too old|not within the allowed|signature not valid in the specified", re.I)
_SET_CLOCK = "Set this machine's clock: the store refuses requests signed at another time than its own."


def translate(error: Exception, what: str, *, container: str, key: str | None) -> RefloatError:
    """The error of our tree for a foreign one; ``what`` did not happen, naming the address."""
    response = getattr(error, "response", None)
    status = int(getattr(response, "status_code", 0) or 0)
    if isinstance(error, azure.HttpResponseError) and status >= 300:
        return _of_answer(error, status, what, container, key)
    if isinstance(error, azure.ClientAuthenticationError):  # azure-identity's, before anything was asked of the store
        text = str(error).partition("\n")[0][:300]
        return AccessDenied(f"{what}: {text}", guidance=_NO_KEYS, container=container)
    if isinstance(error, _SLOW) or "timed out" in str(error):
        return TimedOut(f"{what}: no answer in time", container=container, key=key)
    if isinstance(error, azure.DecodeError | azure.DeserializationError):
        return Unavailable(f"{what}: what answers is no Blob server", container=container, key=key)
    text, guidance = _plain(error), None
    if "certificate" in text.lower() or "SSL" in text:
        guidance = "The store's certificate is not trusted here: set REQUESTS_CA_BUNDLE to its CA file."
    elif "resolve" in text or "Name or service" in text:
        guidance = "Check the account's name: a storage account that does not exist has no address."
    elif isinstance(error, ValueError) and not isinstance(error, requests.exceptions.RequestException):
        return ConfigError(f"{what}: {text}", container=container, key=key)
    return Unavailable(f"{what}: {text}", guidance=guidance, container=container, key=key)


def _plain(error: Exception) -> str:
    """The cause without the signature that an address may hold."""
    return re.sub(r"\?[^ )'\"]*", "", f"{type(error).__name__}: {error}".partition("\n")[0])[:300]


def _of_answer(error: azure.HttpResponseError, status: int, what: str, container: str, key: str | None) -> RefloatError:
    code = getattr(error, "error_code", None) or ""
    code = str(getattr(code, "value", code)) or str(getattr(error.response, "headers", {}).get("x-ms-error-code", ""))
    text = _first_line(error)
    ours = _BY_CODE.get(code) or _BY_STATUS.get(status) or (Unavailable if status >= 500 else Permanent)
    guidance = _GUIDANCE.get(code) or (_NO_KEYS if ours is AccessDenied else None)
    details = " ".join(str(value) for value in (getattr(error, "additional_info", None) or {}).values())
    if ours is AccessDenied and _CLOCK.search(f"{error.message} {details}"):
        guidance, text = _SET_CLOCK, f"{text} {details[:200]}"
    if ours is NotFound and code == "ContainerNotFound":
        return NotFound(f"there is no container {container!r}", container=container)
    if code in ("ImmutabilityPolicyNotEnabled", "VersionLevelWormNotEnabled") or (
        ours in (Permanent, Unsupported) and "version-level" in text.lower()
    ):
        ours = Unsupported
        guidance = "Enable version-level immutability support on the container (az storage container-rm migrate-vlw)."
    return ours(f"{what}: {code or status} {text}".strip(), guidance=guidance, container=container, key=key)


def _first_line(error: azure.HttpResponseError) -> str:
    return re.sub(r"\?[^ )'\"]*", "", str(error.message).partition("\n")[0])[:300]
