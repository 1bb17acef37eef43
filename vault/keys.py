"""Key slots: the key files that hold the master key, each sealed under one password by scrypt.

Restic's design document, "Keys, Encryption and MAC". A vault's files are input: what a key file demands of the key
derivation has a ceiling.
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from refloat.errors import IntegrityError
from vault.sealing import BadSeal, MasterKey, Sealer

SCRYPT_N, SCRYPT_R, SCRYPT_P = 32768, 8, 1
"""restic's defaults (simple-scrypt's ``DefaultParams``): 32 MiB."""
SALT_BYTES = 64
"""restic refuses any other length."""
MEMORY_LIMIT_BYTES = 256 << 20
MOST_WORK = 1 << 23
"""Ceiling on ``N * r * p``, to which the time is in proportion: 32 times the default. restic takes what needs half a
second and 60 MB at most.
"""


def make_key_file(key: MasterKey, password: str, at: datetime) -> bytes:
    """The text of a new key file."""
    salt = os.urandom(SALT_BYTES)
    sealed = Sealer(_derive(password, salt, SCRYPT_N, SCRYPT_R, SCRYPT_P)).seal(_encode(key))
    return orjson.dumps(
        {
            "created": at.isoformat().replace("+00:00", "Z"),
            "username": "refloat",
            "hostname": socket.gethostname(),
            "kdf": "scrypt",
            "N": SCRYPT_N,
            "r": SCRYPT_R,
            "p": SCRYPT_P,
            "salt": base64.b64encode(salt).decode(),
            "data": base64.b64encode(sealed).decode(),
        }
    )


@dataclass(frozen=True)
class _Slot:
    """What a key file says, checked."""

    n: int
    r: int
    p: int
    salt: bytes
    sealed: bytes


def check_key_file(text: bytes) -> None:
    """See that it is a key file.

    Raises:
        IntegrityError: It is none, or demands more of the key derivation than is sane.
    """
    _read(text)


def work_of(text: bytes) -> int:
    """What opening a key file costs, as ``N * r * p``.

    Raises:
        IntegrityError: It is none, or demands more of the key derivation than is sane.
    """
    slot = _read(text)
    return slot.n * slot.r * slot.p


def open_key_file(text: bytes, password: str) -> MasterKey | None:
    """The master key; None when the password does not open this slot.

    Raises:
        IntegrityError: It is no key file, or demands more of the key derivation than is sane.
    """
    slot = _read(text)
    try:
        plain = Sealer(_derive(password, slot.salt, slot.n, slot.r, slot.p)).open(slot.sealed)
    except BadSeal:
        return None
    try:
        return _decode(orjson.loads(plain))
    except (ValueError, KeyError, TypeError) as wrong:
        raise IntegrityError("a key file holds no master key") from wrong


def _read(text: bytes) -> _Slot:
    try:
        slot = orjson.loads(text)
        salt, sealed = base64.b64decode(slot["salt"], validate=True), base64.b64decode(slot["data"], validate=True)
        n, r, p, kdf = int(slot["N"]), int(slot["r"]), int(slot["p"]), slot["kdf"]
    except (ValueError, KeyError, TypeError) as wrong:
        raise IntegrityError("a key file does not say what it must") from wrong
    if kdf != "scrypt" or len(salt) != SALT_BYTES or n < 2 or n & (n - 1) or r < 1 or p < 1:
        raise IntegrityError("a key file asks for a key derivation that is none")
    if (memory := 128 * r * (n + p)) > MEMORY_LIMIT_BYTES:
        raise IntegrityError(f"a key file asks for a key derivation of {memory >> 20} MiB")
    if n * r * p > MOST_WORK:
        raise IntegrityError(f"a key file asks for {n * r * p // MOST_WORK} times the longest key derivation there is")
    return _Slot(n, r, p, salt, sealed)


def _derive(password: str, salt: bytes, n: int, r: int, p: int) -> MasterKey:
    limit = 128 * n * r + 128 * r * p + (1 << 20)
    made = hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=limit, dklen=64)
    return MasterKey(*_split(made))


def _split(made: bytes) -> Iterator[bytes]:
    yield made[:32]
    yield made[32:48]
    yield made[48:]


def _encode(key: MasterKey) -> bytes:
    mac = {"k": base64.b64encode(key.mac_k).decode(), "r": base64.b64encode(key.mac_r).decode()}
    return orjson.dumps({"mac": mac, "encrypt": base64.b64encode(key.encrypt).decode()})


def _decode(value: dict[str, Any]) -> MasterKey:
    parts = (value["encrypt"], value["mac"]["k"], value["mac"]["r"])
    return MasterKey(*(base64.b64decode(part, validate=True) for part in parts))
