"""What a client writes in one frame: a list of writes, or a run of plain puts (coord.cddl's `body`).

A plain put has a key, a value and nothing else. Most writes are, many at a time; and of what one costs, from its client
to the members that apply it, much goes into the objects that its decoding makes. In a run a put is a key and a value in
one flat array, and its number follows from its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from coord.codec import NULL, array_head, bytes_head, encode, uint
from coord.errors import InvalidArgument, Unimplemented
from coord.protocol.ops import Op
from coord.protocol.shapes import name_of

Write = Sequence[Any]
"""`[number, op, guard, arguments]`; who encodes it may have the arguments encoded already, as bytes."""

_PUT: Final = int(Op.PUT)
_REGISTER: Final = int(Op.REGISTER)
_UINT64: Final = 1 << 64


def encode_body(writes: Sequence[Write]) -> bytes:
    """Return the body that holds these writes: a run if it can be one."""
    number = expected = writes[0][0]
    step = min(number, 1)
    parts = [array_head(1 + 2 * len(writes)), uint(number)]
    for stated, op, guard, arguments in writes:
        if op != _PUT or guard is not None or len(arguments) != 2 or not arguments[0] or stated != expected:
            return _encode_writes(writes)
        expected += step
        key, value = arguments
        parts += (bytes_head(len(key)), key, bytes_head(len(value)), value)
    return b"".join(parts)


def _encode_writes(writes: Sequence[Write]) -> bytes:
    # What `encode` would return. A list costs it more than what is in it, as it asks the abstract classes what it is.
    parts = [array_head(len(writes))]
    for number, op, guard, arguments in writes:
        parts += (b"\x84", uint(number), uint(op), NULL if guard is None else encode(guard))
        parts.append(arguments if type(arguments) is bytes else encode(arguments))
    return b"".join(parts)


def check_body(body: Any) -> int:
    """Check that a decoded body is a run, or a list of writes, each `[number, op, guard, arguments]`; return how many.

    Raises `InvalidArgument`, or `Unimplemented` where a write has an item more than this release knows: in both cases
    none of the body can be applied. Nothing of a run is left for `check_write` to find.
    """
    if type(body) is not list or not body:
        raise InvalidArgument("coord: the body must be an array of at least one write")
    number = body[0]
    if type(number) is not int:
        _check_writes(body)
        return len(body)
    items = len(body) - 1
    if not items or items % 2 or [*map(type, body)].count(bytes) != items or not all(body[1::2]):
        raise InvalidArgument("coord: a run of puts must be an array [number, key, value, key, value, …], no key empty")
    count = items // 2
    if not 0 <= number <= _UINT64 - count:
        raise InvalidArgument("coord: the numbers of a run of puts must be unsigned integers of 64 bits")
    return count


def _check_writes(body: list[Any]) -> None:
    for write in body:
        if type(write) is not list or len(write) != 4:
            _refuse_shape(write)
        number = write[0]
        if type(number) is not int or not 0 <= number < _UINT64:
            raise InvalidArgument(f"coord: the number of a write must be an unsigned integer, not {name_of(number)}")
        if write[1] == _REGISTER and len(body) > 1:
            raise InvalidArgument("coord: register must be alone in its body")


def _refuse_shape(write: Any) -> None:
    if type(write) is list and len(write) > 4:
        raise Unimplemented("coord: this release knows no item 5 of a write")
    raise InvalidArgument("coord: a write must be an array [number, op, guard, arguments]")


def is_run(body: list[Any]) -> bool:
    """Tell whether a body, of a shape that `check_body` let pass, is a run of plain puts."""
    return type(body[0]) is int


def registers(body: list[Any]) -> bool:
    """Tell whether a body is the one write that registers a client."""
    return type(body[0]) is not int and body[0][1] == _REGISTER


def writes_of(body: list[Any]) -> list[list[Any]]:
    """Return the writes of a body, each by itself."""
    if not is_run(body):
        return body
    first = body[0]
    pairs = zip(body[1::2], body[2::2], strict=True)
    return [[first and first + place, _PUT, None, [key, value]] for place, (key, value) in enumerate(pairs)]
