"""How the blocking client connects: endpoint after endpoint, side by side, until one of them says hello."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Final

from attrs import define, field

from coord.client.blocking_link import NodeConnection
from coord.client.endpoints import ANOTHER_TRY_S, STAGGER_S, Endpoint, Rotation
from coord.client.failing import other_cluster
from coord.errors import ProtocolViolation
from coord.limits import HANDSHAKE_TIMEOUT_S, SERVER_MESSAGE_BYTES_MAX
from coord.protocol.ops import SUBPROTOCOL
from coord.transport.blocking import BlockingDial, wait_any
from coord.transport.link import CLOSE_TRY_LATER, LinkClosed, LinkFailed

TLS_TEXT: Final = "TLS is not part of this release: use http://, ws:// or a bare host:port"


@define(eq=False)
class _Attempt:
    """An endpoint that is being dialled (`dial`), then greeted (`connection`)."""

    endpoint: Endpoint
    gives_up_at: float
    dial: BlockingDial
    connection: NodeConnection | None = None

    @property
    def waiting(self) -> BlockingDial | NodeConnection:
        return self.connection or self.dial

    def close(self) -> None:
        """Give it up."""
        self.waiting.close()

    def advance(self, name: str, cluster_id: int) -> bool:
        """Go on as far as it goes without waiting; tell whether the node has said hello."""
        if self.connection is None:
            link = self.dial.advance()
            if link is None:
                return False
            self.connection = NodeConnection(self.endpoint, link)
            self.connection.greet(name, cluster_id)
        self.connection.receive_what_is_there()
        return self.connection.has_hello


@define(eq=False)
class Race:
    """Attempts side by side, each begun `STAGGER_S` after the one before, or as soon as that one fails.

    So an endpoint that is silent, because its packets are lost or its process is stopped, holds up nobody.
    """

    rotation: Rotation
    name: str
    cluster_id: int
    """The cluster that must be found; 0: any."""
    until: Callable[[], float]
    """When to give up, by the monotonic clock; asked again and again."""
    avoid: Collection[Endpoint] = ()
    _attempts: dict[Endpoint, _Attempt] = field(factory=dict)
    _next_at: float = 0.0

    def run(self) -> NodeConnection | None:
        """Return the first connection whose node says hello, or None if there is none in time."""
        self._pause()
        try:
            while (now := time.monotonic()) < self.until():
                if now >= self._next_at:
                    self._begin(now)
                    continue
                waiting = [attempt.waiting for attempt in self._attempts.values()]
                wait_any(waiting, min(self._next_at, self.until()) - now)
                for attempt in tuple(self._attempts.values()):
                    if (connection := self._advance(attempt)) is not None:
                        return connection
            return None
        finally:
            for attempt in self._attempts.values():
                attempt.close()
            self._attempts.clear()

    def _begin(self, now: float) -> None:
        self._next_at = now + STAGGER_S
        endpoint = self.rotation.next_endpoint({*self._attempts, *self.avoid})
        if endpoint in self._attempts:
            # Who was slow is better than nobody.
            endpoint = self.rotation.next_endpoint(self._attempts)
        if endpoint in self._attempts:
            return
        self.rotation.begun(endpoint)
        try:
            if endpoint.is_tls:
                raise LinkFailed(TLS_TEXT)
            dial = BlockingDial(
                endpoint.host, endpoint.port, subprotocol=SUBPROTOCOL, max_message_bytes=SERVER_MESSAGE_BYTES_MAX
            )
        except LinkFailed as error:
            self._failed(endpoint, error)
            return
        self._attempts[endpoint] = _Attempt(endpoint, now + HANDSHAKE_TIMEOUT_S, dial)

    def _advance(self, attempt: _Attempt) -> NodeConnection | None:
        endpoint = attempt.endpoint
        try:
            if not attempt.advance(self.name, self.cluster_id):
                if time.monotonic() >= attempt.gives_up_at:
                    raise LinkFailed(f"no answer within {HANDSHAKE_TIMEOUT_S:g} s")
                return None
            connection = attempt.connection
            assert connection is not None
            if self.cluster_id and connection.cluster_id != self.cluster_id:
                raise LinkFailed(other_cluster(self.cluster_id, connection.cluster_id))
        except (LinkFailed, LinkClosed, ProtocolViolation, OSError) as error:
            del self._attempts[endpoint]
            attempt.close()
            self._failed(endpoint, error)
            return None
        del self._attempts[endpoint]
        self.rotation.reached(endpoint, connection.member_id)
        return connection

    def _failed(self, endpoint: Endpoint, error: Exception) -> None:
        self.rotation.failed(endpoint, str(error).removeprefix(f"{endpoint}: ") or "no answer in time")
        if isinstance(error, LinkClosed) and error.code == CLOSE_TRY_LATER:
            self.rotation.turned_away(endpoint, error.reason)
        self._pause()

    def _pause(self) -> None:
        now = time.monotonic()
        self._next_at = now + self.rotation.pause_s()
        if now < (last := self.until() - ANOTHER_TRY_S):
            # No pause is so long that nothing is tried any more while there is time for it.
            self._next_at = min(self._next_at, last)
