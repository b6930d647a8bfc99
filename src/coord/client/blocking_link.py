"""One connection of the blocking client: the handshake of coord.v1, then requests and their replies."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from coord.client.endpoints import Endpoint
from coord.client.responses import Header
from coord.errors import ApiError, ProtocolViolation
from coord.limits import REPLY_BYTES_MAX, SEND_BUFFER_HIGH_BYTES
from coord.protocol import client_protocol as protocol
from coord.protocol.ops import SUBPROTOCOL, ServerMessage
from coord.transport.blocking import BlockingLink
from coord.transport.link import CLOSE_GOING_AWAY, LinkClosed, LinkEnd, LinkFailed

MESSAGE_BYTES_MAX: Final = REPLY_BYTES_MAX + SEND_BUFFER_HIGH_BYTES
TLS_TEXT: Final = "TLS is not part of this release: use http://, ws:// or a bare host:port"


class NodeConnection:
    """A connection to one node, past its hello."""

    def __init__(self, endpoint: Endpoint, link: BlockingLink) -> None:
        self.endpoint = endpoint
        self._link = link
        self._next_id = 1
        self._replies: list[tuple[Header, Any]] = []
        self._notifications: list[Any] = []
        self.goodbye = ""
        """Why the node stops, once it said so; what it still answers is read, but nothing more is asked."""
        self.cluster_id = 0
        self.member_id = 0
        self.leader_id = 0
        self.raft_term = 0

    @classmethod
    def open(cls, endpoint: Endpoint, name: str, cluster_id: int, timeout: float) -> NodeConnection:
        """Connect within `timeout` seconds. Raises `LinkFailed`, `LinkClosed` or `TimeoutError`."""
        if endpoint.is_tls:
            raise LinkFailed(TLS_TEXT)
        deadline = time.monotonic() + timeout
        link = BlockingLink.open(
            endpoint.host,
            endpoint.port,
            subprotocol=SUBPROTOCOL,
            timeout=timeout,
            max_message_bytes=MESSAGE_BYTES_MAX,
        )
        connection = cls(endpoint, link)
        try:
            link.send(protocol.hello(name, cluster_id), deadline - time.monotonic())
            while not connection.cluster_id:
                connection._receive(deadline)
        except BaseException:
            link.close()
            raise
        return connection

    def is_open(self) -> bool:
        """Tell whether the connection can carry a request."""
        return not self.goodbye and self._link.is_open()

    def close(self) -> None:
        """Close the connection."""
        self._link.close()

    def send_request(self, method: int, timeout: float, arguments: Sequence[Any]) -> int:
        """Send one request and return its id."""
        request_id = self._new_id()
        requests = [(request_id, method, protocol.milliseconds(timeout), arguments)]
        self._link.send(protocol.requests_frame(requests), timeout)
        return request_id

    def send_write(self, op: int, timeout: float, arguments: Sequence[Any]) -> int:
        """Send one write without a number and return its request id."""
        request_id = self._new_id()
        ids = [(request_id, protocol.milliseconds(timeout))]
        self._link.send(protocol.writes_frame(ids, [(0, op, None, arguments)]), timeout)
        return request_id

    def wait_reply(self, request_id: int, deadline: float) -> tuple[Header, Any]:
        """Return the header and the result of a request's reply.

        Raises the `ApiError` that it carries, `TimeoutError` or `LinkClosed`.
        """
        while True:
            # A reply to an earlier request, which was given up, is dropped here.
            for header, reply in self._replies:
                if reply[0] == request_id:
                    if len(reply) > 3:
                        raise ApiError.from_wire(reply[3])
                    return header, reply[2]
            self._replies.clear()
            self._receive(deadline)

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
            self.cluster_id, self.member_id = message.cluster_id, message.member_id
        elif isinstance(message, protocol.Goodbye):
            self.goodbye = message.reason
        elif message is not None:
            self.leader_id, self.raft_term = message.leader_id, message.raft_term
            try:
                self._take(message)
            except (TypeError, IndexError) as error:
                raise ProtocolViolation(f"not a message of coord.v1: {error}") from error

    def _take(self, frame: protocol.Frame) -> None:
        if frame.kind is ServerMessage.NOTIFICATIONS:
            self._notifications.extend(frame.items)
            return
        for reply in frame.items:
            if reply[0] == 0:
                raise ProtocolViolation(f"the node could not read a request: {reply[3][1]}")
            header = Header(frame.cluster_id, frame.member_id, reply[1], frame.raft_term)
            self._replies.append((header, reply))
