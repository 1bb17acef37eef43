"""AES-256-GCM with a context: what wrappers that hold their own key seal by.

Not the vault's own sealing: that knows no associated data, so it could not bind what is sealed to a context.
NIST SP 800-38D; nonces of 96 random bits, of which one key seals far fewer than 2**32.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from refloat.errors import IntegrityError, WrongKey

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16


def seal(key: bytes, secret: bytes, context: Mapping[str, str], head: bytes = b"") -> bytes:
    """``head``, nonce, ciphertext and tag; head and context are authenticated."""
    nonce = os.urandom(NONCE_BYTES)
    return head + nonce + AESGCM(key).encrypt(nonce, secret, head + _encode(context))


def unseal(key: bytes, sealed: bytes, context: Mapping[str, str], url: str, head_bytes: int = 0) -> bytes:
    """What ``seal`` sealed; ``url`` names the wrapper in messages.

    Raises:
        WrongKey: Another key or context, or it was changed.
        IntegrityError: Too short to be sealed.
    """
    head, body = sealed[:head_bytes], sealed[head_bytes:]
    if len(body) < NONCE_BYTES + TAG_BYTES:
        raise IntegrityError(f"{len(sealed)} bytes are too few to be what {url} wrapped")
    try:
        return AESGCM(key).decrypt(body[:NONCE_BYTES], body[NONCE_BYTES:], head + _encode(context))
    except InvalidTag as wrong:
        raise WrongKey(
            f"{url} does not open what was wrapped: another key or another purpose, or it was changed",
            guidance="Give the wrapper the password was wrapped with, or open the vault by a password.",
        ) from wrong


def _encode(context: Mapping[str, str]) -> bytes:
    return orjson.dumps(dict(context), option=orjson.OPT_SORT_KEYS)
