"""Azure Blob's REST API, small and strict, over real HTTP: for what Azurite has not, and for faults.

Kept: shared keys and the request's date by the server's clock, conditions, MD5 of bodies, blocks and their lists,
version-level immutability (locked dates never earlier), legal holds, pages, and an Entra endpoint that gives tokens for
a federated token. Source: learn.microsoft.com, "Blob service REST API". It was never compared with the service itself.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from hashlib import md5, sha256
from pathlib import Path
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

from tests.providers.faulty_cloud import FaultyCloud, Refused, Request

CONTAINER = "container"
ACCOUNT = "account"
PAGE = 5000
MOST_SKEW = timedelta(minutes=15)
SIGNED = (
    "Content-Encoding", "Content-Language", "Content-Length", "Content-MD5", "Content-Type", "Date",
    "If-Modified-Since", "If-Match", "If-None-Match", "If-Unmodified-Since", "Range",
)  # fmt: skip


@dataclass
class Held:
    """One blob."""

    body: bytes
    words: dict[str, str]
    modified: datetime
    md5: str | None
    etag: str = field(default_factory=lambda: f'"0x{secrets.token_hex(8).upper()}"')
    until: datetime | None = None
    is_locked: bool = False
    legal_hold: bool = False


class Answers(Request):
    """One connection."""

    cloud: FakeBlob
    busy = ("ServerBusy", "The server is busy.")
    expired = ("InvalidAuthenticationInfo", "Signature has expired.")

    def answer(self) -> None:
        if self.route.endswith("/.well-known/openid-configuration"):
            base = f"{self.cloud.endpoint}/tenant"
            said = {"token_endpoint": f"{base}/token", "authorization_endpoint": f"{base}/authorize", "issuer": base}
            self.give(200, json.dumps(said).encode(), **{"Content-Type": "application/json"})
        elif self.route.startswith("/tenant/") and self.route.endswith("/token"):
            self.token()
        else:
            self.authorize()
            self.blob_service()

    def token(self) -> None:
        words = parse_qs(self.body.decode())
        if words.get("client_assertion") != [self.cloud.subject_token]:
            text = {"error": "invalid_client", "error_description": "AADSTS700211: no matching federated identity"}
            self.give(401, json.dumps(text).encode(), **{"Content-Type": "application/json"})
            return
        self.cloud.bearers.add(made := secrets.token_hex(16))
        said = {"access_token": made, "expires_in": 3600, "token_type": "Bearer"}
        self.give(200, json.dumps(said).encode(), **{"Content-Type": "application/json"})

    def authorize(self) -> None:
        scheme, _, rest = self.headers.get("Authorization", "").partition(" ")
        if scheme == "Bearer":
            if rest not in self.cloud.bearers:
                raise Refused(401, "InvalidAuthenticationInfo", "Server failed to authenticate the request.")
            return
        if "x-ms-date" not in self.headers:
            raise Refused(401, "NoAuthenticationInformation", "The request bears no credentials.")
        date = parsedate_to_datetime(self.headers["x-ms-date"])
        refused = (
            "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly"
        )
        if abs(self.cloud.now() - date) > MOST_SKEW:
            raise Refused(
                403, "AuthenticationFailed", refused, f"Request date header too old: '{self.headers['x-ms-date']}'"
            )
        words = [self.headers.get(name, "") for name in SIGNED]
        words[2] = "" if words[2] == "0" else words[2]
        of_ms = sorted((n.lower(), v) for n, v in self.headers.items() if n.lower().startswith("x-ms-"))
        said = "\n".join([self.command, *words, *(f"{name}:{value}" for name, value in of_ms)])
        said += f"\n/{ACCOUNT}{self.route}" + "".join(f"\n{name}:{self.words[name]}" for name in sorted(self.words))
        digest = hmac.digest(base64.b64decode(self.cloud.key), said.encode(), sha256)
        if rest != f"{ACCOUNT}:{base64.b64encode(digest).decode()}":
            raise Refused(403, "AuthenticationFailed", refused)

    def blob_service(self) -> None:
        _, container, *rest = unquote(self.route).split("/", 2)
        if container != CONTAINER:
            raise Refused(404, "ContainerNotFound", "The specified container does not exist.")
        name, comp = "/".join(rest), self.words.get("comp")
        with self.cloud.guard:
            if not name:
                self.listing()
            elif self.command == "PUT" and comp == "block":
                self.must_be_as_said()
                self.cloud.blocks.setdefault(name, {})[self.words["blockid"]] = self.body
                self.give(201)
            elif self.command == "PUT" and comp == "blocklist":
                self.commit(name)
            elif self.command == "PUT" and comp is None:
                self.must_be_as_said()
                self.store(name, self.body, base64.b64encode(md5(self.body).digest()).decode())
            else:
                self.one(name, comp)

    def must_be_as_said(self) -> None:
        said = self.headers.get("Content-MD5")
        if said is None:
            raise Refused(400, "MissingRequiredHeader", "refloat's bodies bear their MD5")
        if said != base64.b64encode(md5(self.body).digest()).decode():
            raise Refused(400, "Md5Mismatch", "The MD5 value specified in the request did not match.")

    def commit(self, name: str) -> None:
        named = re.findall(rb"<Latest>([^<]*)</Latest>", self.body)
        blocks = self.cloud.blocks.get(name, {})
        if len({len(base64.b64decode(one)) for one in blocks}) > 1:
            raise Refused(400, "InvalidBlobOrBlock", "The specified blob or block content is invalid.")
        if any(one.decode() not in blocks for one in named):
            raise Refused(400, "InvalidBlockList", "The specified block list is invalid.")
        self.store(name, b"".join(blocks[one.decode()] for one in named), self.headers.get("x-ms-blob-content-md5"))
        self.cloud.blocks.pop(name)

    def store(self, name: str, body: bytes, digest: str | None) -> None:
        old = self.cloud.blobs.get(name)
        is_new = self.headers.get("If-None-Match") == "*" and not self.cloud.ignores_conditions
        if is_new and old is not None:
            raise Refused(409, "BlobAlreadyExists", "The specified blob already exists.")
        if old is not None:
            self.cloud.must_not_be_kept(old)
        words = {n.lower(): v for n, v in self.headers.items() if n.lower().startswith("x-ms-meta-")}
        for header in ("x-ms-access-tier", "x-ms-encryption-scope"):
            if header in self.headers:
                words[header] = self.headers[header]
        self.cloud.blobs[name] = made = Held(body, words, self.cloud.now(), digest)
        made.legal_hold = self.cloud.holds_at_once
        self.give(201, **{"ETag": made.etag, "Last-Modified": format_datetime(made.modified, usegmt=True)})

    def one(self, name: str, comp: str | None) -> None:
        held = self.cloud.blobs.get(name)
        if held is None:
            raise Refused(404, "BlobNotFound", "The specified blob does not exist.")
        if comp in ("immutabilityPolicies", "legalhold"):
            if not self.cloud.keeps_versions:
                raise Refused(409, "VersionLevelWormNotEnabled", "Version-level immutability is not enabled.")
            if comp == "legalhold":
                held.legal_hold = self.headers["x-ms-legal-hold"].lower() == "true"
            else:
                self.keep(held)
            self.give(200)
        elif self.command == "DELETE":
            self.cloud.must_not_be_kept(held)
            del self.cloud.blobs[name]
            self.give(202)
        else:
            self.read(held)

    def keep(self, held: Held) -> None:
        until = parsedate_to_datetime(self.headers["x-ms-immutability-policy-until-date"])
        mode = self.headers.get("x-ms-immutability-policy-mode", "Unlocked").lower()
        if until <= self.cloud.now():
            raise Refused(400, "InvalidHeaderValue", "The policy's date must be in the future.")
        if held.is_locked and (mode != "locked" or (held.until and until < held.until)):
            raise Refused(409, "BlobImmutableDueToPolicy", "A locked policy can only be extended.")
        if mode == "locked" and held.until is None:
            raise Refused(400, "InvalidHeaderValue", "Only an unlocked policy can be locked.")
        held.until, held.is_locked = until, mode == "locked"

    def read(self, held: Held) -> None:
        words = {**held.words, "ETag": held.etag, "Last-Modified": format_datetime(held.modified, usegmt=True)}
        words |= {"x-ms-blob-type": "BlockBlob", "x-ms-legal-hold": str(held.legal_hold).lower()}
        if held.until:
            words["x-ms-immutability-policy-until-date"] = format_datetime(held.until, usegmt=True)
            words["x-ms-immutability-policy-mode"] = "locked" if held.is_locked else "unlocked"
        where = self.headers.get("x-ms-range") or self.headers.get("Range")
        if where is None or self.command == "HEAD":
            more = {"Content-MD5": held.md5} if held.md5 else {}
            self.give(200, held.body, **words, **more, **{"Content-Length": str(len(held.body))})
            return
        begin, _, end = where.removeprefix("bytes=").partition("-")
        if int(begin) >= len(held.body):
            raise Refused(416, "InvalidRange", "The range specified is invalid for the current size of the resource.")
        part = held.body[int(begin) : int(end) + 1 if end else None]
        words["Content-Range"] = f"bytes {begin}-{int(begin) + len(part) - 1}/{len(held.body)}"
        if held.md5:
            words["x-ms-blob-content-md5"] = held.md5
        self.give(206, part, **words)

    def listing(self) -> None:
        prefix, after = self.words.get("prefix", ""), self.words.get("marker", "")
        names = sorted(name for name in self.cloud.blobs if name.startswith(prefix) and name > after)
        items = "".join(
            f"<Blob><Name>{escape(name)}</Name><Properties><Last-Modified>"
            f"{format_datetime(self.cloud.blobs[name].modified, usegmt=True)}</Last-Modified><Etag>x</Etag>"
            f"<Content-Length>{len(self.cloud.blobs[name].body)}</Content-Length><BlobType>BlockBlob</BlobType>"
            "</Properties></Blob>"
            for name in names[:PAGE]
        )
        marker = names[PAGE - 1] if len(names) > PAGE else ""
        text = (
            f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="{self.cloud.endpoint}/" '
            f'ContainerName="{CONTAINER}"><Blobs>{items}</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>'
        )
        self.give(200, text.encode(), **{"Content-Type": "application/xml"})

    def fail(self, status: int, code: str, text: str, detail: str = "") -> None:
        more = f"<AuthenticationErrorDetail>{escape(detail)}</AuthenticationErrorDetail>" if detail else ""
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{escape(text)}</Message>{more}</Error>"
        self.give(status, body.encode(), **{"x-ms-error-code": code, "Content-Type": "application/xml"})


class FakeBlob(FaultyCloud):
    """One container in memory."""

    handler = Answers

    def __init__(self, seed: int = 1, certificate: Path | None = None) -> None:
        super().__init__(seed, certificate)
        self.key = base64.b64encode(secrets.token_bytes(64)).decode()
        self.blobs: dict[str, Held] = {}
        self.blocks: dict[str, dict[str, bytes]] = {}
        self.keeps_versions = True
        """Whether the container was made for version-level immutability."""
        self.holds_at_once = False
        """Every blob is held from its put on, as under a container's policy."""
        self.bearers: set[str] = set()
        self.subject_token = secrets.token_hex(16)

    @property
    def environment(self) -> dict[str, str]:
        """As its owner has it."""
        words = {"AZURE_STORAGE_SERVICE_ENDPOINT": self.endpoint, "AZURE_STORAGE_ACCOUNT": ACCOUNT}
        return {**words, "AZURE_STORAGE_KEY": self.key}

    def must_not_be_kept(self, held: Held) -> None:
        """Refuse to remove or replace what is held or under a policy."""
        text = "This operation is not permitted as the blob is immutable due to"
        if held.legal_hold:
            raise Refused(409, "BlobImmutableDueToLegalHold", f"{text} a legal hold.")
        if held.until is not None and held.until > self.now().astimezone(UTC):
            raise Refused(409, "BlobImmutableDueToPolicy", f"{text} a policy.")
