r"""Text in and out as Go has it, whose rules etcdctl's output and `txn` input follow.

Keys and values are bytes; `quote` shows them between double quotes with escapes (Go's `%q`), `unquote` reads that
form back. Words of a command line are text that may hold stray bytes as surrogates; they are bytes again by
`os.fsencode`.
"""

from __future__ import annotations

import os
import re
from typing import Final

_ESCAPES: Final = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
}
_UNESCAPES: Final = {escape[1]: char.encode() for char, escape in _ESCAPES.items()} | {'"': b'"'}
_ESCAPE: Final = re.compile(
    r"\\(?:(?P<simple>[abfnrtv\\\"])|x(?P<byte>[0-9a-fA-F]{2})|(?P<octal>[0-7]{3})"
    r"|u(?P<u4>[0-9a-fA-F]{4})|U(?P<u8>[0-9a-fA-F]{8}))"
)


def quote(data: bytes | str, around: str = '"') -> str:
    """Return `data` between double quotes, with what cannot be printed escaped."""
    text = (data if isinstance(data, bytes) else os.fsencode(data)).decode("utf-8", "surrogateescape")
    return around + "".join(_quoted(char, around) for char in text) + around


def quote_char(char: str) -> str:
    """Return one character between single quotes."""
    return quote(char, "'")


def _quoted(char: str, around: str) -> str:
    if char == around:
        return "\\" + char
    if char in _ESCAPES:
        return _ESCAPES[char]
    number = ord(char)
    if 0xDC80 <= number <= 0xDCFF:
        return f"\\x{number - 0xDC00:02x}"
    if char.isprintable():
        return char
    if number < 0x20 or number == 0x7F:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def unquote(text: str) -> bytes:
    """Return what `text`, in double quotes or backquotes, stands for; raises `ValueError` if it is malformed."""
    inner = text[1:-1]
    if len(text) < 2 or text[0] != text[-1] or text[0] not in '"`' or "\n" in inner:
        raise ValueError("invalid syntax")
    if text[0] == "`":
        if "`" in inner:
            raise ValueError("invalid syntax")
        return os.fsencode(inner)
    out = bytearray()
    position = 0
    while position < len(inner):
        if inner[position] == '"':
            raise ValueError("invalid syntax")
        if inner[position] != "\\":
            out += os.fsencode(inner[position])
            position += 1
            continue
        match = _ESCAPE.match(inner, position)
        if match is None:
            raise ValueError("invalid syntax")
        out += _unescaped(match)
        position = match.end()
    return bytes(out)


def _unescaped(match: re.Match[str]) -> bytes:
    if match["simple"]:
        return _UNESCAPES[match["simple"]]
    if match["byte"] or match["octal"]:
        number = int(match["byte"], 16) if match["byte"] else int(match["octal"], 8)
        if number > 0xFF:
            raise ValueError("invalid syntax")
        return bytes((number,))
    number = int(match["u4"] or match["u8"], 16)
    if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
        raise ValueError("invalid syntax")
    return chr(number).encode()
