"""The node's side of coord.v1: bytes of a client become checked messages, and encoded parts become frames.

A message that is broken inside an intact frame is answered, not punished: the connection lives on. Whatever
can be answered by id is; id 0 answers what has none. Replies and notifications are spliced, never encoded
again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from attrs import define, frozen

from coord.codec import array_head, decode, encode, uint
from coord.errors import ApiError, DecodeError, InvalidArgument, Unimplemented
from coord.limits import CLIENT_WINDOW, REQUESTS_OPEN_PER_CONNECTION
from coord.protocol.bodies import check_body
from coord.protocol.id_run import IdRun, Ids
from coord.protocol.ops import PROTOCOL_VERSION, ClientMessage, ServerMessage
from coord.protocol.shapes import name_of

_UINT64: Final = 1 << 64
_HELLO: Final = int(ClientMessage.HELLO)
_REQUESTS: Final = int(ClientMessage.REQUESTS)
_WRITES: Final = int(ClientMessage.WRITES)


@frozen
class ClientHello:
    """What a client says of itself; `cluster` is 0 if it knows none yet."""

    version: int
    name: str
    cluster: int


@frozen
class Requests:
    """Requests in the order sent, each `(id, method, timeout_ms, arguments)`, and what is wrong with
    others."""

    requests: list[tuple[int, int, int, list[Any]]]
    refused: list[tuple[int, ApiError]]


@frozen
class Writes:
    """A frame of writes; the n-th of `ids`, `(id, timeout_ms)`, belongs to the n-th write of `body`.

    `decoded` is `body` decoded, and has passed `check_body`.
    """

    client: int
    low: int
    ids: Ids
    body: bytes
    decoded: list[Any]


@frozen
class Refused:
    """A message of which nothing can be done: `error` answers each of `ids`, or id 0 if there are none."""

    ids: list[int]
    error: ApiError


Message = ClientHello | Requests | Writes | Refused


def decode_message(data: bytes) -> Message:
    """Return the message that `data` holds, its shape checked; never raises for what a client can send."""
    try:
        message = decode(data)
    except DecodeError as error:
        return Refused([], InvalidArgument(f"coord: {error}"))
    if type(message) is not list or not message:
        return Refused([], InvalidArgument(f"coord: a message must be an array, not {name_of(message)}"))
    kind = message[0]
    if type(kind) is int:
        if kind == _WRITES:
            return _take_writes(message)
        if kind == _REQUESTS:
            return _take_requests(message)
        if kind == _HELLO:
            return _take_hello(message)
        return Refused([], Unimplemented(f"coord: this release knows no message of kind {kind}"))
    return Refused([], InvalidArgument(f"coord: the kind of a message must be an integer, not {name_of(kind)}"))


def _take_writes(message: list[Any]) -> Message:
    ids = write_ids(message[3]) if len(message) > 3 else None
    if ids is None:
        text = "coord: a writes message must be [2, client, low, [[id, timeout_ms], …] or a run of ids, body]"
        return Refused([], InvalidArgument(text))
    if isinstance(ids, IdRun) and not (len(message) == 5 and type(message[4]) is bytes and len(ids) <= len(message[4])):
        # A few bytes could name any number of ids, each of which would be answered.
        return Refused([], InvalidArgument(f"coord: a run of {len(ids)} ids needs a body of as many writes"))
    try:
        if len(message) != 5:
            _refuse_length("writes", 5, len(message))
        _, client, low, _, body = message
        if not (type(client) is int and type(low) is int and 0 <= client < _UINT64 and 0 <= low < _UINT64):
            _check_uint("client", client)
            _check_uint("low", low)
        if type(body) is not bytes:
            raise InvalidArgument(f"coord: the body of writes must be a byte string, not {name_of(body)}")
        try:
            decoded = decode(body)
        except DecodeError as error:
            raise InvalidArgument(f"coord: the body of writes: {error}") from None
        count = check_body(decoded)
        if count != len(ids):
            raise InvalidArgument(f"coord: {len(ids)} ids for {count} writes")
    except ApiError as error:
        return Refused([request_id for request_id, _ in ids], error)
    return Writes(client, low, ids, body, decoded)


def write_ids(items: Any) -> list[tuple[int, int]] | IdRun | None:
    """Return the ids and timeouts of a writes message, or None if they cannot all be read."""
    if type(items) is not list or not items:
        return None
    if type(items[0]) is int:
        return _id_run(items)
    ids = []
    for item in items:
        if type(item) is not list or len(item) != 2:
            return None
        request_id, timeout_ms = item
        if type(request_id) is not int or type(timeout_ms) is not int:
            return None
        if not (0 <= request_id < _UINT64 and 0 <= timeout_ms < _UINT64):
            return None
        ids.append((request_id, timeout_ms))
    return ids


def _id_run(items: list[Any]) -> IdRun | None:
    if len(items) != 3 or not all(type(item) is int and 0 <= item < _UINT64 for item in items):
        return None
    first, timeout_ms, count = items
    # More than can be open are refused by their ids, of which there must not be any number.
    if not 0 < count <= 2 * REQUESTS_OPEN_PER_CONNECTION or first + count > _UINT64:
        return None
    return IdRun(range(first, first + count), timeout_ms)


def _take_requests(message: list[Any]) -> Message:
    if len(message) != 2 or type(message[1]) is not list or not message[1]:
        text = "coord: a requests message must be [1, [[id, method, timeout_ms, arguments], …]]"
        return Refused([], InvalidArgument(text))
    requests: list[tuple[int, int, int, list[Any]]] = []
    refused: list[tuple[int, ApiError]] = []
    for item in message[1]:
        if type(item) is list and len(item) == 4:
            request_id, method, timeout_ms, arguments = item
            if (
                type(request_id) is int
                and type(method) is int
                and type(timeout_ms) is int
                and type(arguments) is list
                and 0 <= request_id < _UINT64
                and 0 <= timeout_ms < _UINT64
            ):
                requests.append((request_id, method, timeout_ms, arguments))
                continue
        refused.append(_refuse_request(item))
    return Requests(requests, refused)


def _refuse_request(item: Any) -> tuple[int, ApiError]:
    """Return the id of a malformed request, 0 if it has none, and what is wrong."""
    if type(item) is not list or not item:
        return 0, InvalidArgument(
            f"coord: a request must be an array [id, method, timeout_ms, arguments], not {name_of(item)}"
        )
    request_id = item[0]
    if type(request_id) is not int or not 0 <= request_id < _UINT64:
        return 0, InvalidArgument(f"coord: the id of a request must be an unsigned integer, not {name_of(request_id)}")
    try:
        if len(item) != 4:
            _refuse_length("a request", 4, len(item))
        _check_uint("method", item[1])
        _check_uint("timeout_ms", item[2])
        raise InvalidArgument(f"coord: the arguments of a request must be an array, not {name_of(item[3])}")
    except ApiError as error:
        return request_id, error


def _take_hello(message: list[Any]) -> Message:
    try:
        if not 3 <= len(message) <= 4:
            _refuse_length("hello", 4, len(message))
        _check_uint("version", message[1])
        if message[1] == 0:
            raise InvalidArgument("coord: protocol versions begin with 1")
        if type(message[2]) is not str:
            raise InvalidArgument(f"coord: the name in hello must be text, not {name_of(message[2])}")
        cluster = message[3] if len(message) > 3 else 0
        _check_uint("cluster", cluster)
    except ApiError as error:
        return Refused([], error)
    return ClientHello(message[1], message[2], cluster)


def _check_uint(name: str, value: Any) -> None:
    if type(value) is not int or not 0 <= value < _UINT64:
        raise InvalidArgument(f"coord: {name} must be an unsigned integer of 64 bits, not {name_of(value)}")


def _refuse_length(what: str, known: int, length: int) -> None:
    if length > known:
        raise Unimplemented(f"coord: this release knows no item {known + 1} of {what}")
    raise InvalidArgument(f"coord: {what} must have {known} items, not {length}")


# ---- what a node sends


def hello(cluster: int, member: int, name: str, server_version: str, max_request_bytes: int, max_txn_ops: int) -> bytes:
    """Return the first message of every connection."""
    return encode(
        [
            int(ServerMessage.HELLO),
            PROTOCOL_VERSION,
            cluster,
            member,
            name,
            server_version,
            max_request_bytes,
            max_txn_ops,
            CLIENT_WINDOW,
        ]
    )


def goodbye(reason: str) -> bytes:
    """Return the last message of a node that stops."""
    return encode([int(ServerMessage.GOODBYE), reason])


@define
class FrameHeads:
    """The heads of frames, encoded anew only when a part changes; one for all connections of a node."""

    member: int
    context: tuple[int, int, int] = (-1, -1, -1)
    """Cluster, term and leader, as frames tell them."""
    _replies: bytes = b""
    _notifications: bytes = b""

    def renew(self, context: tuple[int, int, int]) -> None:
        """Say what frames carry from now on."""
        self.context = cluster, term, leader = context
        encoded = uint(cluster) + uint(self.member) + uint(term) + uint(leader)
        self._replies = b"\x86" + uint(int(ServerMessage.REPLIES)) + encoded
        self._notifications = b"\x86" + uint(int(ServerMessage.NOTIFICATIONS)) + encoded

    def replies(self, replies: Sequence[bytes]) -> bytes:
        """Return the frame that carries encoded `replies`."""
        return b"".join((self._replies, array_head(len(replies)), *replies))

    def notifications(self, notifications: Sequence[bytes]) -> bytes:
        """Return the frame that carries encoded `notifications`."""
        return b"".join((self._notifications, array_head(len(notifications)), *notifications))


def reply_id(reply: bytes) -> int:
    """Return the request id of an encoded reply: the unsigned integer behind its one-byte array head."""
    head = reply[1]
    if head == 0x19:
        return reply[2] << 8 | reply[3]
    if head < 24:
        return head
    return int.from_bytes(reply[2 : 2 + (1 << (head - 24))], "big")
