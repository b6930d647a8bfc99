"""What log events are made of: levels, kinds of fields, and how each kind is written into a line."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum, StrEnum
from typing import Any, Final

from attrs import define, field, frozen

LIMITED_PER_S: Final = 10
"""How many lines a second a limited event may write."""
TEXT_CHARACTERS_MAX: Final = 1_000
"""Longer texts are cut, so that a line stays within what a pipe takes at once."""
KEY_BYTES_SHOWN: Final = 128
LIST_ITEMS_SHOWN: Final = 64


class Level(IntEnum):
    """How much an event matters; the numbers are those of Python's `logging`."""

    DEBUG = 10
    INFO = 20
    WARN = 30
    ERROR = 40


class Kind(StrEnum):
    """What a field holds, and so how it is written; a field that does not apply is None, and left out."""

    INT = "integer"
    FLOAT = "number"
    BOOL = "true or false"
    TEXT = "text"
    TEXTS = "list of texts"
    ID = "hexadecimal id"
    IDS = "list of hexadecimal ids"
    KEY = "key, escaped and cut"


@frozen
class EventSpec:
    """One event of the catalogue: `fields` maps each field's name to its kind."""

    name: str
    level: Level
    meaning: str
    fields: dict[str, Kind]
    limited: bool = False


@define
class Collector:
    """Gathers a part of the catalogue: a call for each event, with its name, meaning, and fields by kind."""

    specs: list[EventSpec] = field(factory=list)

    def debug(self, name: str, meaning: str, /, *, limited: bool = False, **fields: Kind) -> None:
        """Add an event for those who look for a mistake."""
        self.specs.append(EventSpec(name, Level.DEBUG, meaning, fields, limited))

    def info(self, name: str, meaning: str, /, *, limited: bool = False, **fields: Kind) -> None:
        """Add an event of the ordinary course of things."""
        self.specs.append(EventSpec(name, Level.INFO, meaning, fields, limited))

    def warn(self, name: str, meaning: str, /, *, limited: bool = False, **fields: Kind) -> None:
        """Add an event that somebody may have to do something about."""
        self.specs.append(EventSpec(name, Level.WARN, meaning, fields, limited))

    def error(self, name: str, meaning: str, /, *, limited: bool = False, **fields: Kind) -> None:
        """Add an event that somebody has to do something about."""
        self.specs.append(EventSpec(name, Level.ERROR, meaning, fields, limited))


def clip(text: str | BaseException) -> str:
    """Return `text` fit for a log line: without control characters, at most `TEXT_CHARACTERS_MAX` long.

    An exception becomes its type and message. What a stranger sent may hold line ends or terminal sequences,
    which would forge lines on a console.
    """
    if isinstance(text, BaseException):
        text = f"{type(text).__name__}: {text}"
    if len(text) > TEXT_CHARACTERS_MAX:
        text = f"{text[:TEXT_CHARACTERS_MAX]}… ({len(text)} characters)"
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def show_key(key: bytes) -> str:
    r"""Return a key as text: printable ASCII as it is, other bytes as `\x..`, cut at `KEY_BYTES_SHOWN`."""
    shown = repr(bytes(key[:KEY_BYTES_SHOWN]))[2:-1]
    return shown if len(key) <= KEY_BYTES_SHOWN else f"{shown}… ({len(key)} bytes)"


def show_id(number: int) -> str:
    """Return an id as hexadecimal text: JSON readers lose digits of integers above 2⁵³."""
    return f"{number:x}"


def _items(show: Callable[[Any], str]) -> Callable[[Any], list[str]]:
    def render(values: Any) -> list[str]:
        shown = [show(value) for value in list(values)[:LIST_ITEMS_SHOWN]]
        return shown if len(values) <= LIST_ITEMS_SHOWN else [*shown, f"… ({len(values)})"]

    return render


RENDER: Final[dict[Kind, Callable[[Any], object]]] = {
    Kind.INT: int,
    Kind.FLOAT: lambda value: round(float(value), 3),
    Kind.BOOL: bool,
    Kind.TEXT: clip,
    Kind.TEXTS: _items(clip),
    Kind.ID: show_id,
    Kind.IDS: _items(show_id),
    Kind.KEY: show_key,
}
"""How a value of each kind is written into a line."""
