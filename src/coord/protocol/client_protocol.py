"""The client's side of `coord.v1`: what it sends, and what it understands of what a node sends. Pure.

`coord.cddl` is the schema. Nodes may be newer than this client, so extra trailing items of their messages are
ignored, and messages of an unknown kind too.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from operator import eq
from typing import Any, Final, NamedTuple

from attrs import frozen

from coord.codec import array_head, bytes_head, decode, encode, uint
from coord.errors import ProtocolViolation, request_too_large
from coord.limits import FRAME_BYTES_MAX, REQUEST_TIMEOUT_MS_MAX
from coord.protocol.bodies import Write, encode_body
from coord.protocol.id_run import each_reply
from coord.protocol.ops import PROTOCOL_VERSION, ClientMessage, ServerMessage

Request = tuple[int, int, int, Sequence[Any]]
"""`(request id, method, timeout_ms, arguments)`."""
WriteId = tuple[int, int]
"""`(request id, timeout_ms)` of a write."""

FRAME_BYTES_AIM: Final = 256 * 1024
"""A batch is cut where it would grow beyond this: a node reads a frame whole before it serves any of it."""

_ANSWER_SHARE: Final = 0.1
_ANSWER_S_MIN: Final = 0.2
"""A node looks at its deadlines about ten times a second."""
_ANSWER_S_MAX: Final = 0.3

_HELLO: Final = int(ServerMessage.HELLO)
_REPLIES: Final = int(ServerMessage.REPLIES)
_NOTIFICATIONS: Final = int(ServerMessage.NOTIFICATIONS)
_GOODBYE: Final = int(ServerMessage.GOODBYE)

_NOTIFICATIONS_KIND: Final = encode(_NOTIFICATIONS)
_REQUESTS_HEAD: Final = b"\x82" + encode(int(ClientMessage.REQUESTS))
_WRITES_HEAD: Final = b"\x85" + encode(int(ClientMessage.WRITES))


@frozen
class ServerHello:
    """The first message of every connection: who answers, and what it takes."""

    version: int
    cluster_id: int
    member_id: int
    name: str
    server_version: str
    max_request_bytes: int
    max_txn_ops: int
    window: int


class Frame(NamedTuple):
    """A batch of replies or notifications, with what its sender knew when it sent it."""

    kind: int
    cluster_id: int
    member_id: int
    raft_term: int
    leader_id: int
    items: list[Any]


_make_frame = Frame._make
_FRAME_ITEMS: Final = len(Frame._fields)


@frozen
class Goodbye:
    """The node stops; use another endpoint."""

    reason: str


def milliseconds(seconds: float) -> int:
    """Return what a node is told of a caller's timeout: a little less, so that its answer comes before the end.

    A node knows why it did not get to it in time, and whether a write was proposed; the client does not.
    """
    reserve_s = min(max(seconds * _ANSWER_SHARE, _ANSWER_S_MIN), _ANSWER_S_MAX, seconds / 2)
    return int(min(max((seconds - reserve_s) * 1000, 1), REQUEST_TIMEOUT_MS_MAX))


def hello(name: str, cluster_id: int) -> bytes:
    """Return the hello of a client called `name`; `cluster_id` 0 if it knows no cluster yet."""
    message = [int(ClientMessage.HELLO), PROTOCOL_VERSION, name]
    return encode([*message, cluster_id] if cluster_id else message)


def requests_frame(requests: Sequence[Request]) -> bytes:
    """Return the frame that carries `requests`. Raises `InvalidArgument` if no node would take it."""
    parts = [_REQUESTS_HEAD, array_head(len(requests))]
    for request_id, method, timeout_ms, arguments in requests:
        parts += (b"\x84", uint(request_id), uint(method), uint(timeout_ms))
        if len(arguments) == 1 and type(arguments[0]) is bytes:
            # Most are the read of a key, which `encode` makes of it in twice the time.
            parts += (b"\x81", bytes_head(len(arguments[0])), arguments[0])
        else:
            parts.append(encode(arguments))
    frame = b"".join(parts)
    if len(frame) > FRAME_BYTES_MAX:
        raise request_too_large()
    return frame


def writes_frame(ids: Sequence[WriteId], writes: Sequence[Write], client: int = 0, low: int = 0) -> bytes:
    """Return the frame that carries `writes`, in order, as one byte string that the node keeps as it is.

    Raises `InvalidArgument` if no node would take it.
    """
    body = encode_body(writes)
    parts = [_WRITES_HEAD, uint(client), uint(low)]
    (first, timeout_ms), count = ids[0], len(ids)
    if count > 1 and all(map(eq, ids, zip(range(first, first + count), repeat(timeout_ms)))):
        parts += (b"\x83", uint(first), uint(timeout_ms), uint(count))
    else:
        parts.append(array_head(count))
        for request_id, timeout_ms in ids:
            parts += (b"\x82", uint(request_id), uint(timeout_ms))
    parts += (bytes_head(len(body)), body)
    frame = b"".join(parts)
    if len(frame) > FRAME_BYTES_MAX:
        raise request_too_large()
    return frame


def is_notifications(data: bytes) -> bool:
    """Tell whether a message is a frame of notifications."""
    # Behind the head of the array, which is one byte however many items a later release adds.
    return data[1:2] == _NOTIFICATIONS_KIND


def decode_message(data: bytes) -> ServerHello | Frame | Goodbye | None:
    """Return what a node's message says, or None if it is of a kind that this client does not know.

    Raises `ProtocolViolation` if the bytes are no message of coord.v1.
    """
    message = decode(data, is_counted=False)
    try:
        kind = message[0]
        if kind == _REPLIES:
            return _make_frame((*message[: _FRAME_ITEMS - 1], each_reply(message[_FRAME_ITEMS - 1])))
        if kind == _NOTIFICATIONS:
            return _make_frame(message[:_FRAME_ITEMS])
        if kind == _HELLO:
            return ServerHello(*message[1:9])
        return Goodbye(message[1]) if kind == _GOODBYE else None
    except (TypeError, IndexError, KeyError) as error:
        raise ProtocolViolation(f"not a message of coord.v1: {error}") from error
