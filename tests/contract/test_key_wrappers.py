"""Every key wrapper keeps the contract, and the conformance suite finds out wrappers that break it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from providers.key_wrappers.passphrase import PassphraseKeyWrapper
from refloat.conformance import key_wrapper as suite
from refloat.conformance.object_store import raises
from refloat.errors import ConfigError, IntegrityError, MissingKey, NotFound, UnknownProvider, WrongKey
from refloat.ports.key_wrapper import KeyWrapper
from refloat.registry import KEY_WRAPPERS, installed, open_key_wrapper

CONTEXT = {"purpose": "test"}


def key_file(path: Path, key: bytes = bytes(range(32)), mode: int = 0o600) -> str:
    """The address of a key file."""
    path.write_bytes(key)
    path.chmod(mode)
    return f"file://{path}"


def wrapper_of(kind: str, folder: Path) -> KeyWrapper:
    """One of each built-in kind."""
    if kind == "file":
        return open_key_wrapper(key_file(folder / "key"), {})
    return cheap("correct horse battery")


def cheap(words: str) -> PassphraseKeyWrapper:
    """A passphrase wrapper whose derivation costs little: the suite wraps and unwraps often."""
    return PassphraseKeyWrapper("passphrase://env/WORDS", "env/WORDS", {"WORDS": words}, log_n=8)


def test_a_passphrase_comes_from_a_variable_or_a_file(tmp_path: Path) -> None:
    """The same words are the same key, wherever they are, and at the real cost."""
    (tmp_path / "words").write_text("correct horse battery\n")
    in_file = open_key_wrapper(f"passphrase://file{tmp_path}/words", {})
    by_name = open_key_wrapper("passphrase://env/WORDS", {"WORDS": "correct horse battery"})
    assert by_name.unwrap(in_file.wrap(b"secret", CONTEXT), CONTEXT) == b"secret"
    assert cheap("correct horse battery").unwrap(by_name.wrap(b"secret", CONTEXT), CONTEXT) == b"secret"


@pytest.mark.parametrize("kind", ["file", "passphrase"])
@pytest.mark.parametrize("check", suite.CHECKS, ids=lambda check: check.__name__)
def test_the_built_in_ones_keep_the_contract(kind: str, check: suite.Check, tmp_path: Path) -> None:
    """Each check by itself."""
    check(lambda: wrapper_of(kind, tmp_path))


def test_both_are_reached_through_the_registry() -> None:
    """By entry points, as a plug-in's would be; an unknown one is named."""
    assert set(installed(KEY_WRAPPERS)) >= {"file", "passphrase"}
    raises(UnknownProvider, lambda: open_key_wrapper("aws-kms://alias/x", {}), "an unknown scheme")


class Plain:
    """A wrapper that keeps the contract only as far as the faults below let it."""

    url = "plain://here"

    def wrap(self, secret: bytes, context: Mapping[str, str]) -> bytes:
        return os.urandom(8) + bytes(byte ^ 0x55 for byte in secret)

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        return bytes(byte ^ 0x55 for byte in wrapped[8:])

    def close(self) -> None:
        pass


class Repeats(Plain):
    def wrap(self, secret: bytes, context: Mapping[str, str]) -> bytes:
        return bytes(8) + super().wrap(secret, context)[8:]


class CutsLong(Plain):
    def wrap(self, secret: bytes, context: Mapping[str, str]) -> bytes:
        return super().wrap(secret[:256], context)


class Forgets(Plain):
    def __init__(self) -> None:
        self.key = os.urandom(1)[0] | 1

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        return bytes(byte ^ self.key for byte in super().unwrap(wrapped, context))


