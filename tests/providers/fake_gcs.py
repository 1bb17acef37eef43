"""Cloud Storage's JSON API, small and strict, over real HTTP: it enforces what refloat relies on, and refuses the rest.

Kept: preconditions, CRC32C of bodies, object retention (locked dates never earlier), bucket retention, holds, resumable
uploads whose object appears with the last byte, pages, tokens and their expiry by the server's clock. Source:
cloud.google.com/storage/docs/json_api/v1. It was never compared with the service itself.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import google_crc32c
from google.auth import jwt

from tests.providers.faulty_cloud import FaultyCloud, Refused, Request

BUCKET = "bucket"
PAGE = 1000
QUANTUM = 2**18
"""Every part of a resumable upload but the last is a multiple of it."""


@dataclass
class Held:
    """One object."""

    body: bytes
    facts: dict[str, Any]
    generation: int
    metageneration: int = 1


@dataclass
class Session:
    """A resumable upload."""

    name: str
    facts: dict[str, Any]
    words: dict[str, str]
    so_far: bytearray = field(default_factory=bytearray)


class Answers(Request):
    """One connection."""

    cloud: FakeGcs
    busy = ("backendError", "Backend Error")
    expired = ("authError", "Invalid Credentials")

    def answer(self) -> None:
        if self.route == "/token":
            self.token()
            return
        self.authorize()
        upload = self.route.startswith("/upload/storage/v1/b/")
        path = self.route.removeprefix("/upload").removeprefix("/download").removeprefix("/storage/v1/b/")
        bucket, _, rest = path.partition("/o")
        if unquote(bucket) not in self.cloud.buckets:
            raise Refused(404, "notFound", "The specified bucket does not exist.")
        if self.cloud.requester_pays and not self.words.get("userProject"):
            raise Refused(400, "required", "Bucket is a requester pays bucket but no user project provided.")
        with self.cloud.guard:
            if upload:
                self.upload()
            elif not rest:
                self.listing()
            else:
                self.one(unquote(rest.removeprefix("/")))

    def authorize(self) -> None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.cloud.tokens is None:
            return
        if not token:
            raise Refused(401, "required", "Anonymous caller does not have storage.objects.get access")
        ends = self.cloud.tokens.get(token)
        if ends is None or ends < self.cloud.now():
            raise Refused(401, "authError", "Invalid Credentials")

    def token(self) -> None:
        """A service account's assertion, or a pool's subject token, for an access token (RFC 7523, RFC 8693)."""
        words = {name: values[0] for name, values in parse_qs(self.body.decode()).items()}
        wrong = None if words.get("subject_token") == self.cloud.subject_token else "unknown subject"
        if "assertion" in words:
            wrong = self.wrong_with(words["assertion"])
        if wrong:
            self.give(400, json.dumps({"error": "invalid_grant", "error_description": wrong}).encode())
            return
        token = secrets.token_hex(16)
        assert self.cloud.tokens is not None
        self.cloud.tokens[token] = self.cloud.now() + timedelta(hours=1)
        said = {"access_token": token, "expires_in": 3600, "token_type": "Bearer"}
        said["issued_token_type"] = "urn:ietf:params:oauth:token-type:access_token"
        self.give(200, json.dumps(said).encode(), **{"Content-Type": "application/json"})

    def wrong_with(self, assertion: str) -> str | None:
        try:
            claims = jwt.decode(assertion, certs=self.cloud.public_key, clock_skew_in_seconds=10**6)
        except ValueError:
            return "Invalid JWT Signature."
        if claims["iat"] - 300 <= self.cloud.now().timestamp() <= claims["exp"]:
            return None
        return (
            "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. "
            "Check your iat and exp values in the JWT claim."
        )

    def one(self, name: str) -> None:
        held = self.cloud.objects.get(name)
        if held is None:
            raise Refused(404, "notFound", f"No such object: {BUCKET}/{name}")
        self.conditions(held)
        if self.command == "DELETE":
            self.cloud.must_not_be_kept(held)
            del self.cloud.objects[name]
            self.give(204)
        elif self.command == "PATCH":
            self.patch(held, json.loads(self.body))
            self.say(self.cloud.resource(name, held))
        elif self.words.get("alt") == "media":
            self.media(held)
        else:
            self.say(self.cloud.resource(name, held))

    def conditions(self, held: Held | None) -> None:
        if self.cloud.ignores_conditions:
            return
        wanted = self.words.get("ifGenerationMatch")
        if wanted is not None and int(wanted) != (held.generation if held else 0):
            raise Refused(412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.")
        wanted = self.words.get("ifMetagenerationMatch")
        if wanted is not None and int(wanted) != (held.metageneration if held else 0):
            raise Refused(412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.")

    def patch(self, held: Held, changes: dict[str, Any]) -> None:
        if "retention" in changes:
            if not self.cloud.keeps_objects:
                raise Refused(400, "invalid", "Object retention is not enabled on the bucket.")
            old, new = held.facts.get("retention") or {}, changes["retention"] or {}
            if old.get("mode") == "Locked" and (
                new.get("mode") != "Locked" or _at(new["retainUntilTime"]) < _at(old["retainUntilTime"])
            ):
                raise Refused(403, "forbidden", "Locked object retention cannot be removed or reduced.")
            shorter = old and _at(new.get("retainUntilTime", "1970-01-01T00:00:00Z")) < _at(old["retainUntilTime"])
            if shorter and self.words.get("overrideUnlockedRetention") != "true":
                raise Refused(403, "forbidden", "overrideUnlockedRetention is needed to reduce the retention.")
            if new and _at(new["retainUntilTime"]) <= self.cloud.now():
                raise Refused(400, "invalid", "retainUntilTime must be in the future.")
        for word in ("retention", "temporaryHold", "eventBasedHold", "metadata"):
            if word in changes:
                held.facts[word] = changes[word]
        held.metageneration += 1

    def media(self, held: Held) -> None:
        words = {"x-goog-hash": f"crc32c={held.facts['crc32c']}", "x-goog-generation": str(held.generation)}
        words["x-goog-stored-content-length"] = str(len(held.body))
        where = self.headers.get("Range")
        if where is None:
            self.give(200, held.body, **words)
            return
        begin, _, end = where.removeprefix("bytes=").partition("-")
        if int(begin) >= len(held.body):
            raise Refused(416, "requestedRangeNotSatisfiable", "Request range not satisfiable")
        part = held.body[int(begin) : int(end) + 1 if end else None]
        words["Content-Range"] = f"bytes {begin}-{int(begin) + len(part) - 1}/{len(held.body)}"
        self.give(206, part, **words)

    def upload(self) -> None:
        if self.words.get("uploadType") == "multipart":
            line = b"--" + self.headers["Content-Type"].partition('boundary="')[2].rstrip('"').encode()
            _, facts, rest = self.body.split(line, 2)
            body = rest.rpartition(b"\r\n" + line + b"--")[0].partition(b"\r\n\r\n")[2]
            described = json.loads(facts.partition(b"\r\n\r\n")[2])
            self.store(described["name"], described, body)
        elif self.command == "POST":
            described = json.loads(self.body)
            self.conditions(self.cloud.objects.get(described["name"]))
            number = secrets.token_hex(8)
            self.cloud.sessions[number] = Session(described["name"], described, self.words)
            where = f"{self.cloud.endpoint}{self.route}?uploadType=resumable&upload_id={number}"
            self.give(200, Location=where)
        else:
            self.resume(self.words["upload_id"])

    def resume(self, number: str) -> None:
        session = self.cloud.sessions.get(number)
        if session is None:
            raise Refused(410, "gone", "The upload session is gone.")
        where, _, whole = self.headers["Content-Range"].removeprefix("bytes ").partition("/")
        if int(where.partition("-")[0]) != len(session.so_far):
            raise Refused(503, "backendError", "This is not where the upload stands.")
        session.so_far += self.body
        if whole == "*" or len(session.so_far) < int(whole):
            if len(session.so_far) % QUANTUM:
                raise Refused(400, "invalid", "Parts must be multiples of 256 KiB.")
            self.give(308, Range=f"bytes=0-{len(session.so_far) - 1}")
            return
        self.words = session.words
        self.store(session.name, session.facts, bytes(session.so_far))
        del self.cloud.sessions[number]

    def store(self, name: str, facts: dict[str, Any], body: bytes) -> None:
        found = _crc32c(body)
        if facts.get("crc32c", found) != found:
            text = f'Provided CRC32C "{facts["crc32c"]}" doesn\'t match calculated CRC32C "{found}".'
            raise Refused(400, "invalid", text)
        held = self.cloud.objects.get(name)
        self.conditions(held)
        if held is not None:
            self.cloud.must_not_be_kept(held)
        self.cloud.generations += 1
        kept = {word: facts[word] for word in ("metadata", "storageClass", "contentType") if word in facts}
        kept["timeCreated"] = self.cloud.now().isoformat().replace("+00:00", "Z")
        kept["crc32c"] = found
        kept["kmsKeyName"] = self.words.get("kmsKeyName")
        self.cloud.objects[name] = made = Held(body, kept, self.cloud.generations)
        self.say(self.cloud.resource(name, made))

    def listing(self) -> None:
        prefix, after = self.words.get("prefix", ""), self.words.get("pageToken", "")
        names = sorted(name for name in self.cloud.objects if name.startswith(prefix) and name > after)
        page = [self.cloud.resource(name, self.cloud.objects[name]) for name in names[:PAGE]]
        said: dict[str, Any] = {"kind": "storage#objects"}
        if page:
            said["items"] = page
        if len(names) > PAGE:
            said["nextPageToken"] = names[PAGE - 1]
        self.say(said)

    def say(self, value: dict[str, Any]) -> None:
        self.give(200, json.dumps(value).encode(), **{"Content-Type": "application/json"})

    def fail(self, status: int, code: str, text: str, detail: str = "") -> None:
        error = {"code": status, "message": text, "errors": [{"domain": "global", "reason": code, "message": text}]}
        self.give(status, json.dumps({"error": error}).encode(), **{"Content-Type": "application/json"})


class FakeGcs(FaultyCloud):
    """One bucket in memory."""

    handler = Answers

    def __init__(self, seed: int = 1, certificate: Path | None = None) -> None:
        super().__init__(seed, certificate)
        self.objects: dict[str, Held] = {}
        self.sessions: dict[str, Session] = {}
        self.buckets = {BUCKET}
        self.generations = 1000
        self.keeps_objects = True
        """Whether the bucket was made with object retention enabled."""
        self.bucket_retention = timedelta(0)
        self.requester_pays = False
        self.tokens: dict[str, datetime] | None = None
        """Access tokens and when they end; None: nobody is asked who they are."""
        self.public_key: str | bytes = b""
        self.subject_token = ""

    def must_not_be_kept(self, held: Held) -> None:
        """Refuse to remove or replace what is held or retained."""
        if held.facts.get("temporaryHold") or held.facts.get("eventBasedHold"):
            raise Refused(403, "objectUnderActiveHold", "Object is under active Temporary hold and cannot be deleted.")
        until = _at((held.facts.get("retention") or {}).get("retainUntilTime", "1970-01-01T00:00:00Z"))
        until = max(until, _at(held.facts["timeCreated"]) + self.bucket_retention)
        if until > self.now():
            raise Refused(403, "retentionPolicyNotMet", f"Object cannot be deleted or overwritten until {until}.")

    def resource(self, name: str, held: Held) -> dict[str, Any]:
        """The object as the API describes it."""
        said = {"kind": "storage#object", "name": name, "bucket": BUCKET, "size": str(len(held.body)), **held.facts}
        said |= {"generation": str(held.generation), "metageneration": str(held.metageneration)}
        said |= {"md5Hash": base64.b64encode(hashlib.md5(held.body).digest()).decode()}
        if self.bucket_retention:
            ends = _at(held.facts["timeCreated"]) + self.bucket_retention
            said["retentionExpirationTime"] = ends.isoformat().replace("+00:00", "Z")
        return {word: value for word, value in said.items() if value is not None}


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)


def _crc32c(body: bytes) -> str:
    return base64.b64encode(google_crc32c.value(body).to_bytes(4, "big")).decode()
