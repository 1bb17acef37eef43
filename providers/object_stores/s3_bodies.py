"""How objects' bodies move: one signed request each over the client's own connections, past the client's machinery.

boto3 hashes every body again and spends three times the time of a small request on itself (docs/adr/0009). What it
resolved stays in force, as it is its HTTP session that sends: trusted CAs, proxies, time limits, kept connections;
credentials are asked for, and renewed, by its provider chain. A bucket that answers from another region or endpoint
is left to it from then on.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from html import unescape
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import ClientError, NoCredentialsError

from refloat.clock import now

NOTHING = sha256(b"").hexdigest()
PIECE = 2**18
"""Bytes handed to the socket at once: the time limit is for one of them, so a slow line is no dead one."""
_MOST_OF_AN_ERROR = 2**16
_ELSEWHERE = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException")


class Stream(Protocol):
    """A body that is still on the way."""

    def read(self) -> bytes:
        """All of it."""
        ...

    def close(self) -> None:
        """Let go; a connection whose body was not read to its end is cut."""
        ...


@dataclass(frozen=True)
class Answer:
    """What answers a get: bytes ``announced``, None where the server does not say; ``range`` as in Content-Range."""

    announced: int | None
    range: str
    stream: Stream


class Bodies:
    """Puts and gets whole keys of one bucket. Callable from several threads; what goes wrong are the client's errors.

    Args:
        client: A boto3 client for S3.
        credentials: botocore's, or None where there are none.
    """

    def __init__(self, client: Any, credentials: Any, bucket: str) -> None:
        self._client, self._credentials, self._bucket = client, credentials, bucket
        self._send = client._endpoint.http_session.send  # the client's own, as no public name gives it
        self._region = str(client.meta.region_name)
        self._agent = str(client.meta.config.user_agent)
        parts = urlsplit(str(client.meta.endpoint_url))
        self._origin = f"{parts.scheme}://{parts.netloc}"
        usual = {"http": ":80", "https": ":443"}[parts.scheme]
        self._host = parts.netloc.removesuffix(usual)
        self._path = f"{parts.path.rstrip('/')}/{bucket}/"
        self._is_elsewhere = False
        self._signing: tuple[tuple[str, str], bytes] | None = None

    def put(
        self,
        key: str,
        body: bytes | bytearray | memoryview,
        digest: bytes,
        *,
        put_id: str | None = None,
        name: str = "",
        asks_first: bool = False,
    ) -> None:
        """Store a body whose SHA-256 is ``digest``; the server compares.

        Args:
            put_id: Where given, the key must not exist, and the object bears this under the metadata ``name``.
            asks_first: Let the server refuse before the body is sent (Expect: 100-continue); costs a round trip.
        """
        if not self._is_elsewhere:
            words = {} if put_id is None else {"If-None-Match": "*", f"x-amz-meta-{name}": put_id}
            more: dict[str, str | bytes] = {"Content-Length": str(len(body))}
            if asks_first:
                more["Expect"] = b"100-continue"  # as bytes: botocore's connection looks for no other
            answer = self._ask("PUT", key, words, digest.hex(), more, list(_pieces(body)))
            if answer is not None:
                self._stored(answer)
                return
        given: dict[str, Any] = {} if put_id is None else {"IfNoneMatch": "*", "Metadata": {name: put_id}}
        self._client.put_object(Bucket=self._bucket, Key=key, Body=bytes(body), **given)

    def _stored(self, answer: Any) -> None:
        answer.raw.read()
        if "ETag" not in answer.headers:  # every S3 server says it; a proxy's page does not, and stores nothing
            raise _refusal("PutObject", 502, b"<Message>what answers is no S3 server</Message>")

    def get(self, key: str, where: str | None = None) -> Answer:
        """Ask for a body or a part of it; ``where`` as in the Range header. The caller closes the stream."""
        words = {} if where is None else {"Range": where}
        if not self._is_elsewhere:
            found = self._ask("GET", key, words, NOTHING, {}, None)
            if found is not None:
                length = found.headers.get("Content-Length", "")
                announced = int(length) if length.isdecimal() else None
                return Answer(announced, str(found.headers.get("Content-Range", "")), found.raw)
        given = self._client.get_object(Bucket=self._bucket, Key=key, **words)
        return Answer(given.get("ContentLength"), str(given.get("ContentRange", "")), given["Body"])

    def _ask(
        self,
        method: str,
        key: str,
        words: Mapping[str, str],
        digest: str,
        more: Mapping[str, str | bytes],
        body: Any,
    ) -> Any:
        """The answer, its body unread, or None where the bucket is elsewhere.

        Raises:
            ClientError: The server refuses.
        """
        path = self._path + quote(key, safe="/-_.~")
        headers: Any = {**self._signed(method, path, words, digest), **more, "User-Agent": self._agent}
        request = AWSPreparedRequest(method, self._origin + path, headers, body, stream_output=True)
        answer = self._send(request)
        status = int(answer.status_code)
        if status in (200, 206):
            return answer
        try:
            refusal = _refusal(f"{method.title()}Object", status, answer.raw.read(_MOST_OF_AN_ERROR))
        finally:
            answer.raw.close()
        if status in (301, 302, 307, 308) or refusal.response["Error"]["Code"] in _ELSEWHERE:
            self._is_elsewhere = True
            return None
        raise refusal

    def _signed(self, method: str, path: str, words: Mapping[str, str], digest: str) -> dict[str, str]:
        """The headers of a request with AWS's Signature Version 4.

        Source: docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html.

        Raises:
            NoCredentialsError: There are none.
        """
        keys = self._credentials.get_frozen_credentials() if self._credentials else None
        if keys is None or not keys.access_key or not keys.secret_key:
            raise NoCredentialsError
        at = now().strftime("%Y%m%dT%H%M%SZ")
        scope = f"{at[:8]}/{self._region}/s3/aws4_request"
        headers = {"Host": self._host, "x-amz-date": at, "x-amz-content-sha256": digest, **words}
        if keys.token:
            headers["x-amz-security-token"] = keys.token
        lower = sorted((name.lower(), value) for name, value in headers.items())
        names = ";".join(name for name, _ in lower)
        lines = "".join(f"{name}:{value}\n" for name, value in lower)
        asked = sha256(f"{method}\n{path}\n\n{lines}\n{names}\n{digest}".encode()).hexdigest()
        said = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{asked}"
        signature = hmac.digest(self._signing_key(keys.secret_key, scope), said.encode(), "sha256").hex()
        headers["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={keys.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
        return headers

    def _signing_key(self, secret: str, scope: str) -> bytes:
        """The key of a day and region, kept until either it or the secret changes."""
        kept = self._signing
        if kept is None or kept[0] != (secret, scope):
            key = f"AWS4{secret}".encode()
            for part in scope.split("/"):
                key = hmac.digest(key, part.encode(), "sha256")
            kept = self._signing = (secret, scope), key
        return kept[1]


def _pieces(body: bytes | bytearray | memoryview) -> Iterator[memoryview]:
    whole = memoryview(body)
    return (whole[start : start + PIECE] for start in range(0, len(whole), PIECE))


def _refusal(operation: str, status: int, text: bytes) -> ClientError:
    """The client's own error for an answer in S3's XML, or in none."""
    said = {name: _word(name, text) for name in ("Code", "Message")}
    return ClientError({"Error": said, "ResponseMetadata": {"HTTPStatusCode": status}}, operation)  # type: ignore[typeddict-item]


def _word(name: str, text: bytes) -> str:
    found = re.search(rb"<%s>([^<]*)</%s>" % (name.encode(), name.encode()), text)
    return unescape(found[1].decode(errors="replace")) if found else ""
