"""Replies and notifications as bytes, spliced from parts that are encoded once (coord.cddl)."""

from __future__ import annotations

from struct import Struct
from typing import Any, Final

from coord.codec import NULL, encode, uint
from coord.errors import ApiError
from coord.mvcc.applied import Answer

_DONE_16: Final = Struct(">BBHBIB")
_DONE_32: Final = Struct(">BBIBIB")


def reply_ok(request_id: int, revision: int, payload: bytes) -> bytes:
    """Return a reply whose result is already encoded."""
    return b"\x83" + uint(request_id) + uint(revision) + payload


def reply_value(request_id: int, revision: int, result: Any) -> bytes:
    """Return a reply, encoding its result."""
    return b"\x83" + uint(request_id) + uint(revision) + encode(result)


def reply_error(request_id: int, revision: int, error: ApiError) -> bytes:
    """Return the reply of a request that failed."""
    return b"\x84" + uint(request_id) + uint(revision) + NULL + encode(error.to_wire())


def reply_answer(request_id: int, answer: Answer) -> bytes:
    """Return the reply that carries the state machine's answer."""
    revision, ok, payload = answer
    if payload is NULL and 0x100 <= request_id < 0x100000000 and 0x10000 <= revision < 0x100000000:
        # A put's, in one step: the same bytes as below, of numbers that take two or four.
        if request_id < 0x10000:
            return _DONE_16.pack(0x83, 0x19, request_id, 0x1A, revision, 0xF6)
        return _DONE_32.pack(0x83, 0x1A, request_id, 0x1A, revision, 0xF6)
    return (b"\x83" if ok else b"\x84") + uint(request_id) + uint(revision) + payload
