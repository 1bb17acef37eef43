"""What S3 servers and their client say, as errors of our tree: the one place where they are translated.

Codes: docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html; those of other servers are named beside them.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import botocore.exceptions as boto
import urllib3.exceptions

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

FOREIGN = (boto.BotoCoreError, boto.ClientError, urllib3.exceptions.HTTPError, OSError)
"""What the client lets out of a call."""

_RETAINED = re.compile(r"object[ -]?lock|WORM|retention|legal[ -]?hold", re.IGNORECASE)
_NO_KEYS = (
    "No credentials for the store were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "
    "or give this machine a role."
)
_BY_CODE: dict[str, type[RefloatError]] = {
    **dict.fromkeys(("NoSuchKey", "NoSuchVersion", "NoSuchBucket"), NotFound),
    **dict.fromkeys(("PreconditionFailed",), AlreadyExists),
    **dict.fromkeys(("InvalidRange",), RangeNotSatisfiable),
    **dict.fromkeys(("SlowDown", "RequestLimitExceeded", "TooManyRequests", "BandwidthLimitExceeded"), Throttled),
    **dict.fromkeys(("Throttling", "ThrottlingException", "RequestThrottled", "SlowDownWrite"), Throttled),
    **dict.fromkeys(("SlowDownRead",), Throttled),  # MinIO, as SlowDownWrite
    **dict.fromkeys(("RequestTimeout", "RequestTimeoutException"), TimedOut),
    # Ceph, versitygw and MinIO, in this order; Ceph and versitygw answer 403 with it
    **dict.fromkeys(("QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"), StoreFull),
    **dict.fromkeys(("InsufficientStorage", "InsufficientCapacity", "StorageQuotaExceeded"), StoreFull),
    **dict.fromkeys(("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"), AccessDenied),
    **dict.fromkeys(("RequestTimeTooSkewed", "AccessDenied", "AllAccessDisabled"), AccessDenied),
    **dict.fromkeys(("NotImplemented", "MethodNotAllowed", "EntityTooLarge"), Unsupported),
    **dict.fromkeys(("ConditionalRequestConflict", "OperationAborted"), Unavailable),
    # the body arrived cut off, or not as its digest says
    **dict.fromkeys(("IncompleteBody", "XAmzContentSHA256Mismatch", "BadDigest"), Unavailable),
    **dict.fromkeys(("PermanentRedirect", "AuthorizationHeaderMalformed", "InvalidBucketName"), ConfigError),
    **dict.fromkeys(("ObjectLocked",), Immutable),
}
_BY_STATUS: dict[int, type[RefloatError]] = {
    301: ConfigError, 307: Unavailable, 401: AccessDenied, 403: AccessDenied, 404: NotFound, 405: Unsupported,
    408: TimedOut, 412: AlreadyExists, 416: RangeNotSatisfiable, 429: Throttled, 501: Unsupported, 504: TimedOut,
    507: StoreFull,
}  # fmt: skip
_BY_CLASS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], type[RefloatError]], ...] = (
    ((boto.ConnectTimeoutError, boto.ReadTimeoutError, urllib3.exceptions.TimeoutError, TimeoutError), TimedOut),
    ((boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError), AccessDenied),
    ((boto.TokenRetrievalError, boto.SSOError, boto.LoginError, boto.NoAuthTokenError), AccessDenied),
    ((boto.RefreshWithMFAUnsupportedError, boto.UnknownCredentialError), AccessDenied),
    ((boto.HTTPClientError, boto.ResponseStreamingError, boto.IncompleteReadError), Unavailable),
    ((urllib3.exceptions.HTTPError, ConnectionError), Unavailable),
    ((boto.ProfileNotFound, boto.ConfigNotFound, boto.ConfigParseError, boto.InvalidConfigError), ConfigError),
    ((boto.ValidationError, boto.ParamValidationError, boto.NoRegionError, FileNotFoundError, ValueError), ConfigError),
)


def translate(
    error: Exception, what: str, *, bucket: str, key: str | None, is_bucket_gone: Callable[[], bool]
) -> RefloatError:
    """The error of our tree for a foreign one.

    Args:
        what: What did not happen, naming the address.
        is_bucket_gone: Asked when an answer says only "404", as those to HEAD do.
    """
    if isinstance(error, boto.ClientError):
        return _of_answer(error, what, bucket, key, is_bucket_gone)
    if isinstance(error, boto.SSLError):
        return Unavailable(
            f"{what}: {error}",
            guidance="The store's certificate is not trusted here: set AWS_CA_BUNDLE to its CA file.",
        )
    for foreign, ours in _BY_CLASS:
        if isinstance(error, foreign):
            missing = isinstance(error, boto.NoCredentialsError)
            return ours(f"{what}: {error}", guidance=_NO_KEYS if missing else None, bucket=bucket, key=key)
    return Unavailable(f"{what}: {error}", bucket=bucket, key=key)


def is_mute(error: Exception) -> bool:
    """Whether an answer is a bare "400", as those to HEAD are: expired credentials, among other things."""
    return isinstance(error, boto.ClientError) and error.response.get("Error", {}).get("Code") == "400"


def _of_answer(
    error: boto.ClientError, what: str, bucket: str, key: str | None, is_bucket_gone: Callable[[], bool]
) -> RefloatError:
    answer = error.response
    code, text = str(answer.get("Error", {}).get("Code", "")), str(answer.get("Error", {}).get("Message", ""))
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    ours = _BY_CODE.get(code) or _BY_STATUS.get(status) or (Unavailable if status >= 500 else Permanent)
    if ours in (AccessDenied, Permanent) and _RETAINED.search(text):
        ours = Immutable
    if ours is NotFound and (code == "NoSuchBucket" or (code != "NoSuchKey" and is_bucket_gone())):
        return NotFound(f"there is no bucket {bucket!r}", bucket=bucket)
    said = f"{code or status} {text}".strip()
    return ours(f"{what}: {said}", guidance=_guidance(code), bucket=bucket, key=key)


def _guidance(code: str) -> str | None:
    if code == "RequestTimeTooSkewed":
        return "Set this machine's clock: the store refuses requests signed at another time than its own."
    if code in ("PermanentRedirect", "AuthorizationHeaderMalformed"):
        return "The bucket is in another region or at another endpoint: set AWS_REGION or AWS_ENDPOINT_URL."
    return None


def no_credentials(what: str) -> AccessDenied:
    """The error where the client has no credentials to hand on."""
    return AccessDenied(f"{what}: no credentials were found", guidance=_NO_KEYS)
