"""Flags as etcdctl takes them: anywhere on the line, `--flag value`, `--flag=value`, `--flag=false`, `-wjson`.

Pure: a table of flags and a list of words go in, values come out. The texts of what is wrong are those of etcdctl's
parser, so that scripts that look for them find them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from attrs import field, frozen

from coord.cli.failure import CommandError
from coord.cli.quoting import quote, quote_char

_INTEGER: Final = re.compile(r"[+-]?(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|[1-9][0-9]*|0)\Z")
_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_DURATION_PART: Final = re.compile(r"([0-9]*\.?[0-9]*)([^0-9.]*)")
_UNIT_S: Final[Mapping[str, float]] = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
INT64_MAX: Final = 2**63 - 1
UINT64_MAX: Final = 2**64 - 1


def text_value(text: str) -> str:
    """Take any text."""
    return text


def bool_value(text: str) -> bool:
    """Read `true`, `false`, `1`, `0`, `t`, `f`; raises `ValueError` for anything else."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f"strconv.ParseBool: parsing {quote(text)}: invalid syntax")


def bool_text(text: str) -> str:
    """Check as `bool_value` does, and return the text, for who reads it elsewhere."""
    return "true" if bool_value(text) else "false"


def int_value(text: str) -> int:
    """Read a signed 64-bit integer, decimal or with 0x, 0o, 0b; raises `ValueError` for anything else."""
    match = _INTEGER.match(text)
    if match is None:
        raise ValueError(f"strconv.ParseInt: parsing {quote(text)}: invalid syntax")
    digits = match.group(1)
    is_old_octal = len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
    value = int(digits, 8) if is_old_octal else int(digits, 0)
    return _in_range(-value if text[0] == "-" else value, text)


def plain_int(text: str, base: int = 10) -> int:
    """Read an argument that is a signed 64-bit integer in `base`; raises `ValueError` for anything else."""
    digits = text.removeprefix("-") if text.startswith("-") else text.removeprefix("+")
    try:
        value = _plain(digits, base)
    except ValueError:
        raise ValueError(f"strconv.ParseInt: parsing {quote(text)}: invalid syntax") from None
    return _in_range(-value if text[0] == "-" else value, text)


def plain_uint(text: str, base: int = 10) -> int:
    """Read an argument that is an unsigned 64-bit integer in `base`; raises `ValueError` for anything else."""
    try:
        value = _plain(text, base)
    except ValueError:
        raise ValueError(f"strconv.ParseUint: parsing {quote(text)}: invalid syntax") from None
    if value > UINT64_MAX:
        raise ValueError(f"strconv.ParseUint: parsing {quote(text)}: value out of range")
    return value


def _plain(digits: str, base: int) -> int:
    # Python would take underscores, digits of other scripts, and 0x where the base is 16.
    if not digits.isascii() or not digits.isalnum() or "x" in digits.lower():
        raise ValueError
    return int(digits, base)


def _in_range(value: int, text: str) -> int:
    if not -INT64_MAX - 1 <= value <= INT64_MAX:
        raise ValueError(f"strconv.ParseInt: parsing {quote(text)}: value out of range")
    return value


def duration_value(text: str) -> float:
    """Read a duration such as `5s`, `1m30s` or `500ms`, in seconds; raises `ValueError` for anything else."""
    rest = text.removeprefix("-") if text.startswith("-") else text.removeprefix("+")
    if rest == "0":
        return 0.0
    seconds = 0.0
    if not rest:
        raise ValueError(f"time: invalid duration {quote(text)}")
    while rest:
        match = _DURATION_PART.match(rest)
        number, unit = match.groups() if match else ("", "")
        if number in ("", "."):
            raise ValueError(f"time: invalid duration {quote(text)}")
        if not unit:
            raise ValueError(f"time: missing unit in duration {quote(text)}")
        if unit not in _UNIT_S:
            raise ValueError(f"time: unknown unit {quote(unit)} in duration {quote(text)}")
        seconds += float(number) * _UNIT_S[unit]
        rest = rest[len(number) + len(unit) :]
    return -seconds if text.startswith("-") else seconds


def list_value(text: str) -> tuple[str, ...]:
    """Read a comma separated list; a flag of this kind may be given several times."""
    return tuple(item.strip() for item in text.split(",")) if text else ()


@frozen
class Flag:
    """One flag: `--name`, and `-short` where there is one.

    `read` makes a value of its text, raising `ValueError`; `metavar` names the value in the help, and is empty for a
    flag that needs none.
    """

    name: str
    help: str
    default: Any = False
    read: Callable[[str], Any] = bool_value
    metavar: str = ""
    short: str = ""

    @property
    def is_bool(self) -> bool:
        """True if the flag alone means `true`."""
        return self.read in (bool_value, bool_text)

    @property
    def label(self) -> str:
        """The flag as etcdctl names it in an error."""
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"

    def shown(self, value: Any) -> str:
        """Return `value` as it is written on a command line."""
        if self.read is list_value:
            return ",".join(value)
        if self.read is duration_value:
            return f"{value:g}s"
        return str(value).lower() if self.is_bool else str(value)