class ClosesOnce(Plain):
    is_open = True

    def close(self) -> None:
        assert self.is_open, "it is closed already"
        self.is_open = False


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        (Plain, suite.another_context_is_refused),
        (Plain, suite.what_was_changed_is_refused),
        (Repeats, suite.wrapping_hides_and_never_repeats),
        (CutsLong, suite.what_was_wrapped_unwraps),
        (Forgets, suite.another_handle_unwraps),
        (Forgets, suite.threads_share_a_wrapper),
        (ClosesOnce, suite.the_address_names_it_and_close_may_be_repeated),
    ],
    ids=lambda value: value.__name__,
)
def test_a_fault_is_found(kind: type[Plain], check: suite.Check) -> None:
    """The check for it fails with a sentence."""
    (finding,) = suite.run(kind, (check,))
    assert finding.wrong


def test_another_key_does_not_unwrap(tmp_path: Path) -> None:
    """Neither another key file nor another passphrase."""
    pairs: list[list[KeyWrapper]] = [
        [open_key_wrapper(key_file(tmp_path / name, name.encode() * 32), {}) for name in "ab"],
        [cheap(words) for words in ("horse", "hörse")],
    ]
    for one, other in pairs:
        wrapped = one.wrap(b"secret", CONTEXT)
        raises(WrongKey, lambda other=other, wrapped=wrapped: other.unwrap(wrapped, CONTEXT), "unwrap")  # type: ignore[misc]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601, 0o666])
def test_a_key_file_that_others_may_read_is_refused(mode: int, tmp_path: Path) -> None:
    """For wrapping as for unwrapping; the message names file, mode and what to do."""
    wrapper = open_key_wrapper(key_file(tmp_path / "key", mode=mode), {})
    with pytest.raises(ConfigError, match=f"key has mode {mode:04o}") as refused:
        wrapper.wrap(b"secret", CONTEXT)
    assert "chmod 0600" in refused.value.guidance


def test_what_is_no_key_file_is_refused(tmp_path: Path) -> None:
    """A missing one, a short one, a folder, and addresses that name none."""
    wrapper = open_key_wrapper(f"file://{tmp_path}/none", {})
    raises(NotFound, lambda: wrapper.wrap(b"secret", CONTEXT), "a missing key file")
    for url in (key_file(tmp_path / "short", b"x" * 31), f"file://{tmp_path}"):
        raises(ConfigError, lambda url=url: open_key_wrapper(url, {}).wrap(b"secret", CONTEXT), url)  # type: ignore[misc]
    for url in ("file://", "file:///", "file://host/key", "file:///key?x=1"):
        raises(ConfigError, lambda url=url: open_key_wrapper(url, {}), url)  # type: ignore[misc]


def test_a_passphrase_that_is_not_there_is_missing(tmp_path: Path) -> None:
    """An unset or empty variable, a missing or empty file; addresses that name neither."""
    (tmp_path / "empty").write_text("\n")
    for url in ("passphrase://env/NONE", "passphrase://env/EMPTY", f"passphrase://file{tmp_path}/none",
                f"passphrase://file{tmp_path}/empty"):  # fmt: skip
        wrapper = open_key_wrapper(url, {"EMPTY": " "})
        raises(MissingKey, lambda wrapper=wrapper: wrapper.wrap(b"secret", CONTEXT), url)  # type: ignore[misc]
    for url in ("passphrase://", "passphrase://env", "passphrase://env/A/B", "passphrase://words"):
        raises(ConfigError, lambda url=url: open_key_wrapper(url, {}), url)  # type: ignore[misc]


def test_what_asks_for_a_dear_derivation_is_refused_at_once() -> None:
    """A wrapped password is input: its cost has a ceiling."""
    wrapper = cheap("horse")
    wrapped = bytearray(wrapper.wrap(b"secret", CONTEXT))
    for place, value in ((0, 2), (1, 31), (1, 0), (1, 23), (2, 0), (3, 0), (3, 255)):
        dear = bytes(wrapped[:place]) + bytes([value]) + bytes(wrapped[place + 1 :])
        raises(IntegrityError, lambda dear=dear: wrapper.unwrap(dear, CONTEXT), f"byte {place} = {value}")  # type: ignore[misc]
