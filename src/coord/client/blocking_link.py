"""One connection of the blocking client: the handshake of coord.v1, then requests and their replies."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

from coord.client.endpoints import Endpoint
from coord.client.fence import Guard
from coord.client.responses import Header
from coord.errors import ApiError, ProtocolViolation
from coord.limits import HANDSHAKE_TIMEOUT_S
from coord.protocol import client_protocol as protocol
from coord.protocol.bodies import Write
from coord.protocol.ops import ServerMessage
from coord.transport.blocking import BlockingLink
from coord.transport.link import CLOSE_GOING_AWAY, LinkClosed, LinkEnd

_AT_ONCE: Final = 0.0


def error_of(reply: Any) -> ApiError | None:
    """Return the error that a reply carries, if it does."""
    if len(reply) <= 3:
        return None
    error = ApiError.from_wire(reply[3])
    error.revision = reply[1]
    return error


class NodeConnection:
    """A connection to one node."""

    is_sending: Final = False

    def __init__(self, endpoint: Endpoint, link: BlockingLink) -> None:
        self.endpoint = endpoint
        self._link = link
        self._next_id = 1
        self._replies: list[tuple[Header, Any]] = []
        self._notifications: list[Any] = []
        self.goodbye = ""
        """Why the node stops, once it said so; what it still answers is read, but nothing more is asked."""
        self.has_hello = False
        """The node has said hello."""
        self.cluster_id = 0
        """0 while the node has no cluster yet."""
        self.member_id = 0
        self.leader_id = 0
        self.raft_term = 0

    def greet(self, name: str, cluster_id: int) -> None:
        """Say hello; the connection may be used once `has_hello`. Raises `LinkClosed` or `TimeoutError`."""
        self._link.send(protocol.hello(name, cluster_id), HANDSHAKE_TIMEOUT_S)

    def fileno(self) -> int:
        """The socket's number, to wait for what arrives."""
        return self._link.fileno()

    def receive_what_is_there(self) -> None:
        """Take what has arrived, without waiting. Raises `LinkClosed` or `ProtocolViolation`."""
        with suppress(TimeoutError):
            while True:
                self._receive(_AT_ONCE)

    def is_open(self) -> bool:
        """Tell whether the connection can carry a request."""
        return not self.goodbye and self._link.is_open()

    def close(self) -> None:
        """Close the connection."""
        self._link.close()

    def hang_up(self) -> None:
        """Break the connection, so that a thread that waits for an answer goes on."""
        self._link.hang_up()

    def abandon(self) -> None:
        """Let go of a connection that another process uses (S21)."""
        self._link.abandon()

    def send_request(self, method: int, timeout: float, arguments: Sequence[Any]) -> int:
        """Send one request and return its id."""
        request_id = self._new_id()
        requests = [(request_id, method, protocol.milliseconds(timeout), arguments)]
        self._link.send(protocol.requests_frame(requests), timeout)
        return request_id

    def send_write(
        self, op: int, timeout: float, arguments: Sequence[Any], guard: Guard | None, number: int, client: int
    ) -> int:
        """Send one write and return its request id.

        `number` is the lowest that `client` has open; both are 0 for a write that is not numbered.
        """
        return self.send_writes(timeout, [(number, op, guard, arguments)], client, number)[0]

    def send_writes(self, timeout: float, writes: Sequence[Write], client: int, low: int) -> list[int]:
        """Send writes in one frame and return their request ids; `low` is the lowest number that `client` has open."""
        timeout_ms = protocol.milliseconds(timeout)
        ids = [(self._new_id(), timeout_ms) for _ in writes]
        self._link.send(protocol.writes_frame(ids, writes, client, low), timeout)
        return [request_id for request_id, _ in ids]

    def wait_reply(self, request_id: int, deadline: float) -> tuple[Header, Any]:
        """Return the header and the result of a request's reply.

        Raises the `ApiError` that it carries, `TimeoutError` or `LinkClosed`.
        """
        while (reply := self.reply_to(request_id)) is None:
            self._receive(deadline)
        return reply

    def wait_replies(self, request_ids: set[int], deadline: float) -> Iterator[tuple[Header, Any]]:
        """Yield the header and the reply to each of some requests, as they come, in any order.

        Raises `TimeoutError` or `LinkClosed`.
        """
        while request_ids:
            replies, self._replies = self._replies, []
            for header, reply in replies:
                # One to an earlier request, which was given up, is dropped here.
                if reply[0] in request_ids:
                    request_ids.discard(reply[0])
                    yield header, reply
            if request_ids:
                self._receive(deadline)

    def reply_to(self, request_id: int) -> tuple[Header, Any] | None:
        """Return what `wait_reply` returns if it is here, else None. Raises the `ApiError` that it carries."""
        for header, reply in self._replies:
            if reply[0] == request_id:
                if (error := error_of(reply)) is not None:
                    raise error
                return header, reply[2]
        # A reply to an earlier request, which was given up, is dropped here.
        self._replies.clear()
        return None

    def wait_notifications(self, deadline: float) -> list[Any]:
        """Return notifications as they come. Raises `TimeoutError` or `LinkClosed`."""
        while not self._notifications:
            if self.goodbye:
                raise LinkClosed(CLOSE_GOING_AWAY, self.goodbye, LinkEnd.PEER)
            self._receive(deadline)
        return self.taken()

    def taken(self) -> list[Any]:
        """Return the notifications that are here, without waiting."""
        taken, self._notifications = self._notifications, []
        return taken

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id

    def _receive(self, deadline: float) -> None:
        message = protocol.decode_message(self._link.receive(max(deadline - time.monotonic(), 0.0)))
        if isinstance(message, protocol.ServerHello):
            self.has_hello = True
            self.cluster_id, self.member_id = message.cluster_id, message.member_id
        elif isinstance(message, protocol.Goodbye):
            self.goodbye = message.reason
        elif message is not None:
            self.cluster_id = message.cluster_id
            self.leader_id, self.raft_term = message.leader_id, message.raft_term
            try:
                self._take(message)
            except (TypeError, IndexError) as error:
                raise ProtocolViolation(f"not a message of coord.v1: {error}") from error

    def _take(self, frame: protocol.Frame) -> None:
        if frame.kind == ServerMessage.NOTIFICATIONS:
            self._notifications.extend(frame.items)
            return
        for reply in frame.items:
            if reply[0] == 0:
                raise ProtocolViolation(f"the node could not read a request: {reply[3][1]}")
            header = Header(frame.cluster_id, frame.member_id, reply[1], frame.raft_term)
            self._replies.append((header, reply))