HELP: Final = Flag("help", "Show this help and exit.", short="h")


@frozen
class Parsed:
    """A command line, read: the values of flags by name, and the other words in order.

    `after_dashes` is how many of `words` stood behind a `--`, or None if there was none.
    """

    words: tuple[str, ...]
    given: Mapping[str, Any]
    defaults: Mapping[str, Any]
    after_dashes: int | None = None
    rest: tuple[str, ...] = field(default=())

    def on(self, name: str) -> bool:
        """Return the value of a flag that is on or off."""
        return bool(self._value(name))

    def number(self, name: str) -> int:
        """Return the value of an integer flag."""
        return int(self._value(name))

    def seconds(self, name: str) -> float:
        """Return the value of a duration flag, in seconds."""
        return float(self._value(name))

    def text(self, name: str) -> str:
        """Return the value of a text flag."""
        return str(self._value(name))

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the items of a flag that takes a list."""
        return tuple(self._value(name))

    def _value(self, name: str) -> Any:
        return self.given[name] if name in self.given else self.defaults[name]


def parse(line: Sequence[str], flags: Iterable[Flag], *, stop_at_word: bool = False) -> Parsed:
    """Read the words and flags of `line`; the defaults of flags stand in for those that are not given.

    With `stop_at_word` the first word that is no flag ends the reading; it and all after it are `rest`. Raises
    `CommandError` for an unknown flag, a missing value or one that cannot be read.
    """
    return _Parser(tuple(flags)).parse(list(line), stop_at_word)


class _Parser:
    def __init__(self, flags: tuple[Flag, ...]) -> None:
        self._long = {flag.name: flag for flag in (*flags, HELP)}
        self._short = {flag.short: flag for flag in (*flags, HELP) if flag.short}
        self._given: dict[str, Any] = {}
        self._left: list[str] = []

    def parse(self, line: list[str], stop_at_word: bool) -> Parsed:
        self._left = line[::-1]
        words: list[str] = []
        after_dashes = None
        while self._left:
            word = self._left.pop()
            if word == "--":
                after_dashes = len(self._left)
                words += reversed(self._left)
                self._left.clear()
            elif word.startswith("--"):
                self._take_long(word)
            elif word.startswith("-") and word != "-":
                self._take_short(word)
            elif stop_at_word:
                self._left.append(word)
                break
            else:
                words.append(word)
        defaults = {flag.name: flag.default for flag in self._long.values()}
        return Parsed(tuple(words), self._given, defaults, after_dashes, tuple(reversed(self._left)))

    def _take_long(self, word: str) -> None:
        name, equals, value = word[2:].partition("=")
        if not name or name.startswith("-"):
            raise CommandError(f"bad flag syntax: {word}")
        flag = self._long.get(name)
        if flag is None:
            raise CommandError(f"unknown flag: --{name}", hint=_ABSENT.get(name, ""))
        if equals:
            self._set(flag, value)
        elif flag.is_bool:
            self._set(flag, "true")
        elif self._left:
            self._set(flag, self._left.pop())
        else:
            raise CommandError(f"flag needs an argument: --{name}")

    def _take_short(self, word: str) -> None:
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            flag = self._short.get(letter)
            if flag is None:
                hint = _ABSENT.get(letter, "") or "a key or value that begins with '-' goes behind '--'"
                raise CommandError(f"unknown shorthand flag: {quote_char(letter)} in {word}", hint=hint)
            if letters.startswith("=") and len(letters) > 1:
                self._set(flag, letters[1:])
                return
            if flag.is_bool:
                self._set(flag, "true")
                continue
            if not letters and not self._left:
                raise CommandError(f"flag needs an argument: {quote_char(letter)} in {word}")
            self._set(flag, letters or self._left.pop())
            return

    def _set(self, flag: Flag, text: str) -> None:
        try:
            value = flag.read(text)
        except ValueError as error:
            raise CommandError(f"invalid argument {quote(text)} for {quote(flag.label)} flag: {error}") from None
        if flag.read is list_value:
            value = self._given.get(flag.name, ()) + value
        self._given[flag.name] = value


_NO_TLS: Final = "coord does not speak TLS: drop this flag, and keep nodes on networks that you trust"
_NO_USERS: Final = "coord has no users yet: drop this flag, and keep nodes on networks that you trust"
_NO_DISCOVERY: Final = "name the nodes with --endpoints"
_ABSENT: Final[Mapping[str, str]] = {
    "cacert": _NO_TLS,
    "cert": _NO_TLS,
    "key": _NO_TLS,
    "insecure-skip-tls-verify": _NO_TLS,
    "insecure-transport": _NO_TLS,
    "user": _NO_USERS,
    "password": _NO_USERS,
    "discovery-srv": _NO_DISCOVERY,
    "discovery-srv-name": _NO_DISCOVERY,
    "insecure-discovery": _NO_DISCOVERY,
    "auto-defrag": "coord reuses freed space by itself: drop this flag",
    "d": _NO_DISCOVERY,
    "keepalive-time": "coord keeps its connections alive by itself: drop this flag",
    "keepalive-timeout": "coord keeps its connections alive by itself: drop this flag",
}
