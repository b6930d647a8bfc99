"""Replies and notifications as bytes, spliced from parts that are encoded once (coord.cddl)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from coord.codec import NULL, array_head, encode, uint
from coord.errors import ApiError
from coord.mvcc.applied import Answer

FALSE: Final = b"\xf4"
TRUE: Final = b"\xf5"


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
    return (b"\x83" if ok else b"\x84") + uint(request_id) + uint(revision) + payload


def range_result(records: Sequence[bytes], more: bool, count: int) -> bytes:
    """Return the encoded result of a range out of encoded records."""
    return b"".join((b"\x83", array_head(len(records)), *records, TRUE if more else FALSE, uint(count)))
