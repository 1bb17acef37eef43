"""Sealing of everything stored: AES-256-CTR and Poly1305-AES under one master key.

Layout and rules: restic's design document, "Keys, Encryption and MAC". The initial counter block is the IV; the tag
covers the ciphertext only; type and role of a blob are authenticated by who refers to it, not by the seal.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR, ECB
from cryptography.hazmat.primitives.poly1305 import Poly1305

IV_BYTES = 16
TAG_BYTES = 16
OVERHEAD = IV_BYTES + TAG_BYTES
SCRATCH = 15
"""What a cipher may need beyond the text it writes (``update_into``: one block less one byte)."""
_IVS = 256


def fingerprinter() -> Callable[[bytes | bytearray | memoryview], bytes]:
    """Fingerprints of 16 bytes that tell a text from any other one that a fault made of it; good in one process only.

    Poly1305 under a key drawn at random: two texts of 1 MiB have the same with a probability of 2^-87 (Bernstein, "The
    Poly1305-AES message-authentication code", 2005, theorem 3.3), at a sixth of the time that SHA-256 takes.
    """
    key = os.urandom(32)
    return partial(Poly1305.generate_tag, key)


class BadSeal(ValueError):
    """The tag does not fit: other key, or the bytes were changed. Never leaves ``vault``."""


@dataclass(frozen=True)
class MasterKey:
    """A vault's key: 32 bytes of AES-256, and ``k`` and ``r`` of Poly1305-AES, 16 bytes each."""

    encrypt: bytes = field(repr=False)
    mac_k: bytes = field(repr=False)
    mac_r: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if (len(self.encrypt), len(self.mac_k), len(self.mac_r)) != (32, 16, 16):
            raise ValueError("a master key has 32, 16 and 16 bytes")
        if not any(self.encrypt) or not any(self.mac_k) or not any(self.mac_r):
            raise ValueError("a master key of zeros is none")

    @classmethod
    def random(cls) -> MasterKey:
        """A new one from the system's random source."""
        return cls(os.urandom(32), os.urandom(16), os.urandom(16))


class Sealer:
    """Seals and opens under one key. Holds cipher contexts: one per thread, never shared."""

    def __init__(self, key: MasterKey) -> None:
        self._cipher = Cipher(AES(key.encrypt), CTR(bytes(IV_BYTES))).encryptor()
        self._tag_key = Cipher(AES(key.mac_k), ECB()).encryptor()
        self._mac_r = key.mac_r
        self._ivs = b""

    def seal_into(self, plain: bytes | bytearray | memoryview, out: memoryview) -> int:
        """Write IV, ciphertext and tag at the start of ``out`` (which has room for ``SCRATCH`` more); their length."""
        iv, size = self._next_iv(), len(plain)
        end = IV_BYTES + size
        out[:IV_BYTES] = iv
        self._cipher.reset_nonce(iv)
        self._cipher.update_into(plain, out[IV_BYTES : end + SCRATCH])
        out[end : end + TAG_BYTES] = Poly1305.generate_tag(self._one_time_key(iv), out[IV_BYTES:end])
        return end + TAG_BYTES

    def seal(self, plain: bytes | bytearray | memoryview) -> bytes:
        """IV, ciphertext and tag."""
        out = bytearray(len(plain) + OVERHEAD + SCRATCH)
        return bytes(out[: self.seal_into(plain, memoryview(out))])

    def open(self, sealed: bytes | bytearray | memoryview) -> bytes:
        """The plaintext.

        Raises:
            BadSeal: Too short, or the tag does not fit.
        """
        if len(sealed) < OVERHEAD:
            raise BadSeal(f"{len(sealed)} bytes are too few to be sealed")
        view = memoryview(sealed)
        iv, text, tag = bytes(view[:IV_BYTES]), view[IV_BYTES:-TAG_BYTES], bytes(view[-TAG_BYTES:])
        try:
            Poly1305.verify_tag(self._one_time_key(iv), text, tag)
        except InvalidSignature as wrong:
            raise BadSeal("the seal is broken") from wrong
        self._cipher.reset_nonce(iv)
        return self._cipher.update(text)

    def _one_time_key(self, iv: bytes) -> bytes:
        return self._mac_r + self._tag_key.update(iv)

    def _next_iv(self) -> bytes:
        if not self._ivs:
            self._ivs = os.urandom(IV_BYTES * _IVS)  # one system call for many blobs
        iv, self._ivs = self._ivs[:IV_BYTES], self._ivs[IV_BYTES:]
        return iv
