"""The conformance suite of `KeyWrapper`: what every wrapper must do, as plain functions that need no test framework.

Each check takes a way to open the wrapper, which must be of the same key every time. Nothing is left behind:

    findings = run(lambda: open_key_wrapper("file:///etc/refloat/key", os.environ))
    assert all(finding.is_kept for finding in findings)
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from refloat.conformance.object_store import Finding, raises, require, together
from refloat.errors import IntegrityError, RefloatError, WrongKey
from refloat.ports.key_wrapper import LARGEST_SECRET_BYTES, KeyWrapper

Open = Callable[[], KeyWrapper]
Check = Callable[[Open], None]
CONTEXT = {"purpose": "conformance", "slot": "0123abcd"}
OTHERS: tuple[dict[str, str], ...] = (
    {},
    {"purpose": "conformance"},
    {"purpose": "conformance", "slot": "0123abce"},
    {"purpose": "conformance", "slot": "0123abcd", "more": ""},
    {"purpose": "0123abcd", "slot": "conformance"},
)
STEPS = 12
"""Bytes that are changed, one at a time, over the length of what was wrapped."""


def run(open_one: Open, checks: Sequence[Check] | None = None) -> list[Finding]:
    """The checks (all when omitted) in order; a failing one does not keep the others from running."""
    return [_finding(check, open_one) for check in (CHECKS if checks is None else checks)]


def _finding(check: Check, open_one: Open) -> Finding:
    name, promise = check.__name__, (check.__doc__ or "").strip()
    try:
        check(open_one)
    except AssertionError as wrong:
        return Finding(name, promise, str(wrong))
    except RefloatError as error:
        return Finding(name, promise, f"{type(error).__name__}: {error}")
    return Finding(name, promise, None)


@contextmanager
def opened(open_one: Open) -> Iterator[KeyWrapper]:
    """A wrapper of the check's own, closed at the end."""
    wrapper = open_one()
    try:
        yield wrapper
    finally:
        wrapper.close()


def what_was_wrapped_unwraps(open_one: Open) -> None:
    """Secrets of every size come back as they were."""
    with opened(open_one) as wrapper:
        for size in (1, 32, 44, LARGEST_SECRET_BYTES):
            secret = secrets.token_bytes(size)
            wrapped = wrapper.wrap(secret, CONTEXT)
            require(isinstance(wrapped, bytes), "wrap must give bytes")
            require(wrapper.unwrap(wrapped, CONTEXT) == secret, f"{size} bytes do not unwrap to what they were")


def another_handle_unwraps(open_one: Open) -> None:
    """What one handle wrapped another of the same address unwraps, whatever the order of the context."""
    secret = secrets.token_bytes(32)
    with opened(open_one) as wrapper:
        wrapped = wrapper.wrap(secret, CONTEXT)
    with opened(open_one) as wrapper:
        turned = dict(reversed(CONTEXT.items()))
        require(wrapper.unwrap(wrapped, turned) == secret, "another handle does not unwrap it")


def wrapping_hides_and_never_repeats(open_one: Open) -> None:
    """The same secret is wrapped into another value every time, and none holds the secret."""
    with opened(open_one) as wrapper:
        secret = secrets.token_bytes(32)
        first, second = wrapper.wrap(secret, CONTEXT), wrapper.wrap(secret, CONTEXT)
        require(first != second, "the same secret was wrapped into the same value twice")
        require(secret not in first and secret not in second, "what is wrapped holds the secret")


def another_context_is_refused(open_one: Open) -> None:
    """What was wrapped for one purpose does not unwrap for another: WrongKey."""
    with opened(open_one) as wrapper:
        wrapped = wrapper.wrap(secrets.token_bytes(32), CONTEXT)
        for other in OTHERS:
            raises(WrongKey, lambda other=other: wrapper.unwrap(wrapped, other), f"unwrap for {other}")  # type: ignore[misc]


def what_was_changed_is_refused(open_one: Open) -> None:
    """A changed or cut byte anywhere is found: WrongKey or IntegrityError."""
    with opened(open_one) as wrapper:
        wrapped = wrapper.wrap(secrets.token_bytes(32), CONTEXT)
        for place in range(0, len(wrapped), max(1, len(wrapped) // STEPS)):
            changed = wrapped[:place] + bytes([wrapped[place] ^ 1]) + wrapped[place + 1 :]
            _refuses(wrapper, changed, f"byte {place} changed")
        for changed in (wrapped[:-1], wrapped + b"\0", wrapped[:5], b"", b"no such thing" * 20):
            _refuses(wrapper, changed, f"{len(changed)} bytes of {len(wrapped)}")


def _refuses(wrapper: KeyWrapper, changed: bytes, what: str) -> None:
    try:
        wrapper.unwrap(changed, CONTEXT)
    except (WrongKey, IntegrityError):
        return
    except Exception as foreign:
        raise AssertionError(f"{what}: {type(foreign).__name__} came, not WrongKey or IntegrityError") from foreign
    raise AssertionError(f"{what}: it was unwrapped all the same")


def threads_share_a_wrapper(open_one: Open) -> None:
    """Calls from several threads on one wrapper do not disturb each other."""
    with opened(open_one) as wrapper:

        def work(number: int) -> bool:
            secret = secrets.token_bytes(32 + number)
            return wrapper.unwrap(wrapper.wrap(secret, CONTEXT), CONTEXT) == secret

        require(all(together(work, 4)), "a thread did not get its own secret back")


def the_address_names_it_and_close_may_be_repeated(open_one: Open) -> None:
    """url has a scheme; close may be called twice."""
    wrapper = open_one()
    require("://" in wrapper.url, f"{wrapper.url!r} is no address")
    wrapper.close()
    wrapper.close()


CHECKS: tuple[Check, ...] = (
    what_was_wrapped_unwraps,
    another_handle_unwraps,
    wrapping_hides_and_never_repeats,
    another_context_is_refused,
    what_was_changed_is_refused,
    threads_share_a_wrapper,
    the_address_names_it_and_close_may_be_repeated,
)
