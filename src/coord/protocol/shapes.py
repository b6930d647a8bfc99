"""Strict types for positional arguments, with errors that say what is wrong and where."""

from __future__ import annotations

from enum import Enum, auto
from typing import Any, Final

from attrs import field, frozen

from coord.errors import DecodeError, InvalidArgument, Unimplemented

_INT64: Final = 1 << 63
_UINT64: Final = 1 << 64


class Kind(Enum):
    """The type that an item must have; a boolean is no integer."""

    BYTES = auto()
    BOOL = auto()
    INT = auto()
    UINT = auto()
    TEXT = auto()
    LIST = auto()


BYTES: Final = Kind.BYTES
BOOL: Final = Kind.BOOL
INT: Final = Kind.INT
"""A signed integer of 64 bits."""
UINT: Final = Kind.UINT
"""An unsigned integer of 64 bits."""
TEXT: Final = Kind.TEXT
LIST: Final = Kind.LIST
"""An array, whose items are somebody else's to check."""

_TYPE: Final[dict[Kind, type[Any]]] = {
    Kind.BYTES: bytes,
    Kind.BOOL: bool,
    Kind.INT: int,
    Kind.UINT: int,
    Kind.TEXT: str,
    Kind.LIST: list,
}
_WORD: Final = {
    Kind.TEXT: "text",
    Kind.LIST: "an array",
    Kind.BYTES: "a byte string",
    Kind.BOOL: "a boolean",
    Kind.INT: "an integer",
    Kind.UINT: "an unsigned integer",
}


@frozen
class Field:
    """The name and kind of an item at its place; `type` is what its kind decodes to."""

    name: str
    kind: Kind
    type: type[Any] = field(init=False)

    def __attrs_post_init__(self) -> None:
        # Looked up here once: the hash of a member of an enumeration is slow.
        object.__setattr__(self, "type", _TYPE[self.kind])


def check_fields(what: str, items: Any, fields: tuple[Field, ...], required: int) -> None:
    """Check that `items` is a list whose items have the kinds of `fields`, the first `required` of them present.

    Raises `InvalidArgument`, or `Unimplemented` naming the first item that is one too many.
    """
    if type(items) is not list:
        raise InvalidArgument(f"coord: the arguments of {what} must be an array, not {name_of(items)}")
    if len(items) > len(fields):
        raise Unimplemented(f"coord: this release knows no item {len(fields) + 1} of {what}")
    if len(items) < required:
        raise InvalidArgument(f"coord: {what} lacks {fields[len(items)].name}")
    item: Any
    for item, expected in zip(items, fields, strict=False):
        if type(item) is not expected.type:
            word = _WORD[expected.kind]
            raise InvalidArgument(f"coord: {expected.name} of {what} must be {word}, not {name_of(item)}")
        if expected.kind is INT and not -_INT64 <= item < _INT64:
            raise InvalidArgument(f"coord: {expected.name} of {what} must fit in 64 bits")
        if expected.kind is UINT and not 0 <= item < _UINT64:
            raise InvalidArgument(f"coord: {expected.name} of {what} must be 0 … 2^64-1")


def read_fields(what: str, items: Any, fields: tuple[Field, ...]) -> list[Any]:
    """Return what a peer sent as `what`, cut to the items that this release knows; they have the kinds of `fields`.

    A peer of a newer release may send more of them. Raises `DecodeError`.
    """
    if type(items) is not list:
        raise DecodeError(f"{what} must be an array, not {name_of(items)}")
    if len(items) < len(fields):
        raise DecodeError(f"{what} lacks {fields[len(items)].name}")
    item: Any
    for item, expected in zip(items, fields, strict=False):
        if type(item) is not expected.type:
            raise DecodeError(f"{expected.name} of {what} must be {_WORD[expected.kind]}, not {name_of(item)}")
        if expected.kind is UINT and not 0 <= item < _UINT64:
            raise DecodeError(f"{expected.name} of {what} must be 0 … 2^64-1")
    return items[: len(fields)]


def name_of(item: Any) -> str:
    """Return the kind of a decoded item, in words for an error message."""
    if item is None:
        return "null"
    if isinstance(item, bool):
        return "a boolean"
    if isinstance(item, float):
        return f"a float ({item!r}): send an integer"
    if isinstance(item, int):
        return f"the integer {item}"
    if isinstance(item, bytes):
        return "a byte string"
    if isinstance(item, str):
        return "a text string"
    if isinstance(item, list):
        return "an array"
    return f"a {type(item).__name__}"
