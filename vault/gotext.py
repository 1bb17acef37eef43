"""Text as Go writes it: quoted names (``strconv.Quote``) and JSON strings (``encoding/json``), byte for byte.

A tree's id is the hash of its text, and ``restic rewrite`` refuses a tree whose re-encoding gives another id. Go and
Python follow different versions of Unicode: a name with a character that only one of them knows is still read
rightly by both.
"""

from __future__ import annotations

import re

_PLAIN = re.compile(rb"[ !#-%'-;=?-\[\]-~]*")
"""What neither quoting nor JSON changes: printable ASCII without ``" & < > \\``."""
_ESCAPES = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}
_UNESCAPED = {"a": 7, "b": 8, "t": 9, "n": 10, "v": 11, "f": 12, "r": 13, '"': 34, "\\": 92}
_JSON_ESCAPES = {8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}
_JSON_SPECIAL = re.compile('[\x00-\x1f"\\\\<>&\u2028\u2029\udc80-\udcff]')
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|([abfnrtv\"\\])|.?)", re.S)


def encode_name(name: bytes) -> str:
    """A node's name as it stands between the quotation marks of a tree's JSON."""
    if _PLAIN.fullmatch(name):
        return name.decode("ascii")
    return json_inner("".join(map(_quote, name.decode("utf-8", "surrogateescape"))))


def decode_name(text: str) -> bytes:
    """The name's bytes, from the JSON string's value.

    Raises:
        ValueError: It is not quoted as Go does.
    """
    if "\\" not in text:
        return text.encode()
    out, place = bytearray(), 0
    for found in _ESCAPE.finditer(text):
        out += text[place : found.start()].encode()
        out += _unescape(found)
        place = found.end()
    return bytes(out + text[place:].encode())


def json_inner(text: str) -> str:
    """A JSON string without its quotation marks; lone surrogates (bytes that are no UTF-8) become ``\\ufffd``."""
    return _JSON_SPECIAL.sub(_json_escape, text)


def _quote(character: str) -> str:
    number = ord(character)
    if number in _ESCAPES:
        return _ESCAPES[number]
    if 0xDC80 <= number <= 0xDCFF:  # a byte that is no UTF-8
        return f"\\x{number - 0xDC00:02x}"
    if character.isprintable():
        return character
    if number < 0x20 or number == 0x7F:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _unescape(found: re.Match[str]) -> bytes:
    byte, short, long, octal, letter = found.groups()
    if byte:
        return bytes([int(byte, 16)])
    if octal and int(octal, 8) < 256:
        return bytes([int(octal, 8)])
    if letter:
        return bytes([_UNESCAPED[letter]])
    if short or long:
        return chr(int(short or long, 16)).encode()
    raise ValueError(f"{found.group()!r} is no escape")


def _json_escape(found: re.Match[str]) -> str:
    number = ord(found.group())
    if number in _JSON_ESCAPES:
        return _JSON_ESCAPES[number]
    return "\\ufffd" if number >= 0xDC80 else f"\\u{number:04x}"
