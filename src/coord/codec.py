"""CBOR, the only form of coord's bytes: deterministic out, strictly checked in (RFC 8949).

What coord sends is deterministic: definite lengths, shortest heads, arrays only. From others any definite-length,
tag-free encoding is accepted. This is the only module that knows the CBOR library.

Records and events are encoded once and spliced into the frames that carry them; the `*_head` functions make the
heads for that.
"""

from __future__ import annotations

from typing import Any, Final

import cbor2

from coord.errors import DecodeError
from coord.limits import CBOR_DEPTH_MAX, CBOR_ITEMS_MAX, CBOR_SCAN_FROM_BYTES

encode = cbor2.dumps
"""Encode ints, bytes, str, bool, None, and lists or tuples of them. Never give it anything else: a memoryview would
become an array of integers, and nesting without bound would crash the process."""

decode_trusted = cbor2.loads
"""Decode what this node encoded itself and a checksum has vouched for, at half the cost of `decode`."""

NULL: Final = b"\xf6"

_SENTINEL: Final = b"\x4bcoord.bytes"
_SENTINEL_VALUE: Final = b"coord.bytes"


def _refuse_tag(*_: Any) -> Any:
    raise ValueError("tags are not part of the protocol")


_TAGS: Final = dict.fromkeys((*range(60), 100, 256, 258, 260, 261, 1004, 1040, 43000, 55799), _refuse_tag)


def decode(data: bytes, *, is_counted: bool = True) -> Any:
    """Return the one item that `data` encodes, all of it.

    Raises `DecodeError`: more or less than one item, an indefinite length, a tag, a duplicate map key, bad UTF-8,
    nested deeper than `CBOR_DEPTH_MAX`, or more than `CBOR_ITEMS_MAX` items. Clients do not have the items counted:
    what they asked for may be large, and they bound it in bytes.
    """
    if is_counted and len(data) > CBOR_SCAN_FROM_BYTES:
        count_items(data)
    # `loads` ignores what follows the item. In an array of two whose second item is known, nothing can hide there.
    try:
        pair = cbor2.loads(
            b"".join((b"\x82", data, _SENTINEL)),
            max_depth=CBOR_DEPTH_MAX + 1,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            semantic_decoders=_TAGS,
            tag_hook=_refuse_tag,
        )
    except (cbor2.CBORError, ValueError, TypeError, RecursionError, OverflowError, MemoryError) as error:
        raise DecodeError(f"malformed CBOR: {error}") from error
    if pair[1] != _SENTINEL_VALUE:
        raise DecodeError("malformed CBOR: bytes follow the item")
    return pair[0]


def count_items(data: bytes) -> int:
    """Return how many items `data` holds, without building any.

    A frame of a megabyte can hold a million empty arrays, whose objects would take half a second and 60 MB. Raises
    `DecodeError` beyond `CBOR_ITEMS_MAX`, and where a head is cut off.
    """
    position, items, end = 0, 0, len(data)
    while position < end:
        items += 1
        if items > CBOR_ITEMS_MAX:
            raise DecodeError(f"malformed CBOR: more than {CBOR_ITEMS_MAX} items in one message")
        head = data[position]
        position += 1
        info = head & 31
        if info < 24:
            value = info
        elif info < 28:
            size = 1 << (info - 24)
            value = int.from_bytes(data[position : position + size], "big")
            position += size
        else:
            raise DecodeError("malformed CBOR: indefinite lengths are not part of the protocol")
        if head >> 5 in (2, 3):
            position += value
    if position != end:
        raise DecodeError("malformed CBOR: cut off")
    return items


def _head(major: int, value: int) -> bytes:
    if value < 24:
        return bytes((major | value,))
    if value < 0x100:
        return bytes((major | 24, value))
    if value < 0x10000:
        return bytes((major | 25,)) + value.to_bytes(2, "big")
    if value < 0x100000000:
        return bytes((major | 26,)) + value.to_bytes(4, "big")
    return bytes((major | 27,)) + value.to_bytes(8, "big")


_ARRAY_HEADS: Final = tuple(_head(0x80, length) for length in range(256))
_BYTES_HEADS: Final = tuple(_head(0x40, length) for length in range(1024))
_UINTS: Final = tuple(_head(0, value) for value in range(1024))


def array_head(length: int) -> bytes:
    """Return the head of an array of `length` items, which the caller appends encoded."""
    return _ARRAY_HEADS[length] if length < 256 else _head(0x80, length)


def bytes_head(length: int) -> bytes:
    """Return the head of a byte string of `length` bytes, which the caller appends."""
    return _BYTES_HEADS[length] if length < 1024 else _head(0x40, length)


def uint(value: int) -> bytes:
    """Return the encoding of a non-negative integer."""
    if value < 1024:
        return _UINTS[value]
    if value < 0x10000:
        return b"\x19" + value.to_bytes(2, "big")
    if value < 0x100000000:
        return b"\x1a" + value.to_bytes(4, "big")
    return _head(0, value)
